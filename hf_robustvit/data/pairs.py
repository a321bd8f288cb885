"""Reading one image with its foreground mask, and checking all of a training set's pairs before training."""

import io
import logging
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import datasets
import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps

from hf_robustvit.data.masks import (
    NO_FLAGS,
    MaskReading,
    UnclearMaskError,
    fills_border,
    grey_values,
    implausible_share,
    read_mask,
    to_bytes,
)
from hf_robustvit.errors import UserError


logger = logging.getLogger(__name__)

UPRIGHT = 1  # the EXIF orientation of an image that is displayed the way it is stored
FEW_MASKS = 3  # too few to conclude that a whole set is inverted

# What can be wrong with a pair, in the singular and the plural.
PROBLEMS = {
    "image": ("image cannot be read", "images cannot be read"),
    "mask": ("mask cannot be read", "masks cannot be read"),
    "unclear": ("mask does not show what the object is", "masks do not show what the object is"),
    "orientation": ("mask fits its image both ways round", "masks fit their images both ways round"),
    "size": ("mask has another size than its image", "masks have another size than their image"),
    "empty": ("mask has no foreground", "masks have no foreground"),
    "implausible": ("mask is not a plausible outline of an object", "masks are not plausible outlines of objects"),
}


class PairError(UserError):
    """An image or its mask cannot be used.

    Args:
        name: Of the file.
        fault: What is wrong with it, for the message.
        problem: A key of `PROBLEMS`.
    """

    def __init__(self, name: str, fault: str, problem: str):
        super().__init__(name + fault)
        self.fault, self.problem = fault, problem


class Pair(NamedTuple):
    """What is in a row's files, all of one size.

    Attributes:
        image: Mode RGB.
        mask: Mode L, 0 background to 255 object; None where the row has none.
        ignored: Mode L, 255 where a pixel is neither object nor background; None where there is no such pixel.
        is_turned: Whether the mask was as the image is stored, and is turned with it.
    """

    image: PIL.Image.Image
    mask: PIL.Image.Image | None = None
    ignored: PIL.Image.Image | None = None
    is_turned: bool = False


def read_pair(row: Mapping[str, Any]) -> tuple[PIL.Image.Image, PIL.Image.Image | None]:
    """The image and the mask of a row, its mask read without flags; see `read_row`."""
    return read_row(row)[:2]


def read_row(row: Mapping[str, Any], reading: MaskReading | None = NO_FLAGS, turned: bool = True) -> Pair:
    """Open the image and the mask of a row as they are displayed, that is, turned as their EXIF orientation says.

    A mask without an orientation of its own that fits its image only as that is stored is turned with it.

    Args:
        row: `image`, `image_id` and, where the set has them, `mask` and `ignore` (non-black pixels count neither as
            object nor as background; None where there are none); pictures are PIL images or the {"path", "bytes"} of
            an undecoded `datasets.Image`.
        reading: How the mask is read; None for a mask that this package has made (see `read_mask`), which fits the
            image as displayed.
        turned: False leaves everything as it is stored, as the benchmarks' protocols do.

    Raises:
        PairError: A picture cannot be read, it is not clear what the object is or which way the mask is turned, sizes
            differ, or the mask is empty.
    """
    image_name = _name(row["image"], row["image_id"])
    image, orientation = _read(row["image"], image_name, "image", to_rgb, turned)
    displayed = _turn(image, orientation)
    if "mask" not in row:
        return Pair(displayed)
    mask_name = _name(row["mask"], f"the mask of {row['image_id']}")
    (mask, ignored), own = _read(row["mask"], mask_name, "mask", lambda mask: read_mask(mask, reading), turned)
    is_turned = (
        reading is not None
        and own == UPRIGHT != orientation
        and _is_as_stored(mask_name, mask.size, image.size, displayed.size, reading)
    )
    if is_turned:
        own = orientation
    mask, ignored = _turn(mask, own), ignored and _turn(ignored, own)
    if mask.size != displayed.size:
        sizes = f" is {mask.width}x{mask.height} pixels, its image {image_name} {displayed.width}x{displayed.height}"
        raise PairError(mask_name, f"{sizes} as displayed" if turned else sizes, "size")
    if reading is not None and mask.getbbox() is None:
        raise PairError(mask_name, " marks no pixel as foreground", "empty")
    if row.get("ignore"):
        (ignored, _), own = _read(row["ignore"], mask_name, "mask", lambda mask: read_mask(mask, None), turned)
        ignored = _turn(ignored, own)
    return Pair(displayed, mask, ignored, is_turned)


def _is_as_stored(
    name: str, size: tuple[int, int], stored: tuple[int, int], displayed: tuple[int, int], reading: MaskReading
) -> bool:
    """Whether a mask fits its image as stored, where that is displayed in another orientation."""
    if reading.mask_orientation is None and size == stored == displayed:
        raise PairError(
            name,
            " fits its image both as stored and as displayed, which is turned by its EXIF orientation: pass "
            "--mask_orientation displayed or stored",
            "orientation",
        )
    return reading.mask_orientation == "stored" or (reading.mask_orientation is None and size == stored)


def read_plausible_row(row: Mapping[str, Any], reading: MaskReading | None) -> Pair:
    """Like `read_row`, but strict about masks that users bring.

    Raises:
        PairError: Also where the mask covers under 0.1 % or over 99 % of its image.
    """
    pair = read_row(row, reading)
    share = implausible_share(pair.mask, pair.ignored) if reading is not None and pair.mask else None
    if share is not None:
        name = _name(row["mask"], f"the mask of {row['image_id']}")
        raise PairError(name, f" marks {100 * share:.3g} % of its image as foreground", "implausible")
    return pair


def open_picture(file: str | io.BytesIO) -> PIL.Image.Image:
    """Open a picture without decoding it, unless its header claims more pixels than any photograph has.

    Pillow warns of more than `PIL.Image.MAX_IMAGE_PIXELS` (89 million, 268 MB decoded) and refuses twice as many;
    here both are refused.

    Args:
        file: A path, or the content of a file.

    Raises:
        DecompressionBombWarning, DecompressionBombError: It is too large.
        OSError: It is missing, or not an image.
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


def check_pairs(
    dataset: datasets.Dataset,
    skip: bool | Collection[str] = False,
    num_proc: int | None = None,
    reading: MaskReading | None = NO_FLAGS,
    use: str = "training",
) -> datasets.Dataset:
    """Open every image and mask once, so that a broken file is found before training begins.

    A user's mask that covers under 0.1 % or over 99 % of its image counts as broken. The log counts the
    masks that are turned with their images.

    Args:
        dataset: The chosen images, rows as `read_pair` takes them.
        skip: Leave broken pairs out and log each, instead of refusing the set; or only those with some of `PROBLEMS`.
        num_proc: Processes that open them.
        reading: How masks are read; None for masks that this package has made, as in `read_row`.
        use: What the pairs are for, for messages.

    Returns:
        The data set, without its broken pairs.

    Raises:
        UserError: Pairs are broken and not to be skipped, or all are; names the first of each kind and how many.
            Or most masks look inverted.
    """
    skipped = (PROBLEMS if skip else ()) if isinstance(skip, bool) else skip
    found = _examine_all(dataset, reading, num_proc)
    usable, messages = [], defaultdict(list)
    for row, (problem, message) in enumerate(zip(found["problem"], found["message"], strict=True)):
        if problem is None:
            usable.append(row)
        else:
            messages[problem].append(message)
    what = "images" if "mask" not in dataset.column_names else "photos" if use == "audit" else f"{use} pairs"
    if messages and not (messages.keys() <= set(skipped) and usable):
        raise UserError(_summary(messages, len(dataset), what, bool(usable)))
    for message in (message for kind in messages.values() for message in kind):
        logger.warning("Left out: %s.", message)
    if reading is not None:
        refuse_inverted(found["fills_border"][:], dataset["image_id"][:], reading)
    if num_turned := sum(found["is_turned"]):
        logger.info("%d masks fit their images as stored, and are turned with them.", num_turned)
    if messages:
        logger.warning("%d of %d %s are left out.", len(dataset) - len(usable), len(dataset), what)
    return dataset.select(usable) if messages else dataset


def refuse_unclear(dataset: datasets.Dataset, reading: MaskReading) -> None:
    """Refuse annotated masks that cannot be read unambiguously, before any work is done.

    Args:
        dataset: Rows as for `read_row`; `mask` may be None in single rows.
        reading: How the masks are read.

    Raises:
        UserError: It is not clear what the object in a mask is, or which way it is turned.
    """
    masks = undecoded(dataset)["mask"]
    found = _examine_all(dataset.select([row for row, mask in enumerate(masks) if mask]), reading)
    pairs = zip(found["problem"], found["message"], strict=True)
    unclear = [message for problem, message in pairs if problem in ("unclear", "orientation")]
    if unclear:
        raise UserError(f"--annotated: {len(unclear)} of {len(found)} masks cannot be read yet (first: {unclear[0]}).")


def _examine_all(
    dataset: datasets.Dataset, reading: MaskReading | None, num_proc: int | None = None
) -> datasets.Dataset:
    pictures = dataset.with_format(None).select_columns(
        [column for column in ("image", "mask", "image_id") if column in dataset.column_names]
    )
    logger.info("Checking %d images%s.", len(pictures), " and their masks" if "mask" in pictures.column_names else "")
    return undecoded(pictures).map(
        _examine,
        fn_kwargs={"reading": reading},
        remove_columns=pictures.column_names,
        features=datasets.Features(
            {"problem": datasets.Value("string"), "message": datasets.Value("string")}
            | dict.fromkeys(("is_turned", "fills_border"), datasets.Value("bool"))
        ),
        num_proc=num_proc,
        # Files change without a change of the data set's fingerprint: no result may be kept for a later check.
        keep_in_memory=True,
        desc="Checking images and masks",
    )


def _summary(messages: Mapping[str, list[str]], total: int, what: str, some_are_usable: bool) -> str:
    kinds = [
        f"{len(messages[problem])} {phrases[len(messages[problem]) > 1]} (first: {messages[problem][0]})"
        for problem, phrases in PROBLEMS.items()
        if problem in messages
    ]
    broken = sum(map(len, messages.values()))
    advice = (
        "Repair or remove them, or pass --skip_unreadable to leave them out."
        if some_are_usable
        else "None is left: repair them, or choose others."
    )
    return f"{broken} of {total} {what} cannot be used: {', '.join(kinds)}. {advice}"


def _examine(row: dict, reading: MaskReading | None) -> dict[str, Any]:
    try:
        pair = read_plausible_row(row, reading)
    except PairError as error:
        return {"problem": error.problem, "message": str(error), "is_turned": False, "fills_border": False}
    is_filled = pair.mask is not None and fills_border(pair.mask)
    return {"problem": None, "message": None, "is_turned": pair.is_turned, "fills_border": is_filled}


def refuse_inverted(fills_border: Sequence[bool], image_ids: Sequence[str], reading: MaskReading) -> None:
    """A single object may fill its image's border; where most do, background was mistaken for object.

    Args:
        fills_border: Of each mask, whether most of its border is foreground.
        image_ids: Whose masks they are.
        reading: How they were read.

    Raises:
        UserError: Most of them do, and the user has not said what the object is.
    """
    count = sum(fills_border)
    if not reading.mask_foreground and count > max(FEW_MASKS, len(image_ids) / 2):
        first = image_ids[fills_border.index(True)]
        raise UserError(
            f"{count} of {len(image_ids)} masks look inverted, most of their border is foreground (first: the mask of "
            f"{first}): pass --mask_foreground 0 if black is the object, or its value if the masks are right."
        )


def _name(picture: Any, image_id: str) -> str:
    # The path of an embedded picture is merely the former name of its file.
    return picture["path"] if isinstance(picture, dict) and picture["bytes"] is None else image_id


def _read(picture: Any, name: str, problem: str, convert: Callable, turned: bool) -> tuple[Any, int]:
    """A picture as `convert` gives it, and its EXIF orientation; upright if the orientation is to be ignored."""
    if picture is None:
        raise PairError(name, " is missing", problem)
    try:
        if isinstance(picture, dict):
            picture = open_picture(picture["path"] if picture["bytes"] is None else io.BytesIO(picture["bytes"]))
        orientation = picture.getexif().get(PIL.ExifTags.Base.Orientation, UPRIGHT) if turned else UPRIGHT
        return convert(picture), orientation if orientation in range(2, 9) else UPRIGHT
    except UnclearMaskError as error:
        raise PairError(name, f" {error}", "unclear") from error
    except PIL.UnidentifiedImageError as error:
        raise PairError(name, " is not a picture", problem) from error
    # On broken files, decoders raise almost anything: OSError, SyntaxError, DecompressionBombError and others.
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise PairError(name, f": {reason}", problem) from error


def _turn(picture: PIL.Image.Image, orientation: int) -> PIL.Image.Image:
    picture.info = {}  # its EXIF may be broken, and another than that which the orientation is from
    picture.getexif()[PIL.ExifTags.Base.Orientation] = orientation
    return PIL.ImageOps.exif_transpose(picture)


def turn_back(picture: PIL.Image.Image, row: Mapping[str, Any]) -> PIL.Image.Image:
    """A picture that fits a row's image as displayed, turned to lie as that is stored, with its EXIF orientation.

    Args:
        picture: Mode L.
        row: As for `read_row`; its image can be read.
    """
    _, orientation = _read(row["image"], "", "image", lambda image: None, turned=True)
    inverse = {6: 8, 8: 6}  # all others are their own
    stored = _turn(picture, inverse.get(orientation, orientation))
    stored.getexif()[PIL.ExifTags.Base.Orientation] = orientation
    return stored


def to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """A photograph as mode RGB, in training, evaluation and everywhere else.

    Grey of more than 8 bits is scaled, from 65535 where some value is above 255; floating-point grey from 1, 255 or
    65535, the smallest that no value is above. All else is converted by Pillow: CMYK, palettes, and transparency,
    which is dropped, so that the colours stored below it show.

    Raises:
        ValueError: Grey values below 0 or above 65535, or values that are not numbers; or Pillow has no conversion.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        values = grey_values(image)
        is_scaled = image.mode == "F" or values.max() > 255
        image = to_bytes(values) if is_scaled else PIL.Image.fromarray(values.astype(np.uint8))
    return image.convert("RGB")
