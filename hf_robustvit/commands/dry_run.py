"""What a fine-tuning run will take, measured before it starts."""

import copy
import math
import re
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import datasets
import psutil
import torch
from transformers import DefaultFlowCallback, TrainerCallback, TrainingArguments

from hf_robustvit.terminal import only_warnings
from hf_robustvit.trainer.checkpoints import checkpoint_bytes
from hf_robustvit.trainer.trainer import RobustViTTrainer


STEPS = 2


class StepTimes(TrainerCallback):
    """Notes when each step ends, so that the time between two has the reading of a batch in it."""

    def __init__(self):
        self.ends: list[float] = []

    def on_step_end(self, args: TrainingArguments, *_, **kwargs) -> None:
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        self.ends.append(time.perf_counter())


def dry_run(trainer: RobustViTTrainer, pairs: datasets.Dataset, chosen: int) -> str:
    """Take two steps, save nothing, and say what the whole run would take.

    Args:
        trainer: Ready to train; its model is worth nothing afterwards.
        pairs: The whole data set.
        chosen: How many training images were chosen, of which the trainer has those whose masks are accepted.

    Returns:
        Images, masks, steps, seconds a step, memory and the size of the checkpoints, one a line.
    """
    config, training, validation = trainer.args, trainer.train_dataset, trainer.eval_dataset
    epochs, *_, steps = trainer.set_initial_training_values(config, trainer.get_train_dataloader())
    times = StepTimes()
    with tempfile.TemporaryDirectory() as folder:
        trainer.args = copy.copy(config)
        trainer.args.output_dir, trainer.args.max_steps = folder, STEPS
        trainer.args.save_strategy = trainer.args.eval_strategy = trainer.args.logging_strategy = "no"
        trainer.args.load_best_model_at_end = False
        trainer.callback_handler.callbacks = [DefaultFlowCallback(), times]
        with only_warnings():
            trainer.train()
            few = validation.select(range(min(len(validation), STEPS * config.eval_batch_size)))
            evaluation = trainer.evaluate(few)["eval_runtime"] * len(validation) / len(few)
    seconds = times.ends[1] - times.ends[0]  # the first also warms up
    every = config.eval_steps or 1
    between = {"epoch": math.ceil(epochs), "steps": steps // (every if every >= 1 else math.ceil(steps * every))}
    evaluations = 2 + between.get(config.eval_strategy, 0)  # one before and one after
    size, batch = checkpoint_bytes(trainer.model), trainer.get_total_train_batch_size(config)
    kept = config.save_total_limit
    number = "none is" if config.save_strategy == "no" else "all are" if kept is None else f"{kept} at a time are"
    lines = {
        "images": f"{len(pairs)} found, {chosen} chosen to train on, {len(validation)} to validate",
        "masks": f"{len(training)} of {chosen} accepted",
        "steps": f"{steps} of {batch} images",
        "a step": f"{seconds:.2f} s on {config.device.type}, so {timedelta(seconds=round(steps * seconds))} in all",
        "an evaluation": f"{evaluation:.2f} s, so {timedelta(seconds=round(evaluations * evaluation))} for all "
        f"{evaluations}",
        "memory": f"{peak_bytes() / 1e9:.2f} GB at most",
        "checkpoints": f"{size / 1e6:.1f} MB each, {number} kept in {config.output_dir}",
    }
    return "\n".join(f"{name}: {value}" for name, value in lines.items()) + "\nNothing was trained or saved."


def peak_bytes() -> int:
    """The most memory that was in use: the accelerator's, or this process's where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "linux":  # not getrusage, in which a process inherits the peak of the one that started it
        return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # which Windows has not

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
