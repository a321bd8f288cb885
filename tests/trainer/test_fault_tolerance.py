"""Runs that are killed, stopped or out of room: what goes on from them ends with the same weights, bit for bit."""

import errno
import json
import os
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import run_forked
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from tiny_models import tiny_model
from tiny_pairs import make_trainer
from transformers import ViTImageProcessorPil

import run_finetune
from hf_robustvit.errors import UserError
from hf_robustvit.trainer import checkpoints
from hf_robustvit.trainer.checkpoints import (
    check_room,
    checkpoint_bytes,
    is_whole,
    last_whole_checkpoint,
    raise_if_full,
)
from hf_robustvit.trainer.trainer import RobustViTTrainer


STEPS = 12  # 8 images in batches of 2, for 3 epochs


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_step(step: int, act) -> None:
    """Let `act` happen in the middle of a step, counted from 1."""
    training_step = RobustViTTrainer.training_step

    def sabotaged(self, *args, **kwargs):
        if self.state.global_step + 1 == step:
            act()
        return training_step(self, *args, **kwargs)

    RobustViTTrainer.training_step = sabotaged


def at_file(name: str, number: int, act) -> None:
    """Let `act` happen when half of a file of this name is written, for the `number`th time."""
    save, calls = torch.save, []

    def sabotaged(content, path, *args, **kwargs):
        save(content, path, *args, **kwargs)
        if Path(path).name == name:
            calls.append(path)
            if len(calls) == number:
                os.truncate(path, os.path.getsize(path) // 2)
                act()

    torch.save = sabotaged


def before_the_model_is_saved() -> None:
    RobustViTTrainer.save_model = kill_instead_of_saving(RobustViTTrainer.save_model)


def kill_instead_of_saving(save_model):
    def sabotaged(self, output_dir=None, _internal_call=False):
        if not _internal_call:
            kill()
        save_model(self, output_dir, _internal_call)

    return sabotaged


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model, and two classes of five images with masks."""
    folder = tmp_path_factory.mktemp("fault-tolerance")
    rng = np.random.default_rng(0)
    for class_name in ("ant", "bee"):
        for kind in ("images", "masks"):
            (folder / "data" / kind / class_name).mkdir(parents=True)
        for number in range(5):
            mask = np.zeros((40, 40), dtype=np.uint8)
            mask[10:25, 12:30] = 255
            image = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(image).save(folder / "data" / "images" / class_name / f"{number}.png")
            Image.fromarray(mask).save(folder / "data" / "masks" / class_name / f"{number}.png")
    tiny_model("vit").save_pretrained(folder / "model")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder / "model")
    return folder


def flags(folder, out, *more):
    """Checkpoints every 3 steps, so that they come in the middle of epochs, of the log and of the augmentation."""
    return [
        *("--model", folder / "model", "--dataset", folder / "data", "--output_dir", out, "--use_cpu"),
        *("--samples_per_class", 4, "--per_device_train_batch_size", 2, "--num_train_epochs", 3),
        *("--learning_rate", 1e-3, "--save_strategy", "steps", "--save_steps", 3, "--eval_strategy", "steps"),
        *("--eval_steps", 3, "--load_best_model_at_end", "true", "--disable_tqdm", "true", *more),
    ]


def outcome(out, log):
    """What a run leaves: its weights, its log without times, and the table it prints."""
    history = [
        {name: value for name, value in entry.items() if not name.endswith(("_runtime", "_time", "_per_second"))}
        for entry in json.loads((out / "trainer_state.json").read_text())["log_history"]
        if "train_loss" not in entry  # a mean over the steps since the start or the last resumption
    ]
    table = [line for line in log.splitlines() if line.startswith("|")]
    assert len(history) > 6 and len(table) > 5
    return {name: weight.numpy().tobytes() for name, weight in load_file(out / "model.safetensors").items()}, (
        history,
        table,
    )


@pytest.fixture(scope="module")
def undisturbed(folder):
    out = folder / "undisturbed"
    status, log = run_forked(run_finetune.main, flags(folder, out), folder / "log")
    assert status == 0, log
    return outcome(out, log)


def assert_resumes_like(undisturbed, folder, out):
    arguments = flags(folder, out, "--resume_from_checkpoint", "true")
    status, log = run_forked(run_finetune.main, arguments, folder / "log")
    assert status == 0, log
    weights, shown = outcome(out, log)
    assert weights == undisturbed[0]
    (history, table), (wanted_history, wanted_table) = shown, undisturbed[1]
    assert table == wanted_table
    broken = [pair for pair in zip(history, wanted_history, strict=True) if pair[0] != pair[1]]
    assert len(broken) <= 1  # the epoch that was broken off is logged from the resumption on
    for found, wanted in broken:
        assert "loss" in found and all(found[key] == wanted[key] for key in ("step", "epoch", "learning_rate"))


SABOTAGES = {
    **{f"step {step}": lambda step=step: at_step(step, kill) for step in random.Random(0).sample(range(4, STEPS), 3)},
    "before the first checkpoint": lambda: at_step(2, kill),
    "first checkpoint half written": lambda: at_file("optimizer.pt", 1, kill),
    "third checkpoint half written": lambda: at_file("rng_state.pth", 3, kill),
    "trained but not saved": before_the_model_is_saved,
}


@pytest.mark.parametrize("sabotage", SABOTAGES.values(), ids=SABOTAGES)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(sabotage, folder, undisturbed, tmp_path):
    status, _ = run_forked(run_finetune.main, flags(folder, tmp_path / "out"), folder / "log", sabotage)
    assert status == -signal.SIGKILL
    assert_resumes_like(undisturbed, folder, tmp_path / "out")


@pytest.mark.parametrize(("number", "step"), [(signal.SIGINT, 5), (signal.SIGTERM, 8)])
def test_a_signal_saves_a_checkpoint_and_tells_how_to_go_on(number, step, folder, undisturbed, tmp_path):
    out = tmp_path / "out"
    status, log = run_forked(
        run_finetune.main,
        flags(folder, out),
        folder / "log",
        lambda: at_step(step, lambda: os.kill(os.getpid(), number)),
    )
    assert status == 128 + number, log
    assert f"Stopped by {number.name} after step {step} of {STEPS}" in log
    assert "--resume_from_checkpoint true" in log and "Traceback" not in log
    assert last_whole_checkpoint(str(out)).endswith(f"checkpoint-{step}")
    assert not (out / "model.safetensors").exists()
    assert_resumes_like(undisturbed, folder, out)


def test_a_full_disk_leaves_the_last_checkpoint(folder, undisturbed, tmp_path):
    def no_room():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "out"
    status, log = run_forked(
        run_finetune.main, flags(folder, out), folder / "log", lambda: at_file("optimizer.pt", 2, no_room)
    )
    assert status == 2
    assert "a checkpoint could not be written (the disk or the quota is full)" in log
    assert f"the last whole checkpoint is {out / 'checkpoint-3'}" in log
    assert is_whole(out / "checkpoint-3") and not is_whole(out / "checkpoint-6")
    assert_resumes_like(undisturbed, folder, out)


def test_room_is_asked_for_before_training(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path / "out")
    weights = sum(weight.numel() for weight in trainer.model.parameters())
    assert checkpoint_bytes(trainer.model) == 3 * 4 * weights
    needed = 3 * checkpoint_bytes(trainer.model)  # two are kept, and one more is written
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: usage._replace(free=needed))
    check_room(trainer.args, trainer.model)
    assert os.listdir(tmp_path / "out") == []
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: usage._replace(free=needed - 1))
    with pytest.raises(UserError, match=r"--output_dir .*out cannot take the .* GB .* GB are free: make room, keep"):
        check_room(trainer.args, trainer.model)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "Make room"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "Make room"),
        (SafetensorError(f"I/O error: {os.strerror(errno.EDQUOT)} (os error 122)"), "Make room"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES)), "Mend that"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), "Mend that"),
    ],
)
def test_only_a_full_disk_asks_for_room(error, advice, tmp_path):
    trainer = make_trainer(tmp_path)
    with pytest.raises(UserError, match=f"no complete checkpoint yet. {advice} and start") as told:
        raise_if_full(trainer.args, trainer.model, error)
    assert ("the disk or the quota is full" if advice == "Make room" else str(error)) in str(told.value)
    assert raise_if_full(trainer.args, trainer.model, ValueError("a bug")) is None


def test_a_folder_that_cannot_be_written_to_is_noticed_before_training(folder, tmp_path):
    (tmp_path / "file").write_text("")
    status, log = run_forked(run_finetune.main, flags(folder, tmp_path / "file" / "out"), folder / "log")
    assert status == 2
    assert "cannot take the" in log and "Not a directory" in log


@pytest.mark.parametrize("file", ["trainer_state.json", "model.safetensors", "scheduler.pt"])
def test_what_is_not_whole_is_not_resumed_from(file, tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.train()
    last = last_whole_checkpoint(str(tmp_path))
    assert last == str(tmp_path / "checkpoint-4")
    (tmp_path / "checkpoint-4" / file).unlink()
    assert last_whole_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-2")
    trainer.args.resume_from_checkpoint = last
    with pytest.raises(UserError, match="checkpoint-4 is not a complete checkpoint"):
        checkpoints.checkpoint_to_resume(trainer.args)


def test_a_checkpoint_that_is_written_over_is_not_whole_meanwhile(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path)
    trainer.train()
    assert is_whole(tmp_path / "checkpoint-4")

    def broken(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(trainer.model, "save_pretrained", broken)
    with pytest.raises(UserError, match="could not be written"):
        trainer._save_checkpoint(trainer.model, trial=None)
    assert not is_whole(tmp_path / "checkpoint-4")
