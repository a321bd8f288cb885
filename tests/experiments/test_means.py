"""The mean change over data sets, on predictions that are written down."""

import numpy as np
import pandas as pd
import pytest

from hf_robustvit.evaluation.statistics import score_interval
from hf_robustvit.experiments.means import mean_change


def predictions(hits: str, objects: str | None = None, held_out: str = "") -> pd.DataFrame:
    """One image a letter of `hits`, right where it is 1; `objects` and `held_out` (1 where it is) alike."""
    frame = pd.DataFrame(
        {
            "label": 0,
            "top5_indices": [[1 - int(hit), 2] for hit in hits],
            "training_class": [letter != "1" for letter in held_out or "0" * len(hits)],
        },
        index=pd.Index([f"{number:03d}" for number in range(len(hits))], name="image_id"),
    )
    return frame if objects is None else frame.assign(object=list(objects))


def test_data_sets_count_alike_whatever_their_size():
    pairs = {
        "few": [(predictions("0000"), predictions("1100"))],
        "many": [(predictions("1" * 40), predictions("1" * 36 + "0" * 4))],
    }
    change, low, high = mean_change(pairs, held_out=False)
    assert change == pytest.approx((50 - 10) / 2)
    assert low < change < high


def test_held_out_classes_alone():
    pair = predictions("0000", held_out="1100"), predictions("1011", held_out="1100")
    assert mean_change({"set": [pair]}, held_out=False)[0] == pytest.approx(75)
    assert mean_change({"set": [pair]}, held_out=True)[0] == pytest.approx(50)


@pytest.mark.parametrize("objects, count", [(None, 8), ("aabbccdd", 4)])
def test_where_nothing_changed_the_interval_still_has_a_width(objects, count):
    pair = predictions("01010101", objects), predictions("01010101", objects)
    change, low, high = mean_change({"set": [pair]}, held_out=False)
    same = np.zeros(count, dtype=bool)
    assert change == 0 and (low, high) == pytest.approx([100 * bound for bound in score_interval(same, same)])
    assert low < -10 and high > 10


def test_seeds_are_averaged_and_an_image_stays_whole():
    before = predictions("00000000")
    seeds = [(before, predictions(hits)) for hits in ("11000000", "10000000")]
    change, low, high = mean_change({"set": seeds}, held_out=False)
    assert change == pytest.approx(100 * 3 / 16)
    # The same image by two seeds tells no more than one: the interval is that of one seed twice.
    once = mean_change({"set": seeds[:1]}, held_out=False)
    twice = mean_change({"set": seeds[:1] * 2}, held_out=False)
    assert twice[0] == pytest.approx(once[0]) and twice[2] - twice[1] > 0.9 * (once[2] - once[1])
