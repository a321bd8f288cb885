"""What happens around the steps: whole epochs, progress, Ctrl-C and SIGTERM, and where TensorBoard writes."""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator

from accelerate import Accelerator
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.integrations.integration_utils import default_logdir

from hf_robustvit.data import AugmentedPairs
from hf_robustvit.terminal import log_tenth


logger = logging.getLogger(__name__)


class EpochCallback(TrainerCallback):
    """Keeps epochs complete in runs that may be interrupted.

    The training data learn of each new epoch, so that they can draw anew. A checkpoint that falls on an epoch's
    last step is saved after the log and the evaluation of the epoch's end, which a run resumed from it would miss; one
    that is resumed where `max_steps` had ended it has both.
    """

    def __init__(self):
        self.postponed = self.is_over = False

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        dataset = kwargs["train_dataloader"].dataset
        if isinstance(dataset, AugmentedPairs):
            dataset.set_epoch(int(state.epoch))
        self.is_over = state.global_step >= state.max_steps

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        if control.should_save and (float(state.epoch).is_integer() or state.global_step >= state.max_steps):
            control.should_save, self.postponed = False, True

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        if self.is_over:
            control.should_evaluate = control.should_save = False
        control.should_save, self.postponed = control.should_save or self.postponed, False


class TenthsCallback(TrainerCallback):
    """Logs every tenth of a run with the time that is left: for a log file, where a progress bar is of no use."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        self.began, self.first_step = time.monotonic(), state.global_step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        if state.is_world_process_zero:
            log_tenth("Step", state.global_step, state.max_steps, self.began, self.first_step)


class Interruption(KeyboardInterrupt):
    """Training was stopped by a signal, and its checkpoint is saved; the message says how to continue.

    Attributes:
        exit_status: What a shell expects of a process that ends by this signal: 128 and the signal's number.
    """

    def __init__(self, message: str, exit_status: int):
        super().__init__(message)
        self.exit_status = exit_status


class InterruptionCallback(TrainerCallback):
    """Ends training after the step in which a signal arrived in any of the processes.

    Args:
        accelerator: Passes the signal on to the other processes.
    """

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.signal: int | None = None
        self.stopping = False

    @contextlib.contextmanager
    def catching_signals(self) -> Iterator[None]:
        """Note SIGINT and SIGTERM instead of ending at once; with one process a second signal does end it at once."""
        if threading.current_thread() is not threading.main_thread():  # Python handles signals in the main thread only
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def note(number: int, frame) -> None:
            self.signal = number
            # A launcher of several processes passes on a signal that they have already received.
            if self.accelerator.num_processes == 1:
                signal.signal(number, before[number])
            logger.warning("Stopping after this step (%s).", signal.Signals(number).name)

        try:
            for number in before:
                signal.signal(number, note)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        if self.signal is not None:
            self.accelerator.set_trigger()
        self.stopping = self.stopping or self.accelerator.check_trigger()
        control.should_save = control.should_save or self.stopping

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        if not self.stopping:
            return
        self.accelerator.wait_for_everyone()
        number = self.signal or signal.SIGTERM
        raise Interruption(
            f"Stopped by {signal.Signals(number).name} after step {state.global_step} of {state.max_steps}; "
            f"{os.path.join(args.output_dir, f'checkpoint-{state.global_step}')} is saved. "
            "Start the same command with --resume_from_checkpoint true to go on.",
            128 + number,
        )


def place_tensorboard(callbacks: Iterable[TrainerCallback], output_dir: str) -> None:
    """Let TensorBoard write into the output folder.

    It would only learn of that folder when training begins; the log of an evaluation before that went to ./runs.
    """
    for callback in callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = os.path.join(output_dir, default_logdir())
