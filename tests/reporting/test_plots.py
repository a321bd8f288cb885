import numpy as np
import pandas as pd
from PIL import Image

from hf_robustvit.reporting.plots import HARMED, IMPROVED, plot_class_changes, plot_class_groups, save_figure


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


def test_a_change_twice_as_large_is_a_bar_twice_as_long(tmp_path):
    changes = pd.DataFrame({"dataset": "set", "classes": ["training", "held-out"], "change": [8.0, 4.0]})
    changes = changes.assign(low=changes["change"] - 1, high=changes["change"] + 1)
    save_figure(plot_class_groups(changes, "change"), tmp_path / "v1.0-groups")
    assert {path.name for path in tmp_path.iterdir()} == {"v1.0-groups.png", "v1.0-groups.pdf"}
    training, held_out = (pixels_of(tmp_path / "v1.0-groups.png", colour) for colour in (IMPROVED, HARMED))
    assert training > 1.5 * held_out > 0
