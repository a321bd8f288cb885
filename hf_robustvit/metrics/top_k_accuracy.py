"""Top-k accuracy from the indices of the best classes, not from all the logits."""

import datasets
import evaluate
import numpy as np


class TopKAccuracy(evaluate.Metric):
    """The share of images whose class is among the k most probable ones.

    Predictions are class indices, most probable first: five integers an image instead of a thousand logits. A model
    with fewer than k classes gives all of them.

    Example:
        >>> TopKAccuracy().compute(predictions=[[2, 0], [1, 2]], references=[0, 1], k=(1, 2))
        {'top1': 0.5, 'top2': 1.0}
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="The share of images whose class is among the k most probable ones.",
            citation="",
            inputs_description="\npredictions: class indices, most probable first. references: one class index.",
            features=datasets.Features(
                {"predictions": datasets.Sequence(datasets.Value("int64")), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions, references, k: tuple[int, ...] = (1, 5)) -> dict[str, float]:
        """Compare the first k predictions with the reference.

        Args:
            predictions: (images, at least max(k) or all classes) integers, most probable class first.
            references: (images,) integers.
            k: The numbers of guesses to report.

        Returns:
            `{"top1": ..., "top5": ...}` for `k=(1, 5)`, each in [0, 1].
        """
        hits = np.asarray(predictions) == np.asarray(references)[:, None]  # (images, guesses)
        return {f"top{guesses}": float(hits[:, :guesses].any(axis=1).mean()) for guesses in k}
