"""From an image to a mask: key features, normalised cut, bilateral solver, scores."""

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from hf_robustvit.errors import UserError
from hf_robustvit.flags.masks import TokenCutOptions
from hf_robustvit.masks.backbone import load_backbone
from hf_robustvit.masks.bilateral import refine_mask
from hf_robustvit.masks.graph_cut import NormalizedCut, normalized_cut
from hf_robustvit.masks.quality import MaskScores


MIN_PATCHES = 3  # along the longer side
FLAT = 4  # grey levels; an image that varies by less in every channel has one colour


@dataclass(frozen=True)
class WorkingImage:
    """What a masker keeps of an image, so that a batch of large ones fits in memory.

    Attributes:
        pixels: RGB, of the size that its network works on; TokenCut's is a whole number of patches high and wide.
        size: (width, height) of the image itself.
        is_flat: Whether the image has one colour, where the masker looks for that.
    """

    pixels: Image.Image
    size: tuple[int, int]
    is_flat: bool = False


@dataclass(frozen=True)
class ObjectMask:
    """A mask before the quality gate.

    Attributes:
        foreground: (H, W) bool, at the size it was made at.
        size: (width, height) of its image.
        scores: What the gate judges; None where there is nothing to judge.
        problem: Why there is no usable mask, for example because its image has one colour.
    """

    foreground: np.ndarray
    size: tuple[int, int]
    scores: MaskScores | None = None
    problem: str | None = None

    @property
    def image(self) -> Image.Image:
        """The mask at the size of its image, mode L, 0 or 255."""
        mask = Image.fromarray(self.foreground.astype(np.uint8) * 255)
        return mask.resize(self.size, Image.Resampling.BILINEAR).point(lambda value: 255 * (value > 127))


class TokenCut:
    """Masks of the main object, without annotation (paper section 4).

    Args:
        options: Backbone and settings.
        device: Where the backbone runs.

    Raises:
        UserError: If the backbone cannot be loaded, or the images would be too small for its patches.
    """

    origin = "TokenCut"

    def __init__(self, options: TokenCutOptions, device: torch.device | str = "cpu"):
        self.options = options
        self.backbone = load_backbone(options.backbone, options.backbone_revision, device)
        smallest = MIN_PATCHES * self.backbone.patch_size
        if options.image_size < smallest:
            raise UserError(
                f"--image_size: {options.image_size} pixels hold fewer than {MIN_PATCHES} patches of "
                f"{options.backbone!r}; give {smallest} or more."
            )

    @property
    def settings(self) -> dict[str, Any]:
        """What the masks depend on, for masks.json; the revision is the commit that was loaded."""
        return {"source": "tokencut", **asdict(self.options), "backbone_revision": self.backbone.revision}

    def prepare(self, image: Image.Image) -> WorkingImage:
        """Scale an RGB image of any size so that its longer side has `image_size` pixels, in whole patches."""
        scale = self.options.image_size / max(image.size) / self.backbone.patch_size
        width, height = (max(1, round(side * scale)) * self.backbone.patch_size for side in image.size)
        pixels = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
        return WorkingImage(pixels, image.size, all(high - low < FLAT for low, high in image.getextrema()))

    def __call__(self, images: list[WorkingImage], image_ids: list[str]) -> list[ObjectMask]:
        """The masks of some prepared images; those of one working size go through the backbone together."""
        nothing = np.zeros((1, 1), dtype=bool)
        masks = [
            ObjectMask(nothing, image.size, problem="the image has one colour") if image.is_flat else None
            for image in images
        ]
        by_size = defaultdict(list)
        for index, image in enumerate(images):
            if not image.is_flat:
                by_size[image.pixels.size].append(index)
        for indices in by_size.values():
            cuts = self._cut([images[index].pixels for index in indices])
            for index, cut in zip(indices, cuts, strict=True):
                masks[index] = self._mask(images[index], cut)
        return masks

    def _cut(self, images: list[Image.Image]) -> list[NormalizedCut]:
        width, height = images[0].size
        grid = (height // self.backbone.patch_size, width // self.backbone.patch_size)
        features = self.backbone.key_features(images).cpu().numpy()
        return [normalized_cut(one, grid, self.options.tau) for one in features]

    def _mask(self, image: WorkingImage, cut: NormalizedCut) -> ObjectMask:
        patch, options = self.backbone.patch_size, self.options
        coarse = cut.foreground.repeat(patch, axis=0).repeat(patch, axis=1)
        sigmas = options.sigma_spatial, options.sigma_luma, options.sigma_chroma
        mask, agreement = refine_mask(np.asarray(image.pixels), coarse, *sigmas)
        scores = MaskScores(float(mask.mean()), cut.num_components, agreement, cut.eigen_gap)
        return ObjectMask(mask, image.size, scores)
