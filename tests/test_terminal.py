"""Progress without a terminal, and the next command as it would be typed."""

import logging
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hf_robustvit import terminal
from hf_robustvit.terminal import command_line, only_warnings, progress


@pytest.fixture
def in_a_file(monkeypatch, caplog):
    """No terminal, and a clock on which two seconds pass between any two looks."""
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(terminal, "has_terminal", lambda: False)
    caplog.set_level(logging.INFO)


def test_without_a_terminal_each_tenth_is_a_line(in_a_file, caplog, capsys):
    assert list(progress(range(0, 100, 4), "photos", "batch")) == list(range(0, 100, 4))
    assert caplog.messages[:2] == [
        "photos: batch 3 of 25 (12 %), about 0:00:15 left.",  # 2 s for 3, 22 are left
        "photos: batch 5 of 25 (20 %), about 0:00:16 left.",  # 4 s for 5, 20 are left
    ]
    assert len(caplog.messages) == 10 and caplog.messages[-1].endswith("25 of 25 (100 %), about 0:00:00 left.")
    assert capsys.readouterr().err == ""


def test_few_items_are_a_line_each_and_none_are_none(in_a_file, caplog):
    assert list(progress("ab", "maps", "image")) == ["a", "b"]
    assert [message.split(",")[0] for message in caplog.messages] == [
        "maps: image 1 of 2 (50 %)",
        "maps: image 2 of 2 (100 %)",
    ]
    caplog.clear()
    assert list(progress([], "maps", "image")) == [] and not caplog.messages


def test_other_processes_are_silent(in_a_file, caplog, capsys):
    assert list(progress("abc", "maps", "image", shown=False)) == ["a", "b", "c"]
    assert not caplog.messages and capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch, caplog, capsys):
    monkeypatch.setattr(terminal, "has_terminal", lambda: True)
    caplog.set_level(logging.INFO)
    assert list(progress("abc", "maps", "image")) == ["a", "b", "c"]
    assert not caplog.messages and "maps: 100%" in capsys.readouterr().err


@pytest.mark.parametrize(
    "started, is_on_path, expected",
    [
        ("/env/bin/hf-robustvit", True, "hf-robustvit eval --model 'my model'"),
        ("/env/bin/hf-robustvit", False, "/env/bin/hf-robustvit eval --model 'my model'"),
        ("run_finetune.py", True, "PYTHON run_eval.py --model 'my model'"),
        ("elsewhere/run_finetune.py", True, "PYTHON -m hf_robustvit eval --model 'my model'"),
        ("/site/hf_robustvit/__main__.py", True, "PYTHON -m hf_robustvit eval --model 'my model'"),
    ],
)
def test_the_next_command_begins_as_this_one(started, is_on_path, expected, monkeypatch, tmp_path):
    (tmp_path / "run_eval.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [started, "finetune"])
    monkeypatch.setattr(sys, "orig_argv", ["PYTHON", *sys.argv])
    monkeypatch.setattr(terminal.shutil, "which", lambda name: "/env/bin/hf-robustvit" if is_on_path else None)
    assert command_line("eval", "--model", Path("my model")) == expected


def test_the_command_that_is_printed_runs(tmp_path):
    root = Path(__file__).parents[1]
    script = f"import sys; sys.argv = ['x/run_masks.py']; sys.path.insert(0, {str(root)!r})\n"
    script += "from hf_robustvit.terminal import command_line; print(command_line('push', '--help'))"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    done = subprocess.run(shlex.split(told), cwd=root, capture_output=True, text=True)
    assert done.stdout.startswith("usage: hf-robustvit push")


def test_a_trial_that_fails_does_not_silence_what_follows(caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(ValueError), only_warnings():
        logging.info("tried")
        logging.warning("look")
        raise ValueError
    logging.info("made")
    assert caplog.messages == ["look", "made"]
