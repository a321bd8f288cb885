"""Masks for a folder of images, by a network or from boxes: made, judged and shown on a contact sheet."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate import PartialState

from hf_robustvit.builders.image_mask_folder import load_images
from hf_robustvit.commands.dry_run import peak_bytes
from hf_robustvit.commands.guidance import after_masks
from hf_robustvit.commands.settings import check_output_dir, start_log
from hf_robustvit.data import NO_FLAGS, MaskReading
from hf_robustvit.data.mask_folder import find_masks
from hf_robustvit.data.pairs import refuse_unclear
from hf_robustvit.errors import UserError, unknown_name
from hf_robustvit.files import sole_run
from hf_robustvit.flags.masks import MaskArguments
from hf_robustvit.masks import SOURCES, BoxMasks, MaskFolder, QualityGate, options_of
from hf_robustvit.masks.contact_sheet import contact_sheet
from hf_robustvit.masks.folder import Masker, summary
from hf_robustvit.masks.prompts import Prompts, read_overrides
from hf_robustvit.masks.text_models import OUTLINING
from hf_robustvit.models.files import read_model_config, weights_to_download
from hf_robustvit.terminal import only_warnings


BOXES = "boxes"  # the source that is no network, and needs a file instead


def main(arguments: MaskArguments, gate: QualityGate, reading: MaskReading, *mask_options: Any) -> None:
    """Make the masks, and say how many there are."""
    state = PartialState(cpu=not torch.accelerator.is_available())  # else processes on CPUs would not know each other
    start_log(state.is_main_process)
    check_output_dir(arguments.output_dir)
    with state.main_process_first():
        rows = load_images(arguments.images)
    with sole_run(arguments.output_dir, state.is_main_process and not arguments.dry_run):
        summary = make_masks(arguments, rows, state, mask_options, gate, reading)
    if state.is_main_process:
        print(summary)
    state.destroy_process_group()  # several processes part before they exit


def _masker(arguments: MaskArguments, source: str, mask_options: Sequence[Any], device: torch.device) -> Masker:
    if source != BOXES:
        return SOURCES[source].masker(options_of(source, mask_options), device)
    if not arguments.boxes:
        raise UserError("--source boxes needs --boxes: give a COCO .json file, a Pascal VOC .xml file or a folder.")
    return BoxMasks(arguments.boxes)


def _plan(
    arguments: MaskArguments,
    source: str,
    rows: datasets.Dataset,
    mask_options: Sequence[Any],
    gate: QualityGate,
    reading: MaskReading,
    state: PartialState,
) -> str:
    """What a run would download and make; it refuses what can be seen to fail without the download.

    Where nothing is to be downloaded, the masks of two batches are made, and not kept, to see what all would take.
    """
    image_ids, device, to_download = rows["image_id"][:], state.device, 0
    lines, networks = [], {} if source == BOXES else SOURCES[source].networks
    masker = None if networks else _masker(arguments, source, mask_options, device)
    missing = MaskFolder(arguments.output_dir, masker.settings if masker else {}, gate).missing(image_ids)
    if source == BOXES:
        masker.check(image_ids)
    if source == "text":
        Prompts(image_ids, read_overrides(options_of(source, mask_options).prompts))
    for flag, known in networks.items():
        options = options_of(source, mask_options)
        name, revision = getattr(options, flag), getattr(options, f"{flag}_revision")
        try:
            config = read_model_config(name, revision, known)  # refuses what cannot be had
            size = weights_to_download(name, revision)
        except UserError as error:
            raise UserError(str(error).replace("--model:", f"--{flag}:", 1)) from error
        to_download += size
        found = f"{size / 1e6:.1f} MB to download" if size else "on this machine"
        lines.append(f"--{flag} {name}: {found}.")
        if config.get("model_type") in OUTLINING:
            break
    if missing and not to_download and state.num_processes == 1:
        masker = masker or _masker(arguments, source, mask_options, device)
        lines = [*_trial(rows, masker, gate, arguments.batch_size, reading, len(missing), device), *lines]
    lines.append(
        f"{len(missing)} of {len(image_ids)} masks would be made in {arguments.output_dir}. Nothing was made."
    )
    return "\n".join(lines)


def _trial(
    rows: datasets.Dataset,
    masker: Masker,
    gate: QualityGate,
    batch_size: int,
    reading: MaskReading,
    count: int,
    device: torch.device,
) -> list[str]:
    """Make the masks of the first two batches, and say what `count` of them would take."""
    with only_warnings(), tempfile.TemporaryDirectory() as place:
        folder, seconds = MaskFolder(place, masker.settings, gate), 0.0
        for _ in range(2):  # the first also warms up
            before = dict(folder.made)
            records = folder.fill(rows, masker, batch_size, reading, limit=batch_size)
            if made := folder.made["images"] - before["images"]:
                seconds = (folder.made["seconds"] - before["seconds"]) / made
    accepted = sum(record["accepted"] for record in records.values())
    return [
        f"images: {len(rows)} found",
        f"masks: {accepted} of {len(records)} that were tried accepted",
        f"a mask: {seconds:.2f} s on {device.type}, so {timedelta(seconds=round(count * seconds))} in all",
        f"memory: {peak_bytes() / 1e9:.2f} GB at most",
    ]


def make_masks(
    arguments: MaskArguments,
    rows: datasets.Dataset,
    state: PartialState,
    mask_options: Sequence[Any],
    gate: QualityGate,
    reading: MaskReading = NO_FLAGS,
) -> str:
    """Make the masks that are missing, and judge all of them.

    Args:
        arguments: The images, and where their masks go.
        rows: The images: `image` and `image_id`.
        state: The processes and the device.
        mask_options: The settings of the sources, one of each of `masks.OPTIONS`.
        gate: Which masks are accepted.
        reading: How annotated masks are read.

    Returns:
        How many masks there are, and where, in the main process.

    Raises:
        UserError: There is no such source; the images, the annotated masks or the boxes do not fit; or no image
            gives a mask that the gate could judge.
    """
    files = {BOXES: ("boxes", arguments.boxes)}
    files |= {"saliency": ("saliency_model", options_of("saliency", mask_options).saliency_model)}
    files |= {"text": ("prompts", options_of("text", mask_options).prompts)}
    source = arguments.source or next((name for name, (_, file) in files.items() if file), "tokencut")
    if source not in (*SOURCES, BOXES):
        raise unknown_name("--source", source, (*SOURCES, BOXES))
    for name, (flag, file) in files.items():
        if file and source != name:
            raise UserError(f"--{flag} {file} is not used by --source {source}: leave one of the two flags out.")
    if arguments.batch_size < 1:
        raise UserError(f"--batch_size must be at least 1, found {arguments.batch_size}.")
    if arguments.annotated:
        rows = rows.add_column("mask", find_masks(rows["image_id"], arguments.annotated))
        rows = rows.cast_column("mask", datasets.Image())
        refuse_unclear(rows, reading)
    if arguments.agree_with:
        if source == BOXES:
            raise UserError("--agree_with judges masks that a network makes, not boxes: leave it out.")
        rows = rows.add_column("other", find_masks(rows["image_id"], arguments.agree_with))
        rows = rows.cast_column("other", datasets.Image(decode=False))
    if arguments.dry_run:
        return _plan(arguments, source, rows, mask_options, gate, reading, state)
    masker = _masker(arguments, source, mask_options, state.device)
    folder = MaskFolder(arguments.output_dir, masker.settings, gate)
    records = folder.fill(rows, masker, arguments.batch_size, reading)
    sheet = Path(arguments.output_dir) / "contact_sheet.png"
    if state.is_main_process:
        contact_sheet(sheet, rows, records, arguments.output_dir)
    if any(record["accepted"] for record in records.values()):
        labels = zip(rows["image_id"][:], rows["label"][:], strict=True) if "label" in rows.column_names else ()
        place = after_masks(arguments, Counter(label for name, label in labels if records[name]["accepted"]))
    elif any("area" in record for record in records.values()):
        place = "No mask was accepted, so there is nothing to train with yet: do as the sentences above say."
    else:
        first = next(iter(records))
        raise UserError(
            f"{masker.origin}: none of the {len(records)} images got a mask (first: {first}: "
            f"{records[first]['reason']}): {folder.report_path} gives the reason for each image."
        )
    return f"{summary(records)}\n{place}"
