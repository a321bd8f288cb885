"""A data set to evaluate on, before it meets a model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import datasets

from hf_robustvit.data.masks import NO_FLAGS, MaskReading
from hf_robustvit.data.pairs import Pair


# From a row and a model's input size (height, width) to its pictures.
Render = Callable[[Mapping[str, Any], tuple[int, int]], Pair]
# What a model decides where a class of the data set is several of ImageNet's.
Decision = Literal["first", "any", "mean"]


# Of an experiment's folder: its test photos, and those of them with masks.
PHOTOS, MASKED_PHOTOS = "photos", "photos-masked"
DEVELOPMENT = "-development"
"""Ends the names of a folder's benchmarks that settings are chosen on."""


@dataclass(frozen=True)
class BenchmarkRows:
    """The rows of a data set, and what is known of them.

    Attributes:
        name: Its name.
        rows: `image`, `label`, `image_id`, and `mask` where it has masks. A segmentation set may lack `label`.
        imagenet_indices: Class name -> indices among ImageNet's 1000 classes, the first being the paper's; None where
            the names are matched with the model's own.
        tests_masks: Whether it gets the tests that need masks: the segmentation test, and whether the model follows
            its map.
        is_own_folder: Whether it is a folder of the user's own, whose images are turned by their EXIF orientation; no
            benchmark's protocol does that.
        reading: How its masks are read, where they are the user's own.
        render: Makes the pictures of a row; None where rows hold them.
        left_out: Reason -> number of objects that were not rendered for it.
        decision: What the model decides where a class is several of ImageNet's: its likeliest class, of which the
            "first" one of the class is right (the paper), or "any"; or the class of the highest "mean" probability,
            so that it chooses among the data set's classes alone.
        ablates: Whether accuracy without the object is one of its figures; then it has masks.
        hub_id: The data set on the Hub that it is, or that holds the same images; None where there is none.
        whole: Whether its authors show models the whole image: it is squashed to the input's size, nothing is cropped.
    """

    name: str
    rows: datasets.Dataset
    imagenet_indices: Mapping[str, tuple[int, ...]] | None = None
    tests_masks: bool = False
    is_own_folder: bool = False
    reading: MaskReading = NO_FLAGS
    render: Render | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    decision: Decision = "first"
    whole: bool = False
    ablates: bool = False
    hub_id: str | None = None
