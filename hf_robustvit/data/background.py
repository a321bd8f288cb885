"""Other surroundings for an object: its background greyed, or taken from another image."""

from collections.abc import Mapping
from typing import Any

import datasets
import numpy as np
import PIL.Image
import PIL.ImageFilter
import torch
from scipy.ndimage import distance_transform_edt

from hf_robustvit.data.pairs import Pair, undecoded
from hf_robustvit.data.transforms import PairTransform, transform_rows
from hf_robustvit.errors import UserError


GREY = (128, 128, 128)


def grey_background(image: PIL.Image.Image, mask: PIL.Image.Image) -> PIL.Image.Image:
    """The object on even grey.

    Args:
        image: Mode RGB.
        mask: Mode L, of the same size; where it is soft, image and grey are mixed.
    """
    return PIL.Image.composite(image, PIL.Image.new("RGB", image.size, GREY), mask)


def fill_object(image: PIL.Image.Image, mask: PIL.Image.Image) -> PIL.Image.Image:
    """The background without its object, whose pixels take the nearest background colour, a little blurred.

    Args:
        image: Mode RGB.
        mask: Mode L, of the same size; all that is not black is the object. An image without background becomes grey.
    """
    is_object = np.asarray(mask) > 0  # (height, width)
    if is_object.all():
        return PIL.Image.new("RGB", image.size, GREY)
    rows, columns = distance_transform_edt(is_object, return_distances=False, return_indices=True)
    filled = PIL.Image.fromarray(np.asarray(image)[rows, columns])
    blurred = filled.filter(PIL.ImageFilter.GaussianBlur(max(image.size) / 64))
    return PIL.Image.composite(blurred, image, PIL.Image.fromarray(is_object))


def swap_background(image: PIL.Image.Image, mask: PIL.Image.Image, background: PIL.Image.Image) -> PIL.Image.Image:
    """The object on another background.

    Args:
        image: Mode RGB.
        mask: Mode L, of the same size; where it is soft, image and background are mixed.
        background: Mode RGB, stretched to the image's size; see `fill_object` for one without its own object.
    """
    return PIL.Image.composite(image, background.resize(image.size, PIL.Image.Resampling.BILINEAR), mask)


class SwapBackgrounds:
    """Shows each image, with probability 1/2, on the background of another training image, before a transform.

    Called as `PairTransform` is, with the same columns in and out. The mask stays the object's.

    Args:
        transform: What is done to the image and its mask afterwards.
        pairs: The training images with their masks, whose backgrounds are used.

    Raises:
        UserError: There is only one image.
    """

    flag = "swap_backgrounds"
    share = 0.5  # of the images that are shown on another background

    def __init__(self, transform: PairTransform, pairs: datasets.Dataset):
        if len(pairs) < 2:
            raise UserError(f"--{self.flag}: there is only one training image; choose more images.")
        self.transform = transform
        self.pairs = undecoded(pairs.with_format(None)).select_columns(["image", "mask", "image_id"])
        self.rows = {image_id: row for row, image_id in enumerate(pairs["image_id"])}

    def __call__(self, batch: dict[str, list]) -> dict[str, list]:
        return transform_rows(batch, lambda row: self.transform.apply(row, self._show(row)))

    def _show(self, row: Mapping[str, Any]) -> Pair:
        pair = self.transform.read(row)
        # torch's global generator, which `AugmentedPairs` seeds for each row.
        if torch.rand(()) >= self.share:
            return pair
        further = 1 + int(torch.randint(len(self.pairs) - 1, ()))
        other = self.transform.read(self.pairs[(self.rows[row["image_id"]] + further) % len(self.pairs)])
        return self._put_on(pair, fill_object(other.image, other.mask))

    def _put_on(self, pair: Pair, background: PIL.Image.Image) -> Pair:
        """The object of a pair on another image's background."""
        return pair._replace(image=swap_background(pair.image, pair.mask, background))
