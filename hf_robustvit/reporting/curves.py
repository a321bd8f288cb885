"""What an evaluation draws of a data set that varies one factor: the curve, and how composites look."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from PIL import Image, ImageDraw

from hf_robustvit.data import PairError
from hf_robustvit.data.pairs import undecoded
from hf_robustvit.evaluation.curves import accuracy_curve
from hf_robustvit.evaluation.examples import evenly_spaced
from hf_robustvit.evaluation.run import BenchmarkData
from hf_robustvit.files import replacing
from hf_robustvit.fonts import caption_font
from hf_robustvit.masks.contact_sheet import shortened
from hf_robustvit.reporting.plots import plot_factor, save_figure


NUM_OBJECTS = 8
TILE = 120  # pixels
LINE = 14  # pixels of a line of text


def write_curve(folder: Path, dataset: str, frames: Mapping[str, pd.DataFrame]) -> Path | None:
    """Write `<dataset>.csv` and `<dataset>.png`: the accuracy over the factor that a data set varies.

    Args:
        folder: Where they go.
        dataset, frames: As for `accuracy_curve`.

    Returns:
        The picture; None where there is no curve.
    """
    curve = accuracy_curve(dataset, frames)
    if curve is None:
        return None
    with replacing(folder / f"{dataset}.csv") as path:
        curve.to_csv(path, index=False)
    save_figure(plot_factor(curve, dataset), folder / dataset, ".png")
    return folder / f"{dataset}.png"


def composite_sheet(path: Path, data: BenchmarkData, size: tuple[int, int]) -> None:
    """Draw a few objects of a set of composites, a row each, with every value of the factor.

    Args:
        path: The PNG file to write.
        data: The composites.
        size: Height and width of the model's input, at which they are rendered before they are shrunk.
    """
    objects = data.rows.unique("object")
    shown = [objects[position] for position in evenly_spaced(len(objects), NUM_OBJECTS)]
    positions = {name: [] for name in shown}
    for position, name in enumerate(data.rows["object"]):
        if name in positions:
            positions[name].append(position)
    rows, font = undecoded(data.rows.with_format(None)), caption_font(9, "".join(shown))
    height = TILE + 2 * LINE
    sheet = Image.new("RGB", (TILE * max(map(len, positions.values())), height * len(shown)), "white")
    drawing = ImageDraw.Draw(sheet)
    for line, (name, places) in enumerate(positions.items()):
        top = line * height
        drawing.text((3, top), shortened(name, font, sheet.width - 6), fill="black", font=font)
        for column, position in enumerate(places):
            left, row = column * TILE, rows[position]
            sheet.paste(_tile(data, row, size), (left, top + LINE))
            value = f"{row['value']:g}" if isinstance(row["value"], float) else row["value"]
            caption = shortened(f"{row['factor']} {value}", font, TILE - 6)
            drawing.text((left + 3, top + LINE + TILE), caption, fill="black", font=font)
    with replacing(path) as temporary:
        sheet.save(temporary)


def _tile(data: BenchmarkData, row: dict, size: tuple[int, int]) -> Image.Image:
    try:
        image = data.render(row, size).image
    except PairError:  # with --skip_unreadable
        image = Image.new("RGB", size[::-1], "lightgrey")
    image.thumbnail((TILE - 2, TILE - 2))
    return image
