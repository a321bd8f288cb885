"""Data sets in Parquet, in a folder or a repository on the Hub, with the columns `image`, `label` and perhaps `mask`.

The scripts of dataset_scripts/ write them; others are read too.
"""

import functools
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import datasets
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.table import embed_table_storage
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from hf_robustvit.data import MaskReading, read_row
from hf_robustvit.data.pairs import turn_back, undecoded
from hf_robustvit.errors import UserError, first_line
from hf_robustvit.files import read_json, replacing


ORIGIN = "origin.json"
ROWS_OF_A_FILE = 4000  # about half a GB of ImageNet's photographs
PICTURES = ("image", "mask", "ignore")
SPLITS = {"training": ("train",), "evaluation": ("test", "validation", "train")}


def is_parquet(name: str) -> bool:
    """Whether a value of --dataset may be in Parquet: a folder with *.parquet or data/*.parquet, or <user>/<name>."""
    folder = Path(name)
    if folder.is_dir():
        return any(next(folder.glob(files), None) for files in ("*.parquet", "data/*.parquet"))
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def official_name(name: str) -> str:
    """The name in --dataset of what a data set in Parquet was converted from; any other value of --dataset itself."""
    return origin(name).get("dataset") or name


@functools.cache
def origin(name: str) -> dict[str, Any]:
    """What the script that wrote a data set noted; empty for all others.

    `dataset`: its name in --dataset, None for a folder of a user's; `imagenet_indices`: as in `BenchmarkRows`.

    Raises:
        UserError: It cannot be read.
    """
    if not is_parquet(name):
        return {}
    path = Path(name, ORIGIN)
    try:
        path = path if Path(name).is_dir() else Path(hf_hub_download(name, ORIGIN, repo_type="dataset"))
        return read_json(path)
    except (EntryNotFoundError, FileNotFoundError):
        return {}
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from error


@dataclass(frozen=True)
class ParquetData:
    """A data set in Parquet.

    Attributes:
        name: The folder, or the repository on the Hub.
        split: The split that is read.
    """

    name: str
    split: str

    @classmethod
    def find(cls, name: str, use: str) -> "ParquetData":
        """The split for a use: train for "training"; test, validation or train for "evaluation"; or the only one.

        Raises:
            UserError: The data set cannot be read, or it is not clear which split is meant.
        """
        try:
            splits = datasets.get_dataset_split_names(name)
        except Exception as error:  # of the HTTP client, of huggingface_hub and of datasets
            raise _unreadable(name, error) from error
        chosen = [split for split in SPLITS[use] if split in splits] or (splits if len(splits) == 1 else [])
        if not chosen:
            raise UserError(
                f"--dataset {name} has the splits {', '.join(splits)}, and none of them is for {use}: name one "
                f"{SPLITS[use][0]}."
            )
        return cls(name, chosen[0])

    def rows(self) -> datasets.Dataset:
        """All rows, their pictures on disk.

        Raises:
            UserError: They cannot be read, or lack an image.
        """
        return self._named(self._load())

    def without_pictures(self) -> datasets.Dataset:
        """All rows with empty pictures; of the Parquet files only the other columns are read, and kept in memory.

        Raises:
            UserError: As `rows`, or there is no other column.
        """
        features = self._load(streaming=True).features
        read = datasets.Features({name: kind for name, kind in features.items() if name not in PICTURES})
        if not read:
            raise UserError(f"--streaming: --dataset {self.name} has nothing but pictures; leave the flag out.")
        rows = datasets.Dataset.from_list(list(self._load(streaming=True, columns=list(read))), features=read)
        for column in (column for column in PICTURES if column in features):
            rows = rows.add_column(column, [None] * len(rows), feature=datasets.Image())
        return self._named(rows).add_column("row", range(len(rows)))

    def with_pictures(self, rows: datasets.Dataset) -> datasets.Dataset:
        """Rows of `without_pictures` with the pictures they lack; these are streamed, and kept in memory alone."""
        wanted = {number: position for position, number in enumerate(rows["row"])}
        empty = {column: rows.data.column(column).null_count == len(rows.data) for column in rows.column_names}
        pictures = [column for column in PICTURES if empty.get(column)]
        stream, found = self._load(streaming=True, columns=pictures), [None] * len(rows)
        for column in pictures:
            stream = stream.cast_column(column, datasets.Image(decode=False))
        for number, row in enumerate(stream.take(max(wanted, default=-1) + 1)):
            if number in wanted:
                found[wanted[number]] = row
        rows = rows.remove_columns([*pictures, "row"])
        for column in pictures:
            rows = rows.add_column(column, [row[column] for row in found], feature=datasets.Image())
        return rows

    def _load(self, **options: Any) -> datasets.Dataset | datasets.IterableDataset:
        try:
            return datasets.load_dataset(self.name, split=self.split, **options)
        except Exception as error:
            raise _unreadable(self.name, error) from error

    def _named(self, rows: datasets.Dataset) -> datasets.Dataset:
        if not isinstance(rows.features.get("image"), datasets.Image):
            raise UserError(
                f"--dataset {self.name} has the columns {', '.join(rows.column_names)}; expected image (pictures), "
                "label (classes) and, to train with its masks, mask (pictures): rename or convert them."
            )
        if "label" in rows.features and not isinstance(rows.features["label"], datasets.ClassLabel):
            rows = rows.class_encode_column("label")
        if "image_id" not in rows.features:
            rows = rows.add_column("image_id", [f"{self.split}/{number:06d}" for number in range(len(rows))])
        return rows


def _unreadable(name: str, error: Exception) -> UserError:
    for path in sorted(Path(name).rglob("*.parquet")):
        try:
            pq.read_metadata(path)
        except (pa.ArrowInvalid, OSError) as damage:
            reason = f"is damaged ({first_line(damage)}): copy or convert the data set again"
            return UserError(f"--dataset {name}: {path.relative_to(name)} {reason}.")
    kind = "folder of Parquet files" if Path(name).is_dir() else "data set of the Hub"
    return UserError(f"--dataset {name} cannot be read as a {kind} ({first_line(error)}): is the name right?")


def with_plain_masks(rows: datasets.Dataset, reading: MaskReading) -> datasets.Dataset:
    """A user's rows with masks that need no flags: grey, 255 is the object; and `ignore` where flags ask for it.

    A mask lies in the file as its image does, with the same EXIF orientation, so that both are displayed alike.
    """

    def plain(row: Mapping[str, Any]) -> dict[str, Any]:
        pair = read_row(row, reading)
        ignored = _as_png(turn_back(pair.ignored, row)) if pair.ignored else None
        return {"mask": _as_png(turn_back(pair.mask, row)), "ignore": ignored}

    features = datasets.Features(rows.features | {"mask": datasets.Image(), "ignore": datasets.Image()})
    plain_rows = undecoded(rows).map(plain, features=features, keep_in_memory=True)
    has_ignored = plain_rows.data.column("ignore").null_count < len(rows)
    return plain_rows if has_ignored else plain_rows.remove_columns("ignore")


def _as_png(picture: PIL.Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", exif=picture.getexif())  # which Pillow would leave out
    return file.getvalue()


def write_parquet(
    rows: datasets.Dataset,
    folder: str | Path,
    split: str,
    dataset: str | None,
    indices: Mapping[str, Sequence[int]] | None,
) -> None:
    """Write a split with the content of its pictures, as data/<split>-*.parquet, and a card.

    Args:
        rows: The rows.
        folder: Where to; other splits that are there stay.
        split: Its name.
        dataset: What the data set is called in --dataset; None for a folder of the user's.
        indices: The ImageNet indices of its classes, where they are not the wnids'.
    """
    folder = Path(folder)
    write_pictures(rows, folder, split)
    with replacing(folder / ORIGIN) as path:
        path.write_text(json.dumps({"dataset": dataset, "imagenet_indices": indices}, indent=1), encoding="utf-8")
    with replacing(folder / "README.md") as path:
        splits = sorted({file.name.partition("-")[0] for file in (folder / "data").glob("*.parquet")})
        files = "\n".join(f"  - split: {split}\n    path: data/{split}-*" for split in splits)
        about = {"dataset": dataset or folder.name, "columns": ", ".join(rows.column_names)}
        path.write_text(CARD.format(files=files, **about), encoding="utf-8")


def write_pictures(rows: datasets.Dataset, folder: Path, split: str) -> None:
    """Write a split alone, with the content of its pictures, as data/<split>-*.parquet."""
    count = max(1, ceil(len(rows) / ROWS_OF_A_FILE))
    names = [f"{split}-{number:05d}-of-{count:05d}.parquet" for number in range(count)]
    for number, name in enumerate(names):
        part = rows.shard(count, number, contiguous=True).with_format("arrow")
        part = part.map(embed_table_storage, batched=True, batch_size=100, keep_in_memory=True)
        with replacing(folder / "data" / name) as path:
            part.with_format(None).to_parquet(path, batch_size=100)  # small parts, to stream a few images
    for old in (folder / "data").glob(f"{split}-*.parquet"):
        if old.name not in names:  # of an earlier conversion into more or fewer files
            old.unlink()


CARD = """---
pretty_name: {dataset}
task_categories:
- image-classification
configs:
- config_name: default
  data_files:
{files}
---

# {dataset}

Converted by a script of [hf_robustvit](https://github.com/hf-robustvit/hf-robustvit). Columns: {columns}.
The licence is that of the original data set.
"""
