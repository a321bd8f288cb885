"""The table of all figures that an evaluation can measure; results, comparisons, tables and pages read it.

A new figure is one row here, and a measurement that gives its column: see `benchmark.MEASUREMENTS`.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Figure:
    """What is known of a figure beside its name.

    Attributes:
        title: Its title in the tables of the experiments.
        kind: How it comes about: a "hit" is the share of images that were classified correctly in some way, a "share"
            the mean of a number of each image in [0, 1] (saco's is in [-1, 1]), "counts" are added up over the images
            before they are divided (the segmentation test), and a "summary" is one of `summaries.SUMMARIES`, or of
            several data sets (`combined.COMBINED`).
        lower_is_better: Whether a fall is an improvement.
        tells_of_change: Whether it helps to tell a model that changed from a map that changed.
        has_interval: Whether a single model's result gives it a 95 % interval: top1, and those of kind "counts" and
            "summary".
        hub_name: What the Hub's metadata call it, where a model's card tells it there.
    """

    title: str
    kind: Literal["hit", "share", "counts", "summary"]
    lower_is_better: bool = False
    tells_of_change: bool = False
    has_interval: bool = False
    hub_name: str | None = None


FIGURES: dict[str, Figure] = {
    "top1": Figure("R@1", "hit", has_interval=True, hub_name="Top-1 accuracy over all classes of the model (%)"),
    "top5": Figure("R@5", "hit", hub_name="Top-5 accuracy over all classes of the model (%)"),
    "top1_subset": Figure("R@1, subset", "hit", hub_name="Top-1 accuracy among the benchmark's classes (%)"),
    "top5_subset": Figure("R@5, subset", "hit", hub_name="Top-5 accuracy among the benchmark's classes (%)"),
    "top1_any": Figure("R@1, any index", "hit"),
    "shape_bias": Figure("shape bias", "summary", has_interval=True),
    "worst_group_top1": Figure("R@1, worst group", "summary", has_interval=True),
    "adjusted_top1": Figure("R@1, adjusted", "summary", has_interval=True),
    "bg_gap": Figure("BG-gap", "summary", lower_is_better=True, has_interval=True),
    "mean_top1": Figure("mean R@1", "summary", has_interval=True),
    "mean_corruption_error": Figure("mCE", "summary", lower_is_better=True, has_interval=True),
    "spurious_score": Figure("spurious score", "summary", has_interval=True),
    "spurious_top1": Figure("taken for the class", "share", lower_is_better=True),
    "ece": Figure("ECE", "summary", lower_is_better=True, has_interval=True),
    "worst_classes_top1": Figure("R@1, worst classes", "summary", has_interval=True),
    "pixel_accuracy": Figure("pixel acc.", "counts", has_interval=True),
    "mean_iou": Figure("mIoU", "counts", has_interval=True),
    "mean_average_precision": Figure("mAP", "counts", has_interval=True),
    "relevance_in_mask": Figure("relevance in mask", "share", tells_of_change=True),
    "relevance_in_mask_rollout": Figure("rollout in mask", "share", tells_of_change=True),
    "relevance_in_mask_occlusion": Figure("occlusion in mask", "share", tells_of_change=True),
    "rank_accuracy": Figure("rank acc.", "share", tells_of_change=True),
    "pointing_game": Figure("pointing game", "share", tells_of_change=True),
    "saco": Figure("SaCo", "share", tells_of_change=True),
    "insertion": Figure("insertion", "share", tells_of_change=True),
    "deletion": Figure("deletion", "share", lower_is_better=True, tells_of_change=True),
    "top1_grey_background": Figure("R@1, grey background", "hit", tells_of_change=True),
    "top1_swapped_background": Figure("R@1, swapped background", "hit", tells_of_change=True),
    "top1_grey_object": Figure("R@1, grey object", "hit", lower_is_better=True),
    "top1_grey_box": Figure("R@1, grey box", "hit", lower_is_better=True),
    "foreground_sensitivity": Figure("RFS", "summary", tells_of_change=True, has_interval=True),
    "top1_oracle": Figure("R@1, oracle", "hit"),
}
CHANGE_FIGURES = tuple(name for name, figure in FIGURES.items() if figure.tells_of_change)
# What `faithfulness.measure` gives.
FAITHFULNESS_FIGURES = ("relevance_in_mask_occlusion", "saco", "foreground_sensitivity")
SEGMENTATION_FIGURES = tuple(name for name, figure in FIGURES.items() if figure.kind == "counts")


def figures_of_kind(kind: str) -> list[str]:
    """The names of the figures of a kind."""
    return [name for name, figure in FIGURES.items() if figure.kind == kind]
