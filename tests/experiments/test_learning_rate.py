"""Section 4's rule on made-up validation figures."""

import pytest

from hf_robustvit.experiments.learning_rate import choose_learning_rate


def figures(accuracy, loss):
    return {"eval_accuracy": accuracy, "eval_classification_loss": loss}


@pytest.mark.parametrize(
    "after, tolerance, chosen",
    [
        ([(0.80, 0.5), (0.79, 0.4), (0.785, 0.3)], 2, 3e-6),
        ([(0.80, 0.5), (0.79, 0.4), (0.77, 0.3)], 2, 2e-6),  # three points lost
        ([(0.80, 0.5), (0.79, 0.4), (0.77, 0.3)], 3, 3e-6),
        ([(0.80, 0.5), (0.79, 0.6), (0.90, 0.7)], 2, 1e-6),  # the loss rises
        ([(0.70, 0.1), (0.60, 0.1), (0.50, 0.1)], 2, None),
    ],
)
def test_the_highest_rate_that_loses_little(after, tolerance, chosen):
    before = [figures(0.80, 0.5)] * 3
    after = [figures(*pair) for pair in after]
    assert choose_learning_rate([1e-6, 2e-6, 3e-6], before, after, tolerance) == chosen
