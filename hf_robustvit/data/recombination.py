"""Objects of training images moved, turned and scaled onto the backgrounds of others."""

import math

import PIL.Image
import torch

from hf_robustvit.data.background import SwapBackgrounds
from hf_robustvit.data.composites import cropped_object, object_fault, paste
from hf_robustvit.data.pairs import Pair


MOVED_SHARE = 0.5  # of the images that are shown on another background
AREAS = (0.05, 0.8)  # of the square around the object, as SI-Score counts it; the logarithm is uniform
TURNED_SHARE = 0.5  # of the objects that are moved; the others stay upright
MOST_OUTSIDE = 0.1  # of the side of that square


class RecombineObjects(SwapBackgrounds):
    """Shows objects on other backgrounds, as `SwapBackgrounds` does, and half of these objects in other places too.

    An image is shown as it is with probability 1/4, its object where it was on another training image's background
    with 3/8, and anywhere there, of any size and at any angle, with 3/8. An object that `object_fault` finds unfit for
    being moved keeps its place. The mask moves with its object. Arguments and errors as `SwapBackgrounds`.
    """

    flag = "recombine_objects"
    share = 0.75  # docs/photos.md: more gains less, and so does half

    def _put_on(self, pair: Pair, background: PIL.Image.Image) -> Pair:
        if torch.rand(()) >= MOVED_SHARE or object_fault(pair.mask):
            return super()._put_on(pair, background)
        size = self.transform.resize_size if self.transform.resizes else pair.image.size[::-1]
        low, high = map(math.log, AREAS)
        area = math.exp(low + (high - low) * float(torch.rand(())))
        angle = 360 * float(torch.rand(())) if torch.rand(()) < TURNED_SHARE else 0.0
        margin = (0.5 - MOST_OUTSIDE) * area**0.5
        x, y = (margin + (1 - 2 * margin) * torch.rand(2)).tolist()
        layer = paste(cropped_object(pair), size, area, angle, x, y)
        image, mask = background.resize(layer.size, PIL.Image.Resampling.BILINEAR), layer.getchannel("A")
        image.paste(layer, mask=mask)
        return pair._replace(image=image, mask=mask, ignored=None)
