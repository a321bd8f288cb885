"""A folder of masks for the images of a data set: made by several processes, judged, listed, and resumable.

    OUT/masks/<image_id>.png       the accepted ones, as run_finetune.py --masks reads them
    OUT/rejected/<image_id>.png    the others
    OUT/masks.json                 settings, thresholds, how long it took, and each image's scores and reason

A mask's scores are stored in its own PNG file, so that an interrupted run loses nothing and other thresholds need no
new masks.
"""

import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import datasets
import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from PIL import Image, PngImagePlugin

from hf_robustvit.data import NO_FLAGS, MaskReading, PairError, read_pair, read_row
from hf_robustvit.data.mask_folder import mask_path
from hf_robustvit.data.pairs import undecoded
from hf_robustvit.data.regions import intersection_over_union
from hf_robustvit.errors import UserError
from hf_robustvit.files import read_json, refuse_other_types, replacing
from hf_robustvit.masks.quality import MaskScores, QualityGate
from hf_robustvit.masks.tokencut import ObjectMask
from hf_robustvit.terminal import progress


ACCEPTED, REJECTED = "masks", "rejected"


@dataclass
class _Report:
    """What is read of masks.json."""

    settings: dict[str, Any]
    made: dict[str, float | int]


@dataclass
class _Stored:
    """What a mask's PNG file says of it."""

    scores: dict[str, float | int] | None
    problem: str | None


class Masker(Protocol):
    """Where masks come from: a masker of `masks.SOURCES`, or `BoxMasks`.

    One that looks up something for each image also has `check(image_ids)`, which is called before the work begins.

    Attributes:
        origin: What error messages call it.
        settings: What the masks depend on, for masks.json; `source` among them.
    """

    origin: str
    settings: dict[str, Any]

    def prepare(self, image: Image.Image) -> Any:
        """What the masker needs from an RGB image, which is not kept itself: only one is in memory at a time."""

    def __call__(self, images: list[Any], image_ids: list[str]) -> list[ObjectMask]:
        """The masks of some prepared images."""


class MaskFolder:
    """The masks of a data set's images.

    Args:
        root: The folder OUT above.
        settings: What the masks depend on. A folder made with other settings is refused.
        gate: Thresholds that decide which masks are accepted.

    Raises:
        UserError: The folder holds masks made with other settings.
    """

    def __init__(self, root: str | os.PathLike, settings: dict[str, Any], gate: QualityGate):
        self.root, self.settings, self.gate = Path(root), settings, gate
        self.report_path = self.root / "masks.json"
        self.made = {"images": 0, "seconds": 0.0}  # by the main process, over all runs
        if self.report_path.exists():
            try:
                report = read_json(self.report_path)
                refuse_other_types(report, _Report)
            except ValueError as error:
                raise UserError(
                    f"{self.report_path} does not say how the masks beside it were made ({error}): name another "
                    "output folder, or delete this one."
                ) from error
            self.made, earlier = self.made | report.get("made", {}), report.get("settings", {})
            changed = [key for key, value in settings.items() if earlier.get(key) != value]
            changed.sort(key=lambda key: (key != "source", key))
            if changed:
                raise UserError(
                    f"{self.root} holds masks made with {changed[0]} {earlier.get(changed[0])!r}, now it is "
                    f"{settings[changed[0]]!r}: name another output folder, or delete this one."
                )

    def fill(
        self,
        dataset: datasets.Dataset,
        masker: Masker,
        batch_size: int = 8,
        reading: MaskReading | None = NO_FLAGS,
        limit: int | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Make the masks that are missing, judge all of them and write masks.json.

        Every process calls this; each makes its share.

        Args:
            dataset: Rows of `image`, `image_id` and, where there are annotated masks to compare with, `mask`, and
                where another source's masks must agree, `other`; both may be None in single rows.
            masker: Makes the masks.
            batch_size: Images given to it together.
            reading: How the annotated masks are read, as for `read_row`.
            limit: How many are made at most; images that have none yet are left out of what is returned.

        Returns:
            By image_id: `accepted`, `reason` (None if accepted), the scores, and `iou` with the annotated mask.
        """
        state = PartialState()
        rows = undecoded(dataset.with_format(None))
        image_ids = rows["image_id"][:]
        if hasattr(masker, "check"):
            masker.check(image_ids)
        todo = self.missing(image_ids)[:limit]
        if state.is_main_process:
            self._write_report({})  # an interrupted folder knows its settings
        state.wait_for_everyone()  # nobody writes before everybody has looked
        unreadable, began = [], time.perf_counter()
        mine = todo[state.process_index :: state.num_processes]
        for start in progress(range(0, len(mine), batch_size), "Masks", "batch", state.is_main_process):
            unreadable += self._make([rows[row] for row in mine[start : start + batch_size]], masker)
        if made := len(mine) - len(unreadable):
            seconds = time.perf_counter() - began
            self.made = {"images": self.made["images"] + made, "seconds": self.made["seconds"] + seconds}
        unreadable = dict(gather_object(unreadable))
        records = {}
        if state.is_main_process:
            left = set(self.missing(image_ids)) - set(todo)
            looked_at = rows.select([row for row in range(len(rows)) if row not in left]) if left else rows
            records = {row["image_id"]: self._record(row, unreadable, reading) for row in looked_at}
            self._write_report(records)
        state.wait_for_everyone()
        return json.loads(self.report_path.read_text(encoding="utf-8"))["images"]

    def missing(self, image_ids: list[str]) -> list[int]:
        """The positions of the images that have no mask here yet.

        Raises:
            UserError: Two images would have their mask in one file.
        """
        self._refuse_shared_files(image_ids)
        return [row for row, image_id in enumerate(image_ids) if self._find(image_id) is None]

    def _make(self, rows: list[dict], masker: Masker) -> list[tuple[str, str]]:
        """Write the masks of some rows; the image_ids that cannot be read, and why."""
        images, image_ids, unreadable = [], [], []
        for row in rows:
            try:
                image, _ = read_pair({"image": row["image"], "image_id": row["image_id"]})
            except PairError as error:
                unreadable.append((row["image_id"], str(error)))
            else:
                images.append(masker.prepare(image))
                image_ids.append(row["image_id"])
        for image_id, mask in zip(image_ids, masker(images, image_ids), strict=True):
            scores = mask.scores and {name: score for name, score in asdict(mask.scores).items() if score is not None}
            text = PngImagePlugin.PngInfo()
            text.add_text("hf_robustvit", json.dumps({"scores": scores, "problem": mask.problem}))
            with replacing(self._place(image_id, self._reason(scores, mask.problem))) as path:
                mask.image.save(path, format="PNG", pnginfo=text)
        return unreadable

    def _record(self, row: dict, unreadable: dict[str, str], reading: MaskReading | None) -> dict[str, Any]:
        """One image's entry in masks.json; its mask goes where the current thresholds put it."""
        image_id = row["image_id"]
        if image_id in unreadable:
            return {"accepted": False, "reason": f"the image cannot be read: {unreadable[image_id]}"}
        path = self._find(image_id)
        try:
            with Image.open(path) as picture:
                stored = json.loads(picture.info.get("hf_robustvit", "{}"))
                mask = np.asarray(picture.convert("L")) > 127
            refuse_other_types(stored, _Stored)
            scores = stored.get("scores")
            if scores:
                refuse_other_types(scores, MaskScores)
                MaskScores(**scores)
        except Exception as error:  # Pillow's decoders raise almost anything on broken files
            raise UserError(
                f"{path}: the mask cannot be read ({error}): delete it, and it will be made again."
            ) from error
        if scores and "other" in row:
            scores["shared"] = (row["other"] and _iou(mask, row | {"mask": row["other"]}, None)) or 0.0
        reason = self._reason(scores, stored.get("problem"))
        place = self._place(image_id, reason)
        if place != path:
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, place)
        record = {"accepted": reason is None, "reason": reason, **(scores or {})}
        return record | ({"iou": _iou(mask, row, reading)} if row.get("mask") else {})

    def _reason(self, scores: dict | None, problem: str | None) -> str | None:
        return problem or (self.gate.reason(MaskScores(**scores)) if scores else None)

    def _place(self, image_id: str, reason: str | None) -> Path:
        return mask_path(self.root / (REJECTED if reason else ACCEPTED), image_id)

    def _find(self, image_id: str) -> Path | None:
        places = (mask_path(self.root / folder, image_id) for folder in (ACCEPTED, REJECTED))
        return next((path for path in places if path.exists()), None)

    def _refuse_shared_files(self, image_ids: list[str]) -> None:
        first = {}
        for image_id in image_ids:
            other = first.setdefault(mask_path("", image_id), image_id)
            if other != image_id:
                raise UserError(f"{other} and {image_id} would share one mask: rename one of them.")

    def _write_report(self, records: dict[str, dict[str, Any]]) -> None:
        report = {"settings": self.settings, "gate": asdict(self.gate), "made": self.made, "images": records}
        with replacing(self.report_path) as path:
            path.write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")


def _iou(mask: np.ndarray, row: dict, reading: MaskReading | None) -> float | None:
    """IoU with the row's annotated mask; None where that cannot be read or has another size."""
    try:
        _, annotated, ignored, _ = read_row(row, reading)
    except PairError:
        return None
    counted = np.asarray(ignored) == 0 if ignored else np.ones_like(mask)
    return intersection_over_union(mask & counted, np.asarray(annotated) > 127)


def summary(records: dict[str, dict[str, Any]]) -> str:
    """The run in a few sentences: how many were accepted, which were not and why, and the IoU where it is known."""
    rejected = {image_id: record["reason"] for image_id, record in records.items() if not record["accepted"]}
    lines = [f"{len(records) - len(rejected)} of {len(records)} masks accepted."]
    lines += [f"Rejected: {image_id}: {reason}." for image_id, reason in rejected.items()]
    if sum("area" in record for record in records.values()) > 2 * (len(records) - len(rejected)):
        lines.append(
            "Most masks were rejected: look at the contact sheet. If they miss the objects, use another source or "
            "network, for TokenCut a backbone trained without labels (--backbone facebook/dino-vitb16); if they are "
            "good, loosen the thresholds named above."
        )
    for name, kept in (("all", records.values()), ("accepted", [r for r in records.values() if r["accepted"]])):
        known = known_ious(kept)
        if known:
            lines.append(f"Mean IoU with the annotated masks, {name}: {np.mean(known):.3f} ({len(known)} images).")
    return "\n".join(lines)


def known_ious(records: Iterable[dict[str, Any]]) -> list[float]:
    """The IoUs with the annotated masks, of those records that have one."""
    return [record["iou"] for record in records if record.get("iou") is not None]
