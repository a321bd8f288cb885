"""Reading one image with its foreground mask, and checking all of a training set's pairs before training."""

import io
import logging
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import datasets
import numpy as np
import PIL.Image
import PIL.ImageOps

from hf_robustvit.errors import UserError


logger = logging.getLogger(__name__)

# What can be wrong with a pair, as one and as several are told.
PROBLEMS = {
    "image": ("image cannot be read", "images cannot be read"),
    "mask": ("mask cannot be read", "masks cannot be read"),
    "size": ("mask has another size than its image", "masks have another size than their image"),
    "empty": ("mask has no foreground", "masks have no foreground"),
}


class PairError(UserError):
    """An image or its mask cannot be used: the message names the file, `problem` is a key of `PROBLEMS`."""

    def __init__(self, message: str, problem: str = ""):
        super().__init__(message)
        self.problem = problem


def read_pair(row: Mapping[str, Any]) -> tuple[PIL.Image.Image, PIL.Image.Image | None]:
    """Open the image and the mask of a row as they are displayed, that is turned as their EXIF orientation says.

    Args:
        row: `image`, `image_id` and, where the set has masks, `mask`; pictures are PIL images or the
            {"path", "bytes"} of an undecoded `datasets.Image`.

    Returns:
        The image, mode RGB, and its mask, mode L (see `foreground_mask`), of the same size; None without a mask.

    Raises:
        PairError: One of them cannot be read, their sizes differ, or the mask is empty.
    """
    image_name = _name(row["image"], row["image_id"])
    image = _read(row["image"], image_name, "image", _to_rgb)
    if "mask" not in row:
        return image, None
    mask_name = _name(row["mask"], f"the mask of {row['image_id']}")
    mask = _read(row["mask"], mask_name, "mask", foreground_mask)
    if mask.size != image.size:
        sizes = f"{mask.width}x{mask.height} pixels, its image {image_name} {image.width}x{image.height} as displayed"
        raise PairError(f"{mask_name} is {sizes}", "size")
    if mask.getbbox() is None:
        raise PairError(f"{mask_name} marks no pixel as foreground", "empty")
    return image, mask


def read_ignored(row: Mapping[str, Any]) -> PIL.Image.Image | None:
    """Open what marks, in mode L and as displayed, the pixels that belong neither to object nor to background.

    Args:
        row: As for `read_pair`, and `ignore` where the set has such marks.

    Raises:
        PairError: It cannot be read.
    """
    if "ignore" not in row:
        return None
    return _read(row["ignore"], _name(row["ignore"], f"the mask of {row['image_id']}"), "mask", foreground_mask)


def foreground_mask(mask: PIL.Image.Image) -> PIL.Image.Image:
    """Bring a mask of any mode to mode L, 0 background to 255 foreground.

    Grey masks are soft: a value is a share of 255, or of 1 where the mask has no value above 1, or of 65535 where it
    has one above 255. Coloured masks of up to 256 colours are label maps: all but black is foreground. What is
    transparent is background.

    Args:
        mask: A PIL image.

    Returns:
        An image of the same size, mode L.

    Raises:
        ValueError: The mask has more than 256 colours, as a photograph has, or values below 0 or above 65535.
    """
    if mask.has_transparency_data:
        mask = PIL.Image.alpha_composite(PIL.Image.new("RGBA", mask.size, "black"), mask.convert("RGBA"))
    if _is_grey(mask):
        return _grey_to_bytes(mask)
    colours = mask.convert("RGB")
    red, green, blue = np.moveaxis(np.asarray(colours), -1, 0)
    if (red == green).all() and (green == blue).all():
        return _grey_to_bytes(PIL.Image.fromarray(red))
    if colours.getcolors(256) is None:
        raise ValueError("it has more than 256 colours, so it is no mask")
    return PIL.Image.fromarray((red | green | blue > 0).astype(np.uint8) * 255)


def open_picture(file: str | io.BytesIO) -> PIL.Image.Image:
    """Open a picture without decoding it, unless its header claims more pixels than any photograph has.

    Pillow warns of more than `PIL.Image.MAX_IMAGE_PIXELS` (89 million, 268 MB decoded) and refuses twice as many;
    here both are refused.

    Args:
        file: A path, or the content of a file.

    Raises:
        DecompressionBombWarning, DecompressionBombError: It is too large.
        OSError: It is missing, or no picture.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
        return PIL.Image.open(file)


def undecoded(dataset: datasets.Dataset) -> datasets.Dataset:
    """The data set with pictures as {"path", "bytes"}, so that `read_pair` opens them and can name a broken one."""
    for column in ("image", "mask", "ignore"):
        if column in dataset.column_names:
            dataset = dataset.cast_column(column, datasets.Image(decode=False))
    return dataset


def check_pairs(dataset: datasets.Dataset, skip: bool = False, num_proc: int | None = None) -> datasets.Dataset:
    """Open every image and mask once, so that a broken file stops training before it begins.

    Args:
        dataset: The chosen images, rows as `read_pair` takes them.
        skip: Leave broken pairs out and log each, instead of refusing the set.
        num_proc: Processes that open them.

    Returns:
        The data set, without its broken pairs.

    Raises:
        UserError: Pairs are broken and `skip` is False, or all of them are; names the first of each kind and how many.
    """
    pictures = dataset.with_format(None).select_columns(
        [column for column in ("image", "mask", "image_id") if column in dataset.column_names]
    )
    found = undecoded(pictures).map(
        _find_problem,
        remove_columns=pictures.column_names,
        features=datasets.Features({"problem": datasets.Value("string"), "message": datasets.Value("string")}),
        num_proc=num_proc,
        # Files change without a change of the data set's fingerprint: no result may be kept for a later check.
        keep_in_memory=True,
        desc="Checking images and masks",
    )
    usable, messages = [], defaultdict(list)
    for row, (problem, message) in enumerate(zip(found["problem"], found["message"], strict=True)):
        if problem is None:
            usable.append(row)
        else:
            messages[problem].append(message)
            if skip:
                logger.warning("Left out: %s.", message)
    if messages and not (skip and usable):
        raise UserError(
            _summary(messages, len(dataset), "training pairs" if "mask" in dataset.column_names else "images")
        )
    return dataset.select(usable) if messages else dataset


def _summary(messages: Mapping[str, list[str]], total: int, what: str) -> str:
    kinds = [
        f"{len(messages[problem])} {phrases[len(messages[problem]) > 1]} (first: {messages[problem][0]})"
        for problem, phrases in PROBLEMS.items()
        if problem in messages
    ]
    broken = sum(map(len, messages.values()))
    advice = "Repair or remove them, or pass --skip_unreadable to leave them out."
    return f"{broken} of {total} {what} cannot be used: {', '.join(kinds)}. {advice}"


def _find_problem(row: dict) -> dict[str, str | None]:
    try:
        read_pair(row)
    except PairError as error:
        return {"problem": error.problem, "message": str(error)}
    return {"problem": None, "message": None}


def _name(picture: Any, image_id: str) -> str:
    # The path of an embedded picture is only what its file was once called.
    return picture["path"] if isinstance(picture, dict) and picture["bytes"] is None else image_id


def _read(picture: Any, name: str, problem: str, convert: Callable) -> PIL.Image.Image:
    try:
        if isinstance(picture, dict):
            picture = open_picture(picture["path"] if picture["bytes"] is None else io.BytesIO(picture["bytes"]))
        return convert(PIL.ImageOps.exif_transpose(picture))
    except PIL.UnidentifiedImageError as error:
        raise PairError(f"{name} is not a picture", problem) from error
    # Decoders of broken files raise whatever they stumble on: OSError, SyntaxError, DecompressionBombError and others.
    except Exception as error:
        raise PairError(f"{name}: {getattr(error, 'strerror', None) or error}", problem) from error


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    # PIL cuts values above 255 off when it converts 16-bit grey.
    return (_grey_to_bytes(image) if _is_grey(image) else image).convert("RGB")


def _is_grey(image: PIL.Image.Image) -> bool:
    return image.mode in ("1", "L", "F") or image.mode.startswith("I")


def _grey_to_bytes(image: PIL.Image.Image) -> PIL.Image.Image:
    """Mode L with the values scaled from the smallest of the ranges 0..1, 0..255 and 0..65535 that holds them."""
    values = np.asarray(image).astype(np.float32)
    if not 0 <= values.min() <= values.max() <= 65535:
        raise ValueError(f"it has values from {values.min():g} to {values.max():g}, expected 0 to 255")
    top = next(top for top in (1, 255, 65535) if values.max() <= top)
    return PIL.Image.fromarray((values * (255 / top)).round().astype(np.uint8))
