"""`--dry_run` of fine-tuning, progress without a terminal, and what is printed at the end."""

import logging
import re
import sys

import pytest
from photo_folder import finetune, save_model, save_photos
from PIL import Image
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_robustvit.commands.guidance import after_evaluation
from hf_robustvit.flags.evaluate import EvaluationArguments
from hf_robustvit.trainer import callbacks
from hf_robustvit.trainer.callbacks import TenthsCallback


@pytest.fixture
def flags(tmp_path):
    """A run on 3 classes with 2 images each, one of which has an empty mask: 5 images, 3 steps of 2 an epoch."""
    photos = save_photos(tmp_path / "photos")
    Image.new("L", (40, 40)).save(photos / "masks/ant/0.png")
    model = save_model(tmp_path / "model", ("ant", "bee", "cow"))
    return (
        *("--model", model, "--dataset", photos, "--output_dir", tmp_path / "out", "--skip_unreadable"),
        *("--samples_per_class", 2, "--per_device_train_batch_size", 2, "--num_train_epochs", 4, "--max_steps", -1),
    )


def test_a_dry_run_measures_and_saves_nothing(flags, tmp_path, monkeypatch, capsys):
    finetune(monkeypatch, *flags, "--dry_run")
    told = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines() if ": " in line)
    assert told["images"] == "15 found, 6 chosen to train on, 3 to validate"
    assert told["masks"] == "5 of 6 accepted"
    assert told["steps"] == "12 of 2 images"
    seconds, whole = re.match(r"([\d.]+) s on cpu, so 0:00:(\d\d) in all", told["a step"]).groups()
    assert abs(12 * float(seconds) - int(whole)) < 1
    seconds, whole = re.match(r"([\d.]+) s, so 0:00:(\d\d) for all 6", told["an evaluation"]).groups()
    assert abs(6 * float(seconds) - int(whole)) < 1
    assert 0.1 < float(told["memory"].split()[0]) < 10
    weights = (tmp_path / "model" / "model.safetensors").stat().st_size
    assert float(told["checkpoints"].split()[0]) == pytest.approx(3 * weights / 1e6, abs=0.1)
    assert not any(path.is_file() for path in (tmp_path / "out").rglob("*"))
    finetune(monkeypatch, *flags)  # the real one finds nothing in its way
    told = capsys.readouterr().out
    out = tmp_path / "out"
    assert f"The model is in {out}, its card is {out}/README.md" in told and (out / "README.md").is_file()
    assert (
        f"{sys.orig_argv[0]} run_eval.py --model {out} --baseline {tmp_path / 'model'} --dataset TEST_PHOTOS" in told
    )


def test_every_tenth_is_logged_with_the_time_left(monkeypatch, caplog):
    clock = iter(range(0, 1000, 2))  # a step takes two seconds
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: next(clock))
    arguments, control, callback = TrainingArguments("out", use_cpu=True), TrainerControl(), TenthsCallback()
    state = TrainerState(max_steps=30, global_step=0, is_world_process_zero=True)
    with caplog.at_level(logging.INFO):
        callback.on_train_begin(arguments, state, control)
        for step in range(1, 31):
            state.global_step = step
            callback.on_step_end(arguments, state, control)
    assert len(caplog.messages) == 10
    assert caplog.messages[0].startswith("Step 3 of 30 (10 %), about 0:00:")
    assert caplog.messages[-1] == "Step 30 of 30 (100 %), about 0:00:00 left."
    caplog.clear()
    state.max_steps = 4  # fewer steps than tenths: each is logged once
    with caplog.at_level(logging.INFO):
        for step in range(1, 5):
            state.global_step = step
            callback.on_step_end(arguments, state, control)
    assert [message.split(",")[0] for message in caplog.messages] == [
        *("Step 1 of 4 (25 %)", "Step 2 of 4 (50 %)", "Step 3 of 4 (75 %)", "Step 4 of 4 (100 %)")
    ]


def test_after_an_evaluation_the_next_command_is_named(tmp_path):
    arguments = EvaluationArguments("some/model", ["cutouts"], str(tmp_path))
    assert after_evaluation(arguments).splitlines() == [
        f"The results are in {tmp_path}/results.md, and maps on their images in {tmp_path}/overlays."
    ]
    (tmp_path / "README.md").write_text("")
    arguments = EvaluationArguments(str(tmp_path), ["cutouts"], "out", report=True, update_card=True)
    assert after_evaluation(arguments).splitlines()[1:] == [
        "The report is out/report.html.",
        f"The model's card is {tmp_path}/README.md.",
        f"Push the model with: {sys.orig_argv[0]} -m hf_robustvit push {tmp_path} USER/{tmp_path.name}",
    ]
