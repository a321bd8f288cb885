"""Masks of what a class's name says: a zero-shot detector finds it, and a promptable segmenter outlines it."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from hf_robustvit.flags.masks import OTHER_CLASS, TextOptions
from hf_robustvit.masks.prompts import OBJECT_WEIGHT, Prompts, plain, read_overrides
from hf_robustvit.masks.quality import MaskScores
from hf_robustvit.masks.text_models import Detector, Found, Segmenter
from hf_robustvit.masks.tokencut import ObjectMask, WorkingImage


logger = logging.getLogger(__name__)

LONGEST = 1333  # pixels; no model here sees more
SAME_BOX = 0.5  # IoU


class TextMasker:
    """Masks of the objects that text names.

    Args:
        options: Models, prompts and thresholds.
        device: Where the models run.

    Raises:
        UserError: A model cannot be loaded or is of the wrong kind, or the prompts cannot be read.
    """

    origin = "--source text"

    def __init__(self, options: TextOptions, device: torch.device | str = "cpu"):
        self.options = options
        self.overrides = read_overrides(options.prompts)
        self.detector = Detector(options.detector, options.detector_revision, device, options.dtype)
        self.segmenter = (
            None
            if self.detector.outlines
            else Segmenter(options.segmenter, options.segmenter_revision, device, options.dtype)
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What the masks depend on, for masks.json; revisions are the commits that were loaded."""
        return {
            "source": "text",
            **asdict(self.options),
            "prompts": self.overrides,
            "detector_revision": self.detector.revision,
            "segmenter": self.segmenter and self.options.segmenter,
            "segmenter_revision": self.segmenter and self.segmenter.revision,
        }

    def check(self, image_ids: Sequence[str]) -> None:
        """Find the prompts of all images before the work begins.

        Raises:
            UserError: A class has no name, or one that the detector cannot read.
        """
        self.prompts = Prompts(image_ids, self.overrides)
        rivals = {self._rival(image_id) for image_id in image_ids}
        if self.options.null_prompt == OTHER_CLASS and rivals == {None}:
            logger.warning(
                "All classes have the same prompt, so there is no other one to look for in its place: give one with "
                "--null_prompt."
            )
        for concept in {*chain(*self.prompts.by_class.values()), *rivals} - {None}:
            self.detector.check(concept)

    def prepare(self, image: Image.Image) -> WorkingImage:
        """Shrink an RGB image whose longer side is more than the models see."""
        pixels = image.copy()
        pixels.thumbnail((LONGEST, LONGEST), Image.Resampling.BICUBIC, reducing_gap=3.0)
        return WorkingImage(pixels, image.size)

    def __call__(self, images: list[WorkingImage], image_ids: list[str]) -> list[ObjectMask]:
        """The masks of some prepared images, after `check`."""
        prompts = [self.prompts.of(image_id) for image_id in image_ids]
        found = self._find(
            images,
            [(index, text) for index, prompt in enumerate(prompts) for text in prompt],
            self.options.box_threshold,
        )
        best = {}
        for (index, text), one in found.items():
            if prompts[index][text] > 0 and len(one.scores):
                best[index] = max(best.get(index, one), one, key=lambda one: one.scores[0])
        outlines = self._outline(images, {query: one for query, one in found.items() if query[0] in best})
        null_scores = self._null_scores(images, image_ids, best)
        masks = []
        for index, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
            shape = image.pixels.size[::-1]
            votes = sum((prompt[text] * mask for (at, text), mask in outlines.items() if at == index), np.zeros(shape))
            mask, names = (
                votes.round(6) >= OBJECT_WEIGHT,
                " or ".join(repr(text) for text in prompt if prompt[text] > 0),
            )
            scores = problem = None
            if index not in best:
                unit = "pixel" if self.detector.outlines else "box"
                problem = f"no {unit} for {names} above --box_threshold {self.options.box_threshold:g}"
            elif not mask.any():
                problem = f"nothing is left of {names} where the concepts' weights are summed"
            else:
                scores = MaskScores(
                    area=float(mask.mean()),
                    components=ndimage.label(mask)[1],
                    score=float(best[index].scores[0]),
                    null_score=null_scores.get(index),
                )
            masks.append(ObjectMask(mask, image.size, scores, problem))
        return masks

    def _find(
        self, images: list[WorkingImage], queries: list[tuple[int, str]], threshold: float
    ) -> dict[tuple[int, str], Found]:
        """What is found for each query, the index of an image and a text; as many at once as there are images."""
        found = []
        for start in range(0, len(queries), len(images) or 1):
            part = queries[start : start + len(images)]
            pixels = [images[index].pixels for index, _ in part]
            found += self.detector(pixels, [text for _, text in part], threshold)
        return dict(zip(queries, found, strict=True))

    def _outline(
        self, images: list[WorkingImage], found: dict[tuple[int, str], Found]
    ) -> dict[tuple[int, str], np.ndarray]:
        """The mask of each query: that of all its boxes together, (height, width) bool."""
        if self.segmenter is None:
            return {query: one.mask for query, one in found.items()}
        queries = defaultdict(list)
        for query, one in found.items():
            if len(one.boxes):
                queries[query[0]].append(query)
        boxes = [np.concatenate([found[query].boxes for query in those]) for those in queries.values()]
        outlined = self.segmenter([images[index].pixels for index in queries], boxes) if queries else []
        masks = {}
        for those, each in zip(queries.values(), outlined, strict=True):
            ends = np.cumsum([len(found[query].boxes) for query in those])
            masks |= {query: one.any(0) for query, one in zip(those, np.split(each, ends[:-1]), strict=True)}
        return masks

    def _null_scores(
        self, images: list[WorkingImage], image_ids: list[str], best: dict[int, Found]
    ) -> dict[int, float]:
        """How certain the detector is of the null prompt in the box of each image's object; 0 if it is not there."""
        queries = [(index, rival) for index in best if (rival := self._rival(image_ids[index]))]
        # Below half the threshold it is no rival.
        found = self._find(images, queries, self.options.box_threshold / 2)
        return {
            index: float(one.scores[_iou(best[index].boxes[0], one.boxes) >= SAME_BOX].max(initial=0))
            for (index, _), one in found.items()
        }

    def _rival(self, image_id: str) -> str | None:
        """The null prompt of an image."""
        given = plain(self.options.null_prompt)
        rival = self.prompts.another(image_id) if given == OTHER_CLASS else given
        return rival if rival and rival not in self.prompts.of(image_id) else None


def _iou(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """IoU of one box with each of some others, (n,)."""
    overlap = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = overlap.clip(0).prod(1)
    return shared / ((box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1) - shared).clip(1e-9)
