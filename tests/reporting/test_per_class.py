import numpy as np
import pandas as pd
from PIL import Image

from hf_robustvit.evaluation.comparison import Difference
from hf_robustvit.reporting.per_class import HARMED, IMPROVED, plot_class_changes, plot_class_groups


def pixels_of(path, colour: str) -> int:
    """How many pixels of a picture have a colour."""
    wanted = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    with Image.open(path) as image:
        return int((np.asarray(image.convert("RGB")) == wanted).all(axis=-1).sum())


def changes(*differences: float) -> pd.DataFrame:
    names = [f"class {number}" for number in range(len(differences))]
    return pd.DataFrame({"class_name": names, "n": 10, "difference": differences})


def test_bars_are_as_long_as_the_changes(tmp_path):
    plot_class_changes(changes(40, 30), changes(-40), "set", tmp_path / "a.png")
    improved, harmed = pixels_of(tmp_path / "a.png", IMPROVED), pixels_of(tmp_path / "a.png", HARMED)
    assert abs(improved / harmed - 70 / 40) < 0.1


def test_fifty_rows_get_a_taller_figure_and_none_is_fine(tmp_path):
    plot_class_changes(changes(*range(50, 0, -1)), changes(), "many", tmp_path / "many.png")
    plot_class_changes(changes(5), changes(), "one", tmp_path / "one.png")
    with Image.open(tmp_path / "many.png") as many, Image.open(tmp_path / "one.png") as one:
        assert many.height > 4 * one.height and many.width == one.width
    assert pixels_of(tmp_path / "many.png", HARMED) == 0


def test_training_and_held_out_classes_are_drawn_for_the_figure_that_is_asked(tmp_path):
    def difference(figure, classes, value):
        return Difference("set", figure, classes, 10, 50, 50 + value, value, (value - 1, value + 1))

    items = [difference("top1", "all", 9), difference("top1", "training", 8), difference("top1", "held-out", 4)]
    plot_class_groups([*items, difference("top5", "held-out", 40)], "top1", tmp_path / "groups.png")
    training, held_out = pixels_of(tmp_path / "groups.png", IMPROVED), pixels_of(tmp_path / "groups.png", HARMED)
    assert training > 1.5 * held_out > 0
