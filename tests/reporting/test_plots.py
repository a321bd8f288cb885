import itertools

import numpy as np
import pandas as pd
from PIL import Image

from hf_robustvit.reporting.plots import (
    COLOURS,
    HARMED,
    IMPROVED,
    plot_class_changes,
    plot_class_groups,
    plot_factor,
    save_figure,
)


def pixels_of(path, colour: str) -> int:
    """How many pixels of a picture have a colour."""
    wanted = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    with Image.open(path) as image:
        return int((np.asarray(image.convert("RGB")) == wanted).all(axis=-1).sum())


def changes(*differences: float) -> pd.DataFrame:
    names = [f"class {number}" for number in range(len(differences))]
    return pd.DataFrame({"class_name": names, "n": 10, "difference": differences})


def test_bars_are_as_long_as_the_changes(tmp_path):
    save_figure(plot_class_changes(changes(40, 30), changes(-20), "set"), tmp_path / "a", ".png")
    improved, harmed = pixels_of(tmp_path / "a.png", IMPROVED), pixels_of(tmp_path / "a.png", HARMED)
    assert abs(improved / harmed - 70 / 20) < 0.2


def test_fifty_rows_get_a_taller_figure_and_none_is_fine(tmp_path):
    save_figure(plot_class_changes(changes(*range(50, 0, -1)), changes(), "many"), tmp_path / "many", ".png")
    save_figure(plot_class_changes(changes(5), changes(), "one"), tmp_path / "one", ".png")
    with Image.open(tmp_path / "many.png") as many, Image.open(tmp_path / "one.png") as one:
        assert many.height > 4 * one.height and many.width == one.width
    assert pixels_of(tmp_path / "many.png", HARMED) == 0


def test_names_are_no_formulas(tmp_path):
    figure = plot_class_changes(changes(5).assign(class_name=r"$\nosuch$"), changes(), "one")
    save_figure(figure, tmp_path / "one", ".png")  # matplotlib refuses a formula that it cannot read
    assert figure.axes[0].get_yticklabels()[0].get_text() == r"\$\nosuch\$ (n=10)"


def test_a_change_twice_as_large_is_a_bar_twice_as_long(tmp_path):
    changes = pd.DataFrame({"dataset": "set", "classes": ["training", "held-out"], "change": [8.0, 4.0]})
    changes = changes.assign(low=changes["change"] - 1, high=changes["change"] + 1)
    save_figure(plot_class_groups(changes, "change"), tmp_path / "v1.0-groups")
    assert {path.name for path in tmp_path.iterdir()} == {"v1.0-groups.png", "v1.0-groups.pdf"}
    training, held_out = (pixels_of(tmp_path / "v1.0-groups.png", colour) for colour in (IMPROVED, HARMED))
    assert training > 1.5 * held_out > 0


def curve_of(**columns) -> pd.DataFrame:
    return pd.DataFrame(columns).assign(n=4, low=lambda frame: frame["top1"] - 5, high=lambda frame: frame["top1"] + 5)


def test_a_factor_is_a_line_for_each_model_and_a_place_a_map():
    before = curve_of(model="before", area=[0.1, 0.2, 0.4], top1=[20.0, 50.0, 60.0])
    after = curve_of(model="after", area=[0.1, 0.2, 0.4], top1=[30.0, 60.0, 70.0])
    (axes,) = plot_factor(pd.concat([before, after]), "set").axes
    lines = {container.get_label(): container.lines[0] for container in axes.containers}
    assert list(lines["after"].get_ydata()) == [30, 60, 70] and list(lines["before"].get_xdata()) == [0.1, 0.2, 0.4]
    assert (lines["after"].get_color(), lines["before"].get_color()) == COLOURS[:2]

    certain = after.assign(top1=100.0, high=100 - 1e-12)  # as rounding leaves it
    assert plot_factor(certain, "set").axes

    places = curve_of(model="model", x=[0.25, 0.75] * 2, y=[0.25, 0.25, 0.75, 0.75], top1=[10.0, 20.0, 30.0, 40.0])
    axes, _ = plot_factor(places, "set").axes
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written == {(0.25, 0.25): "10.0", (0.75, 0.25): "20.0", (0.25, 0.75): "30.0", (0.75, 0.75): "40.0"}
    assert axes.yaxis_inverted()  # the top of the image is the top of the map


def test_the_labels_of_a_factors_axis_are_apart():
    areas = [round((side / 64) ** 2, 4) for side in range(10, 65, 5)]  # as cutouts-size has them
    figure = plot_factor(curve_of(model="model", area=areas, top1=[50.0] * len(areas)), "set")
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert len(boxes) > 3 and all(left.x1 + 5 < right.x0 for left, right in itertools.pairwise(boxes))
