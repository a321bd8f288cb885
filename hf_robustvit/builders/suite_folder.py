"""A folder of photos that experiments are made on: train and test, with images and masks, and perhaps backgrounds.

Photos of test whose name has an even hash are for development, where settings are chosen; the others are the test.
A photo stays on its side whatever else the folder holds.
"""

import hashlib
import logging
import os
from dataclasses import replace

import datasets
import pandas as pd

from hf_robustvit.builders import load_benchmark_rows, load_training_pairs
from hf_robustvit.builders.composites import load_composites
from hf_robustvit.builders.image_mask_folder import load_image_mask_folder
from hf_robustvit.builders.parquet import is_parquet
from hf_robustvit.data import MADE_MASKS, NO_FLAGS, MaskReading, check_pairs
from hf_robustvit.data.benchmark_rows import DEVELOPMENT, MASKED_PHOTOS, PHOTOS, BenchmarkRows
from hf_robustvit.errors import UserError


logger = logging.getLogger(__name__)

JUDGED = "masks.csv"


def is_for_development(image_id: str) -> bool:
    """Whether a photo of test is for development: the first byte of its name's SHA-256 is even."""
    return hashlib.sha256(image_id.encode()).digest()[0] % 2 == 0


class SuiteFolder:
    """The data of a suite that is a folder.

    DIR/train/images/<class>/*, DIR/train/masks/<class>/*.png, the same in DIR/test, and any photos without the
    classes' objects in DIR/backgrounds. Where masks have been judged, masks.csv beside them says which are good: its
    columns are `image` (as <class>/<file>) and `kept` (1 or 0); the others are not used.

    Args:
        folder: DIR.
        reading: How its masks are read.

    Raises:
        UserError: DIR has no train or no test.
    """

    def __init__(self, folder: str, reading: MaskReading = NO_FLAGS):
        self.folder, self.reading = os.path.abspath(folder), reading
        for part in ("train", "test"):
            if not os.path.isdir(os.path.join(self.folder, part)):
                raise UserError(
                    f"--suite {folder} has no folder {part!r}: give imagenet, cutouts, or a folder that holds train "
                    "and test, each with images/<class>/* and masks/<class>/*.png."
                )

    def training_pairs(self, masks: str = "annotated") -> datasets.Dataset:
        """The photos of train with masks that are kept; for the value of `--masks` see `load_training_pairs`.

        Raises:
            UserError: Its photos or masks cannot be used.
        """
        pairs = load_training_pairs(os.path.join(self.folder, "train"), masks=masks)
        return keep_judged(pairs, os.path.join(self.folder, "train"))

    def validation_pairs(self) -> datasets.Dataset:
        """The development photos with masks that can be used."""
        return self._masked(development=True)

    def benchmark(self, name: str) -> BenchmarkRows:
        """A benchmark of `folder_suite` by its name.

        Raises:
            UserError: Its photos cannot be used.
        """
        development, kind = name.endswith(DEVELOPMENT), name.removesuffix(DEVELOPMENT)
        own = {"is_own_folder": True, "reading": self.reading}
        if kind == PHOTOS:
            rows = load_image_mask_folder(os.path.join(self.folder, "test"), with_masks=False)
            return BenchmarkRows(name, self._side(rows, development), **own)
        if kind == MASKED_PHOTOS:
            return BenchmarkRows(name, self._masked(development), tests_masks=True, **own)
        kept = _judged_good(os.path.join(self.folder, "test"))
        backgrounds = os.path.join(self.folder, "backgrounds")
        composites = load_composites(
            kind,
            os.path.join(self.folder, "test"),
            backgrounds if os.path.isdir(backgrounds) else None,
            self.reading,
            keep=lambda image_id: is_for_development(image_id) == development and (not kept or image_id in kept),
        )
        return replace(composites, name=name)

    def _masked(self, development: bool) -> datasets.Dataset:
        rows = load_image_mask_folder(os.path.join(self.folder, "test"), skip_missing_masks=True)
        rows = self._side(keep_judged(rows, os.path.join(self.folder, "test")), development)
        return check_pairs(rows, skip=("empty", "implausible"), reading=self.reading, use="test")

    def _side(self, rows: datasets.Dataset, development: bool) -> datasets.Dataset:
        names = enumerate(rows["image_id"])
        chosen = [row for row, image_id in names if is_for_development(image_id) == development]
        if not chosen:
            side = "development" if development else "the test"
            raise UserError(
                f"--suite {self.folder}: by their names, none of the {len(rows)} photos of test that can be used is "
                f"for {side}: add photos."
            )
        return rows.select(chosen)


def keep_judged(rows: datasets.Dataset, folder: str) -> datasets.Dataset:
    """The photos of a folder whose masks were judged good; all where nobody judged them.

    Raises:
        UserError: masks.csv cannot be read, or keeps no mask.
    """
    if not (kept := _judged_good(folder)):
        return rows
    chosen = [row for row, image_id in enumerate(rows["image_id"]) if image_id in kept]
    logger.info("%s of %s keeps %d of %d masks.", JUDGED, os.path.basename(folder), len(chosen), len(rows))
    return rows.select(chosen)


def _judged_good(folder: str) -> set[str]:
    """The photos whose masks were judged good; empty where nobody judged them."""
    path = os.path.join(folder, JUDGED)
    if not os.path.isfile(path):
        return set()
    try:
        table = pd.read_csv(path)
        kept = set(table["image"][table["kept"].astype(int) == 1])
    except (KeyError, ValueError, OverflowError, OSError) as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}: {str(error).strip()}): expected the columns image, as "
            "<class>/<file>, and kept, 1 or 0."
        ) from error
    if not kept:
        raise UserError(f"{path} keeps no mask at all: remove it, or set kept to 1 where a mask is good.")
    return kept


def load_audited(
    name: str,
    data_dir: str | None = None,
    reading: MaskReading = NO_FLAGS,
    masks: str | None = None,
    streaming: bool = False,
) -> BenchmarkRows:
    """Load the photos that an audit asks about: as `load_benchmark_rows`, but a folder's photos without a mask, or
    whose mask was judged bad, are left out.

    Args:
        name, data_dir, reading, streaming: As for `load_benchmark_rows`.
        masks: A folder of masks/<class>/*.png to take instead of the folder's own; or one of `MADE_MASKS`, which
            the caller makes, where rows have none.

    Raises:
        UserError: As `load_benchmark_rows`, or there are no masks.
    """
    if not os.path.isdir(name) or is_parquet(name):
        if masks:
            raise UserError(f"--masks {masks} is for a folder of photos, and --dataset {name} is none: leave it out.")
        return load_benchmark_rows(name, data_dir, reading, streaming=streaming)
    folder, own = os.path.realpath(name), {"is_own_folder": True, "reading": reading}
    if masks in MADE_MASKS:
        rows = load_image_mask_folder(folder, with_masks=False)
    elif masks is None and not os.path.isdir(os.path.join(folder, "masks")):
        raise UserError(
            f"--audit needs masks, and {name} has no folder 'masks': name a folder of masks with --masks, or let "
            "--masks tokencut make them."
        )
    else:
        rows = load_image_mask_folder(folder, masks_dir=masks, skip_missing_masks=True)
        rows = rows if masks else keep_judged(rows, folder)
    return BenchmarkRows(os.path.basename(folder), rows, **own)
