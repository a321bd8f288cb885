"""What a mask says about each pixel, however it is stored: object, background, or neither."""

import numpy as np
import PIL.Image

from hf_robustvit.flags.masks import NO_FLAGS, MaskReading, colour, listed


# The colour of what Pascal VOC's annotators left open.
VOC_VOID = (224, 224, 192)
# A map of classes never has this many values in one image; a soft mask hardly ever has fewer.
SOFT_LEVELS = 64
# JPEG leaves noise around black and white; a soft edge has few values there.
NOISE = 31
PLAUSIBLE_SHARES = (0.001, 0.99)


class UnclearMaskError(ValueError):
    """It is not clear what the object is in a mask; the message continues after the mask's name."""


def foreground_mask(mask: PIL.Image.Image) -> PIL.Image.Image:
    """The foreground of a mask that needs no flags, as `read_mask` reads it."""
    return read_mask(mask, NO_FLAGS)[0]


def read_mask(mask: PIL.Image.Image, reading: MaskReading | None) -> tuple[PIL.Image.Image, PIL.Image.Image | None]:
    """Separate the object, the background, and the pixels that are neither.

    - Black and any one other value: the other value is the object.
    - Soft masks, whose greys are shares of an object: of 255, or of 1 where no value is above 1, or of 65535 where one
      is above 255. A grey mask is soft where it has 64 values or more, or four or more that lie side by side as along
      a blurred edge and not in patches of one value. Where most of its greys are close to black or white, they are the
      noise of JPEG: it is cut at half.
    - Everything else (class ids, trimaps, several colours) is read by the flags only. VOC's void colour is neither
      object nor background.

    Values are grey values; indices of a palette that has colours; or colours. What is transparent is black.

    Args:
        mask: A PIL image of any mode.
        reading: The flags; `None` for a grey mask that is known to be soft and free of noise: its values stay.

    Returns:
        The foreground, mode L, 0 background to 255 object; and, where there are ignored pixels, which: mode L, 255.

    Raises:
        UnclearMaskError: What the object is remains open.
        ValueError: It has more than 256 colours, as a photograph has, or values below 0 or above 65535.
    """
    if mask.has_transparency_data:
        mask = PIL.Image.alpha_composite(PIL.Image.new("RGBA", mask.size, "black"), mask.convert("RGBA"))
    values, is_grey, black, void = _values(mask)
    if reading is None and is_grey:
        return to_bytes(values), None
    reading = reading or NO_FLAGS
    levels = np.unique(values)
    ignore = reading.ignore | (void - reading.foreground)
    if is_grey and _is_soft(values, levels) and reading.foreground in (frozenset(), {0}, {255}):
        foreground = _without_noise(np.asarray(to_bytes(values)))
        foreground = 255 - foreground if reading.foreground == {0} else foreground
    else:
        objects = reading.foreground or _the_object(set(levels.tolist()) - ignore, black)
        foreground = np.isin(values, list(objects)).astype(np.uint8) * 255
    ignored = np.isin(values, list(ignore))
    foreground[ignored] = 0
    ignored = PIL.Image.fromarray(ignored.astype(np.uint8) * 255) if ignored.any() else None
    return PIL.Image.fromarray(foreground), ignored


def to_bytes(values: np.ndarray) -> PIL.Image.Image:
    """Grey values of any range as mode L: scaled from the smallest of 0..1, 0..255 and 0..65535 that holds them."""
    top = next(top for top in (1, 255, 65535) if values.max() <= top)
    return PIL.Image.fromarray((values * (255 / top)).round().astype(np.uint8))


def grey_values(picture: PIL.Image.Image) -> np.ndarray:
    """The values of a single-channel picture, (height, width) float32.

    Raises:
        ValueError: Some are below 0 or above 65535, or not numbers.
    """
    values = np.asarray(picture).astype(np.float32)
    if not 0 <= values.min() <= values.max() <= 65535:
        raise ValueError(f"it has values from {values.min():g} to {values.max():g}, expected 0 to 255")
    return values


def is_grey(picture: PIL.Image.Image) -> bool:
    """Whether a picture has a single grey channel, of any precision."""
    return picture.mode in ("1", "L", "F") or picture.mode.startswith("I")


def implausible_share(mask: PIL.Image.Image, ignored: PIL.Image.Image | None) -> float | None:
    """The share of a mask's pixels that are foreground if it is under 0.1 % or over 99 %, else None."""
    counted = np.asarray(mask)[np.asarray(ignored) == 0] if ignored else np.asarray(mask)
    share = float(counted.mean()) / 255 if counted.size else 0.0
    least, most = PLAUSIBLE_SHARES
    return None if least <= share <= most else share


def fills_border(mask: PIL.Image.Image) -> bool:
    """Whether more than three quarters of the outermost pixels are foreground, as in an inverted mask."""
    values = np.asarray(mask)
    border = np.concatenate([values[0], values[-1], values[1:-1, 0], values[1:-1, -1]])
    return border.mean() > 0.75 * 255


def _values(mask: PIL.Image.Image) -> tuple[np.ndarray, bool, set[int], set[int]]:
    """The values that tell the pixels apart, whether these are greys, and which of them are black and VOC's void."""
    if mask.mode == "P":
        colours = np.reshape(mask.getpalette("RGB"), (-1, 3))
        if (colours == colours[:, :1]).all():
            mask = mask.convert("L")
        else:
            black, void = (set(np.flatnonzero((colours == colour).all(1)).tolist()) for colour in (0, VOC_VOID))
            return np.asarray(mask), False, black, void
    if not is_grey(mask):
        mask = mask.convert("RGB")
        red, green, blue = map(np.asarray, mask.split())
        if not ((red == green) & (green == blue)).all():
            if mask.getcolors(256) is None:
                raise ValueError("it has more than 256 colours, so it is not a mask")
            colours = colour(*(channel.astype(np.int32) for channel in (red, green, blue)))
            return colours, False, {colour(0, 0, 0)}, {colour(*VOC_VOID)}
        mask = mask.getchannel(0)
    return grey_values(mask), True, {0}, set()


def _is_soft(values: np.ndarray, levels: np.ndarray) -> bool:
    near_white = (levels >= 255 - NOISE) & (levels < 255)
    if near_white.any() and (near_white | (levels <= NOISE) | (levels == 255)).all():
        return True  # JPEG's noise and nothing else
    if len(levels) < 4 or len(levels) >= SOFT_LEVELS or (levels % 1).any():
        return len(levels) >= 4
    between = ((values > levels[0]) & (values < levels[-1]))[:-1, :-1]
    flat = between & (values[:-1, :-1] == values[1:, :-1]) & (values[:-1, :-1] == values[:-1, 1:])
    return 4 * flat.sum() <= between.sum()


def _without_noise(shares: np.ndarray) -> np.ndarray:
    between = (shares > 0) & (shares < 255)
    noise = between & ((shares <= NOISE) | (shares >= 255 - NOISE))
    return (shares > 127).astype(np.uint8) * 255 if 3 * noise.sum() > 2 * between.sum() else shares.copy()


def _the_object(found: set[int], black: set[int]) -> set[int]:
    objects = found - black
    if len(objects) > 1:
        raise UnclearMaskError(
            f"has the values {listed(found)}, and which of them is the object is not clear: pass --mask_foreground "
            "with those that are (and --mask_ignore with any that count neither as object nor as background)"
        )
    return objects
