"""Control masks, which show whether an effect comes from the object's mask or from any mask at all."""

import hashlib
from collections.abc import Sequence

import datasets
import numpy as np
import PIL.Image

from hf_robustvit.data.masks import NO_FLAGS, MaskReading
from hf_robustvit.data.pairs import read_row, undecoded
from hf_robustvit.errors import UserError, unknown_name


MASK_CONTROLS = ("random", "whole", "other", "box")

# A random mask is cut from noise with this many values a side, which makes its blobs object-sized, not pixel-sized.
NOISE_GRID = 6


def control_masks(
    pairs: datasets.Dataset, control: str, seed: int, reading: MaskReading | None = NO_FLAGS
) -> datasets.Dataset:
    """Replace the masks of a data set by a control's.

    Args:
        pairs: Rows as `read_row` takes them, with `mask`, which "whole" can do without.
        control: "random", smooth blobs with as much foreground as the image's own mask; "whole", all is foreground;
            "other", the mask of another image, stretched to this one's size; "box", the bounding box of the mask.
        seed: For the random masks (each depends only on it and the image_id) and for which image gets which mask.
        reading: How the masks are read, as for `read_row`; the new ones are read with None.

    Returns:
        The same rows with new masks, mode L, of the size their image is displayed in.

    Raises:
        UserError: There is no such control, or only one image and so no other mask; or as `read_row`.
    """
    if control not in MASK_CONTROLS:
        raise unknown_name("--masks", control, MASK_CONTROLS)
    if control == "other" and len(pairs) < 2:
        raise UserError("--masks other: there is only one image, so no other mask to give it; choose more images.")
    columns = ["image", "image_id"] if control == "whole" else ["image", "mask", "image_id"]
    sources = undecoded(pairs.with_format(None)).select_columns(columns)
    others = draw_others(range(len(pairs)), seed)

    def make(row: dict, index: int) -> dict[str, PIL.Image.Image]:
        image, mask, *_ = read_row(row, reading)
        if control == "random":
            return {"mask": random_mask(mask, f"{seed}/{row['image_id']}")}
        if control == "whole":
            return {"mask": PIL.Image.new("L", image.size, 255)}
        if control == "box":
            box = PIL.Image.new("L", image.size)
            box.paste(255, mask.getbbox() or (0, 0, 0, 0))
            return {"mask": box}
        other = read_row(sources[int(others[index])], reading).mask
        return {"mask": other.resize(image.size, PIL.Image.Resampling.BILINEAR)}

    masks = sources.map(
        make,
        with_indices=True,
        remove_columns=sources.column_names,
        features=datasets.Features({"mask": datasets.Image()}),
        # Files change without a change of the data set's fingerprint: no result may be kept for a later run.
        keep_in_memory=True,
        desc=f"Masks of the control {control!r}",
    )
    rest = [column for column in pairs.column_names if column != "mask"]
    return datasets.concatenate_datasets([pairs.select_columns(rest), masks], axis=1)


def random_mask(mask: PIL.Image.Image, key: str) -> PIL.Image.Image:
    """Smooth random blobs, black and white, that cover the same share of the image as a mask does.

    Args:
        mask: Mode L; a soft mask counts by its mean.
        key: The same key and size always give the same noise.
    """
    digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "big"))
    noise = PIL.Image.fromarray(rng.standard_normal((NOISE_GRID, NOISE_GRID)).astype(np.float32))
    heights = np.asarray(noise.resize(mask.size, PIL.Image.Resampling.BICUBIC))  # (height, width)
    count = max(1, round(heights.size * float(np.asarray(mask).mean()) / 255))
    highest = np.argsort(-heights, axis=None, kind="stable")[:count]
    pixels = np.zeros(heights.size, dtype=np.uint8)
    pixels[highest] = 255
    return PIL.Image.fromarray(pixels.reshape(heights.shape))


def draw_others(groups: Sequence[int], seed: int) -> np.ndarray:
    """Give every row another one, of another group where it can: the first set of `draw_sets_of_others`.

    Args:
        groups, seed: As there.

    Returns:
        (rows,) int64, the other row of each; a single row has only itself.
    """
    return draw_sets_of_others(groups, 1, seed)[0]


def draw_sets_of_others(groups: Sequence[int], num_sets: int, seed: int) -> np.ndarray:
    """Give every row others: random permutations that leave no row in its group.

    The rows are put in an order in which groups are together, and each takes the one as many places further on as the
    largest group has rows; in the last set, as many as all other groups have; in the sets between, evenly between. So
    the others of a row are of as many groups as there are sets, where no group has more than a share of
    1 / (num_sets + 1) of the rows: no permutations can do that where one has. Then groups come twice; and rows do only
    where the largest group has half of them, give or take one, and the row's others are of groups of fewer rows than
    there are sets. Where a group has more than half of the rows, some of its rows must take one of their own group;
    in the first set never themselves.

    Args:
        groups: The group of each row, for example its class; with a group each, any other row will do.
        num_sets: How many others each row gets.
        seed: Of the order of the groups, and of the rows in each.

    Returns:
        (num_sets, rows) int64.
    """
    names, group, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(group)), rng.permutation(len(names))[group]))
    count, largest, positions = len(order), sizes.max(), np.arange(len(order))
    # Of the group at each position, its first position and its size.
    is_first = np.diff(group[order], prepend=-1) != 0
    start, size = np.flatnonzero(is_first)[np.cumsum(is_first) - 1], sizes[group[order]]
    sets = np.empty((num_sets, count), dtype=order.dtype)
    shifts = [largest + number * (count - 2 * largest) // max(num_sets - 1, 1) for number in range(num_sets)]
    shifts = [shift % count or 1 for shift in shifts]
    for number, shift in enumerate(shifts):
        # Turning each group in itself gives other rows where two shifts are alike.
        target, turn = (positions + shift) % count, shifts[0] + number - shift
        target = start[target] + (target - start[target] + turn) % size[target]
        sets[number, order] = order[target]
    return sets
