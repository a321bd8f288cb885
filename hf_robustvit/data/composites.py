"""Composites: an object of a photograph on a background, moved, turned or scaled; SI-Score's protocol for any photos.

A row names its pictures and says where the object goes; the picture is made when the row is read.
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageFilter
import PIL.ImageOps
from scipy import ndimage

from hf_robustvit.data.background import fill_object
from hf_robustvit.data.masks import NO_FLAGS, MaskReading
from hf_robustvit.data.pairs import Pair, read_row
from hf_robustvit.data.regions import largest_component


VERSION = "1.0.0"
"""Part of the choice of backgrounds and of the cache's name, so it must change whenever any pixel changes."""

# The rule for objects.
JUDGED_SIDE = 512  # pixels; larger masks are reduced first, to about what models see
SHARES = (0.02, 0.75)  # of the image: smaller objects are lost when they are enlarged, larger ones are mostly cut off
LEAST_PIECE = 0.95  # of the object in its largest piece
MOST_CUT = 0.1  # of the outline on the border of the image
MOST_BLUR = 0.08  # mean width of a soft mask's grey edge over the root of the object's area
REASONS = {
    "no_mask": "without a mask",
    "unreadable": "with an image or mask that cannot be used",
    "too_small": f"under {SHARES[0]:.0%} of the image",
    "too_large": f"over {SHARES[1]:.0%} of the image",
    "in_pieces": f"in pieces, the largest under {LEAST_PIECE:.0%}",
    "cut_off": f"cut off, over {MOST_CUT:.0%} of the outline on the image's border",
    "blurred": "with a blurred outline",
}
"""Why objects are left out, in the order in which it is looked for, as messages say it."""

# The grids. An object's area is that of SI-Score: the share of the image that its bounding square covers, upright.
AREAS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)
ANGLES = tuple(float(angle) for angle in range(0, 360, 30))
PLACES = tuple((x, y) for y in (0.25, 0.5, 0.75) for x in (0.25, 0.5, 0.75))
LOCATION_AREA = 0.2  # SI-Score's; the object stays inside the image in every place
ROTATION_AREA = 0.3  # the object stays inside the image at every angle
NUM_BACKGROUNDS = 4  # of an object whose background is the factor

CENTRED = {"area": ROTATION_AREA, "rotation": 0.0, "x": 0.5, "y": 0.5}
GRIDS = {
    "location": {f"{x},{y}": CENTRED | {"area": LOCATION_AREA, "x": x, "y": y} for x, y in PLACES},
    "rotation": {angle: CENTRED | {"rotation": angle} for angle in ANGLES},
    "size": {area: CENTRED | {"area": area} for area in AREAS},
}
"""Factor -> its values -> where the object goes: `area`, `rotation` (degrees, counter-clockwise), and its centre, `x`
and `y`, as shares of the image's width and height."""
FACTORS = (*GRIDS, "background")


def object_fault(mask: PIL.Image.Image) -> str | None:
    """Why an object is not taken, or None if it is.

    - `too_small`, `too_large`: its share of the image is under 2 % or over 75 %;
    - `in_pieces`: its largest piece has under 95 % of its pixels;
    - `cut_off`: over 10 % of its outline lies on the border of the image;
    - `blurred`: the mask is soft, and its edge (what is between 10 and 90 %) is on average wider than 8 % of the
      object (of the root of its area). A mask of black and white alone is sharp.

    Args:
        mask: Mode L, 0 background to 255 object; what is above half is the object.

    Returns:
        A key of `REASONS`.
    """
    values = np.asarray(mask.reduce(-(-max(mask.size) // JUDGED_SIDE)))
    whole = values > 127
    area = np.count_nonzero(whole)
    if area < SHARES[0] * whole.size:
        return "too_small"
    if area > SHARES[1] * whole.size:
        return "too_large"
    piece = whole & largest_piece(values)
    if np.count_nonzero(piece) < LEAST_PIECE * area:
        return "in_pieces"
    outline = piece & ~ndimage.binary_erosion(piece)  # what is beyond the border is background
    length = np.count_nonzero(outline)
    if length - np.count_nonzero(outline[1:-1, 1:-1]) > MOST_CUT * length:
        return "cut_off"
    edge = np.count_nonzero((values > 25) & (values < 230))
    return "blurred" if edge > MOST_BLUR * area**0.5 * length else None


def largest_piece(values: np.ndarray) -> np.ndarray:
    """The piece of a mask (height, width), 0 to 255, with most of the object, and with its soft edge. Bool."""
    return largest_component(values > 0, counted=values > 127)


def choose_backgrounds(image_id: str, names: Sequence[str], count: int) -> list[int]:
    """Positions of an object's backgrounds, drawn by hashes of the object's and the backgrounds' names alone.

    Another background more or less changes the choice of those objects only that it falls to (rendezvous hashing).

    Args:
        image_id: The object's photograph.
        names: The backgrounds.
        count: How many; all where there are fewer.
    """
    mixed = _hashes(tuple(names)) ^ _hash(image_id)
    for shift in (30, 27):  # the finaliser of splitmix64: every bit of the sum moves all of the result's
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(0xBF58476D1CE4E5B9)
    return np.argsort(mixed, kind="stable")[:count].tolist()


@functools.lru_cache(maxsize=2)
def _hashes(names: tuple[str, ...]) -> np.ndarray:
    return np.array([_hash(name) for name in names])


def _hash(name: str) -> np.uint64:
    digest = hashlib.blake2b(f"{VERSION}/{name}".encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "big"))


def cut_out(pair: Pair) -> PIL.Image.Image:
    """A photograph with all transparent but its object's largest piece, mode RGBA."""
    values = np.asarray(pair.mask)
    photo = pair.image.copy()
    photo.putalpha(PIL.Image.fromarray(np.where(largest_piece(values), values, 0).astype(np.uint8)))
    return photo


def cropped_object(pair: Pair) -> PIL.Image.Image:
    """`cut_out`, cropped to the object."""
    photo = cut_out(pair)
    return photo.crop(photo.getchannel("A").getbbox())


def paste(
    cutout: PIL.Image.Image, size: tuple[int, int], area: float, rotation: float, x: float, y: float
) -> PIL.Image.Image:
    """An object, scaled, turned and moved to its place, on a transparent layer; edges are antialiased.

    Args:
        cutout: Mode RGBA, cropped to the object.
        size: Height and width of the layer.
        area, rotation, x, y: As in `GRIDS`; what lies outside the layer is cut off.
    """
    height, width = size
    scale = (area * width * height) ** 0.5 / max(cutout.size)
    sides = [max(1, round(side * scale)) for side in cutout.size]
    cutout = cutout.resize(sides, PIL.Image.Resampling.BILINEAR)
    if rotation:
        # A transparent frame, so that the sides that touch the crop get soft edges as the others do.
        cutout = PIL.ImageOps.expand(cutout, 2).rotate(rotation, PIL.Image.Resampling.BICUBIC, expand=True)
    layer = PIL.Image.new("RGBA", (width, height))
    layer.paste(cutout, (round(x * width - cutout.width / 2), round(y * height - cutout.height / 2)))
    return layer


class CompositeRenderer:
    """From a row of composites and a model's input size to its pictures; the same row always gives the same bytes.

    Where the background is the factor the object stays exactly where and as large as it is in its photograph: that is
    stretched to the input size, as masks are everywhere. In the other factors the object keeps its proportions, and
    backgrounds always do: they are cropped at the centre.

    Args:
        reading: How masks are read.
    """

    def __init__(self, reading: MaskReading = NO_FLAGS):
        self.reading = reading

    def __call__(self, row: Mapping[str, Any], size: tuple[int, int]) -> Pair:
        """Make the pictures of a row.

        Args:
            row: As the builder `Composites` gives it; `image` and `mask` as in `read_row`.
            size: Height and width.

        Returns:
            The image and the object's alpha channel as its mask, of that size.

        Raises:
            PairError: A file cannot be read.
        """
        files = row["image"]["path"], row["mask"]["path"]
        if row["factor"] == "background":
            layer = self._in_its_photo(*files, size)
        else:
            layer = paste(self._cutout(*files, size), size, *(row[name] for name in CENTRED))
        mask = layer.getchannel("A")
        image = self._background(row["background_image"], row["background_mask"], size).copy()
        image.paste(layer, mask=mask)
        return Pair(image, mask)

    def _read(self, image: str, mask: str | None) -> Pair:
        files = {"image": image} | ({"mask": mask} if mask else {})
        return read_row(
            {name: {"path": path, "bytes": None} for name, path in files.items()} | {"image_id": image}, self.reading
        )

    # Rows of one object follow each other.
    @functools.lru_cache(maxsize=1)  # noqa: B019 (one renderer a data set)
    def _in_its_photo(self, image: str, mask: str, size: tuple[int, int]) -> PIL.Image.Image:
        return cut_out(self._read(image, mask)).resize(size[::-1], PIL.Image.Resampling.BILINEAR)

    @functools.lru_cache(maxsize=1)  # noqa: B019
    def _cutout(self, image: str, mask: str, size: tuple[int, int]) -> PIL.Image.Image:
        cutout = cropped_object(self._read(image, mask))
        # Twice the input's size is as good as any larger one.
        return cutout.reduce(max(1, max(cutout.size) // (2 * max(size))))

    @functools.lru_cache(maxsize=128)  # noqa: B019
    def _background(self, image: str, mask: str | None, size: tuple[int, int]) -> PIL.Image.Image:
        pair = self._read(image, mask)
        fitted = [
            PIL.ImageOps.fit(picture, size[::-1], PIL.Image.Resampling.BILINEAR) for picture in pair[:2] if picture
        ]
        # A little more than the object goes: masks are tight.
        return fill_object(fitted[0], fitted[1].filter(PIL.ImageFilter.MaxFilter(5))) if mask else fitted[0]


def object_box(mask: PIL.Image.Image) -> dict[str, float]:
    """Where an object is in its photograph, stretched to a square: `area`, `rotation`, `x` and `y` as in `GRIDS`."""
    rows, columns = (np.flatnonzero(largest_piece(np.asarray(mask)).any(axis=axis)) for axis in (1, 0))
    (top, bottom), (left, right) = (
        (places[0] / length, (places[-1] + 1) / length)
        for places, length in ((rows, mask.height), (columns, mask.width))
    )
    side = max(bottom - top, right - left)
    return {"area": side**2, "rotation": 0.0, "x": (left + right) / 2, "y": (top + bottom) / 2}
