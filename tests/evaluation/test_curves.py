"""Accuracy over area, angle and place, from predictions."""

import numpy as np
import pandas as pd

from hf_robustvit.evaluation.curves import MOST_VALUES, accuracy_curve


def predictions(hits: list[bool], **columns) -> pd.DataFrame:
    guesses = [[0, 1] if hit else [1, 0] for hit in hits]
    return pd.DataFrame({"label": 0, "top5_indices": guesses} | columns)


def test_accuracy_for_each_value_of_each_model():
    area = [0.1, 0.4, 0.1, 0.4, 0.1, None]
    before = predictions([True, True, False, True, False, True], area=area)
    after = predictions([True, True, True, True, False, True], area=area)
    curve = accuracy_curve("si-score-size", {"before": before, "after": after})
    points = curve.set_index(["model", "area"])
    assert points["n"].to_dict() == {(m, a): n for m in ("before", "after") for a, n in ((0.1, 3), (0.4, 2))}
    assert np.allclose(points["top1"], [100 / 3, 100, 200 / 3, 100])
    assert ((points["low"] <= points["top1"]) & (points["top1"] <= points["high"])).all()


def test_places_have_two_coordinates():
    frame = predictions([True, False, True], x=[0.25, 0.25, 0.75], y=[0.5, 0.5, 0.25])
    curve = accuracy_curve("composites-location", {"model": frame})
    assert curve[["x", "y", "top1"]].to_numpy().tolist() == [[0.25, 0.5, 50], [0.75, 0.25, 100]]


def test_many_values_are_put_into_bins():
    frame = predictions([True] * 500 + [False] * 500, rotation=np.arange(1000) * 0.36)
    curve = accuracy_curve("x-rotation", {"model": frame})
    assert len(curve) == MOST_VALUES and curve["n"].sum() == 1000
    assert curve["top1"].iloc[0] == 100 and curve["top1"].iloc[-1] == 0


def test_there_is_no_curve_where_nothing_is_known_of_the_factor():
    assert accuracy_curve("imagenet-a", {"model": predictions([True], area=[0.1])}) is None
    assert accuracy_curve("si-score-size", {"model": predictions([True])}) is None
    assert accuracy_curve("si-score-size", {"model": predictions([True], area=[np.nan])}) is None
