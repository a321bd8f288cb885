"""The rule by which examples are chosen, on a hand-made table."""

import numpy as np
import pandas as pd
import pytest

from hf_robustvit.evaluation.examples import choose_examples


def predictions(guesses):
    """Six images of the classes 0, 0, 0, 1, 1, 2, with the given first guesses."""
    labels = [0, 0, 0, 1, 1, 2]
    return pd.DataFrame(
        {
            "class_name": [f"class {label}" for label in labels],
            "label": labels,
            "top5_indices": [np.array([guess, 9]) for guess in guesses],
        },
        index=[f"image {number}" for number in range(6)],
    )


@pytest.mark.parametrize(
    "kind, count, chosen",
    [
        ("corrected", 9, [0, 3, 1]),  # the first of each class before any class's second
        ("corrected", 2, [0, 3]),
        ("broken", 9, [5]),
        ("same", 9, [4]),
    ],
)
def test_one_of_each_class_first(kind, count, chosen):
    before = predictions([7, 7, 7, 7, 1, 2])
    after = predictions([0, 0, 8, 1, 1, 0])
    assert choose_examples(before, after, kind, count) == [f"image {number}" for number in chosen]
