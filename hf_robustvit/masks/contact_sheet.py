"""Many masks in one picture, to check before training."""

import os
import textwrap
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hf_robustvit.data import PairError, read_pair
from hf_robustvit.data.mask_folder import mask_path
from hf_robustvit.data.pairs import undecoded
from hf_robustvit.files import replacing
from hf_robustvit.fonts import caption_font


COLUMNS = 6
THUMBNAIL = 160  # pixels
CAPTION = 54  # pixels below a thumbnail
CHARACTERS = 27  # of a line of the caption
TITLE = 20  # pixels, where not all images are shown
GREEN, RED = (40, 140, 60), (190, 40, 40)


def contact_sheet(
    path: str | os.PathLike,
    dataset: datasets.Dataset,
    records: dict[str, dict[str, Any]],
    root: str | os.PathLike,
    num_shown: int = 120,
) -> None:
    """Draw images with what lies outside their masks darkened; green captions are accepted, red ones give the reason.

    Where there are more images than it shows, a title says so.

    Args:
        path: The PNG file to write.
        dataset: Rows of `image` and `image_id`.
        records: As `MaskFolder.fill` returns them.
        root: The folder of the masks.
        num_shown: Images on the sheet, evenly spaced over the data set.
    """
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(num_shown, len(dataset))).round().astype(int))
    rows = undecoded(dataset.with_format(None)).select(chosen.tolist())
    tiles = [_tile(row, records[row["image_id"]], Path(root)) for row in rows]
    top = TITLE if len(tiles) < len(dataset) else 0
    height = top - (-len(tiles) // COLUMNS) * (THUMBNAIL + CAPTION)
    sheet = Image.new("RGB", (min(COLUMNS, len(tiles)) * THUMBNAIL, height), "white")
    if top:
        title = f"{len(tiles)} of {len(dataset)} shown"
        ImageDraw.Draw(sheet).text((3, 3), title, fill="black", font=caption_font(12))
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (index % COLUMNS * THUMBNAIL, top + index // COLUMNS * (THUMBNAIL + CAPTION)))
    with replacing(Path(path)) as temporary:
        sheet.save(temporary)


def _tile(row: dict, record: dict[str, Any], root: Path) -> Image.Image:
    tile = Image.new("RGB", (THUMBNAIL, THUMBNAIL + CAPTION), "white")
    try:
        image, _ = read_pair({"image": row["image"], "image_id": row["image_id"]})
    except PairError:
        image = Image.new("RGB", (THUMBNAIL, THUMBNAIL), "lightgrey")
    scale = (THUMBNAIL - 6) / max(image.size)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    mask_file = mask_path(root / ("masks" if record["accepted"] else "rejected"), row["image_id"])
    if mask_file.exists():
        with Image.open(mask_file) as picture:
            mask = picture.convert("L").resize(size, Image.Resampling.NEAREST)
        image = Image.composite(image, image.point(lambda value: value // 4), mask)
    tile.paste(image, (3, 3))
    colour = GREEN if record["accepted"] else RED
    drawing, font = ImageDraw.Draw(tile), caption_font(9, row["image_id"])
    verdict = textwrap.wrap(record["reason"] or "accepted", CHARACTERS, max_lines=3, placeholder=" ...")
    for line, text in enumerate([shortened(row["image_id"], font, THUMBNAIL - 6), *verdict]):
        drawing.text((3, THUMBNAIL + 13 * line), text, fill=colour, font=font)
    return tile


def shortened(name: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """A name cut to at most this many pixels in its middle: it begins with the class and ends with the number."""
    text, kept = name, len(name)
    while font.getlength(text) > width:
        kept -= 1
        text = f"{name[: kept // 2]}...{name[-(kept - kept // 2) :]}"
    return text
