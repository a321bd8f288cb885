"""Accuracy per class before and after (paper App. J)."""

import pandas as pd

from hf_robustvit.evaluation.accuracy import outcomes


def class_changes(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """The top-1 accuracy of each class, before and after.

    Args:
        before: The baseline's predictions, paired with the model's by `pair_predictions`.
        after: The model's.

    Returns:
        Columns `class_name`, `n`, `before`, `after`, `difference` (percent), most improved class first.
    """
    correct = pd.DataFrame({"before": outcomes(before)["top1"], "after": outcomes(after)["top1"]})
    groups = correct.groupby(after["class_name"])
    changes = 100 * groups.mean()
    changes.insert(0, "n", groups.size())
    changes["difference"] = changes["after"] - changes["before"]
    # Classes that changed alike stay in the order of their names.
    return changes.reset_index().sort_values("difference", ascending=False, kind="stable", ignore_index=True)


def most_changed(changes: pd.DataFrame, count: int = 50) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The classes that improved most and those harmed most, strongest first, at most `count` of each."""
    improved = changes[changes["difference"] > 0]
    harmed = changes[changes["difference"] < 0]
    return improved.head(count), harmed.iloc[::-1].head(count)
