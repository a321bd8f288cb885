"""Checkpoints that can be resumed from: which of a folder's are whole, and whether there is room for more."""

import json
import logging
import os
import shutil
import tempfile
from pathlib import Path

from torch import nn
from transformers import TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import sort_checkpoints

from hf_robustvit.errors import UserError
from hf_robustvit.files import is_full
from hf_robustvit.record import TRAINING_RECORD, TrainingRecord


logger = logging.getLogger(__name__)

# What belongs to a checkpoint besides trainer_state.json, for any number of processes and kind of sharding.
CHECKPOINT_FILES = ("*model*", "optimizer*", "scheduler.pt")


def is_whole(checkpoint: str | Path) -> bool:
    """Whether a checkpoint was written to its end, and not removed in part.

    trainer_state.json is written last, so a run that is killed while it writes a checkpoint leaves none, or half of
    one. A run that is killed while it removes an old checkpoint leaves some files out. Of several processes the others
    may write their random state later.
    """
    folder = Path(checkpoint)
    try:
        json.loads((folder / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    has_record = (folder / TRAINING_RECORD).is_file()
    num_processes = TrainingRecord.read(folder).num_processes if has_record else None
    num_states = len(list(folder.glob("rng_state*.pth")))
    return num_states >= (num_processes or 1) and all(any(folder.glob(pattern)) for pattern in CHECKPOINT_FILES)


def begin_checkpoint(checkpoint: Path) -> None:
    """Make a folder that an earlier run has left count as no whole checkpoint while it is written over."""
    (checkpoint / TRAINER_STATE_NAME).unlink(missing_ok=True)


def last_whole_checkpoint(output_dir: str) -> str | None:
    """The last checkpoint of a run that can be resumed from, if there is any."""
    for checkpoint in reversed(sort_checkpoints(output_dir)):
        if is_whole(checkpoint):
            return checkpoint
        logger.warning("%s is not whole, as the run ended while it was written: it is left out.", checkpoint)
    return None


def checkpoint_to_resume(config: TrainingArguments) -> str | None:
    """The checkpoint that `resume_from_checkpoint` names, where "true" means the last whole one, if there is any.

    Raises:
        UserError: It names one that is not whole, or none although the output folder holds an earlier run, which is
            not written over unasked.
    """
    wanted = config.resume_from_checkpoint
    if wanted is None and (checkpoints := sort_checkpoints(config.output_dir)):
        raise UserError(
            f"--output_dir {config.output_dir} holds an earlier run ({os.path.basename(checkpoints[-1])}): continue "
            "it with --resume_from_checkpoint true, or name another folder."
        )
    if str(wanted).lower() == "true":
        return last_whole_checkpoint(config.output_dir)
    if wanted is not None and not is_whole(wanted):
        raise UserError(
            f"--resume_from_checkpoint {wanted} is not a complete checkpoint: name another, or take the last complete "
            "one by --resume_from_checkpoint true."
        )
    return wanted


def checkpoint_bytes(model: nn.Module) -> int:
    """The size of a checkpoint of an AdamW run: all weights, and two more numbers for each that is trained."""
    return sum(weight.nbytes * (3 if weight.requires_grad else 1) for weight in model.parameters())


def check_room(config: TrainingArguments, model: nn.Module) -> None:
    """Check that the output folder can be written to and takes the checkpoints that will be kept in it.

    Raises:
        UserError: It cannot.
    """
    kept = 0 if config.save_strategy == "no" else (config.save_total_limit or 1) + 1  # one more while it is written
    missing = max(kept - len(sort_checkpoints(config.output_dir)), 1)
    num_bytes = missing * checkpoint_bytes(model)
    try:
        os.makedirs(config.output_dir, exist_ok=True)
        with tempfile.TemporaryFile(dir=config.output_dir):
            free = shutil.disk_usage(config.output_dir).free
    except OSError as error:
        advice = "make room, or" if is_full(error) else "make it writable, or"
        raise UserError(
            f"--output_dir {config.output_dir} cannot take the run's checkpoints ({error.strerror}): {advice} name "
            "another folder."
        ) from error
    if free < num_bytes:
        raise UserError(
            f"--output_dir {config.output_dir} cannot take the {num_bytes / 1e9:.2g} GB of the run's checkpoints, as "
            f"{free / 1e9:.2g} GB are free: make room, keep fewer by --save_total_limit, or name another folder."
        )


def raise_if_full(config: TrainingArguments, model: nn.Module, error: Exception) -> None:
    """Tell a user whose checkpoint could not be written what to do.

    Args:
        config: The run's settings.
        model: What is trained.
        error: What writing the checkpoint raised.

    Raises:
        UserError: The disk or the quota is full, or the folder cannot be written to for another reason.
    """
    if is_full(error) or shutil.disk_usage(config.output_dir).free < checkpoint_bytes(model):
        reason, advice = "the disk or the quota is full", "Make room"
    elif isinstance(error, OSError):
        reason, advice = error, "Mend that"
    else:
        return
    last = last_whole_checkpoint(config.output_dir)
    kept = f"the last whole checkpoint is {last}" if last else "there is no complete checkpoint yet"
    raise UserError(
        f"--output_dir {config.output_dir}: a checkpoint could not be written ({reason}), and {kept}. {advice} and "
        "start the same command with --resume_from_checkpoint true."
    ) from error
