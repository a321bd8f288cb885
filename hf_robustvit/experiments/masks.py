"""Where masks come from: how good those are that are made, and what a model becomes that is trained with them."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from hf_robustvit.data import MADE_MASKS
from hf_robustvit.experiments.book import Book
from hf_robustvit.experiments.tables import accuracy_tables
from hf_robustvit.masks.folder import known_ious
from hf_robustvit.reporting.tables import Cell, write_table


def mask_tables(book: Book) -> str:
    """The masks that each source made of the same images, then the accuracies after training with each."""
    workshop, rows = book.workshop, {}
    for model, recipe, run in book.experiment.rows(workshop.suite):
        source = dict(run.settings).get("masks")
        if source in MADE_MASKS:
            path = workshop.folder(run) / "model" / source / "masks.json"
            rows[model, recipe.label] = _mask_cells(json.loads(path.read_text(encoding="utf-8")))
    cells = pd.DataFrame.from_dict(rows, orient="index")
    cells.index = pd.MultiIndex.from_tuples(cells.index, names=["model", "method"])
    caption = (
        f"{book.experiment.title}. Mean IoU with the annotated masks, of all that were made and of those that "
        "the gate accepted; images a second are those of one process."
    )
    return f"{write_table(book.folder / book.name, cells, caption)}\n{accuracy_tables(book)}"


def _mask_cells(report: dict[str, Any]) -> dict[str, Cell]:
    """A row of the table from a masks.json."""
    records, made = report["images"].values(), report["made"]
    accepted = [record for record in records if record["accepted"]]
    return {
        "images": Cell(str(len(records))),
        "accepted (%)": Cell(f"{100 * len(accepted) / len(records):.1f}"),
        "IoU": _mean_iou(records),
        "IoU of the accepted": _mean_iou(accepted),
        "images a second": Cell(f"{made['images'] / made['seconds']:.2f}") if made["images"] else Cell(),
    }


def _mean_iou(records: Iterable[dict[str, Any]]) -> Cell:
    known = known_ious(records)
    return Cell(f"{np.mean(known):.3f}") if known else Cell()
