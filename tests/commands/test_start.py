"""The commands: help and mistakes before anything heavy is imported, and the table that every way in shares."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import TrainingArguments

from hf_robustvit import RobustViTConfig
from hf_robustvit.__main__ import main
from hf_robustvit.commands.settings import flags_of_source
from hf_robustvit.commands.start import COMMANDS
from hf_robustvit.errors import UserError
from hf_robustvit.experiments.catalogue import EXPERIMENTS
from hf_robustvit.flags import experiment, finetune, masks
from hf_robustvit.losses import LOSSES
from hf_robustvit.masks import SOURCES


ROOT = Path(__file__).parents[2]
# Imported, each of these takes a second or more.
HEAVY = ("torch", "datasets", "accelerate", "pandas", "matplotlib", "scipy")
REPORT = """
import atexit, runpy, sys
atexit.register(lambda: print("HEAVY", *(name for name in {heavy} if name in sys.modules)))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", REPORT.format(heavy=HEAVY), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["run_finetune.py", "--help"], "--per_device_train_batch_size"),
        (["run_finetune.py", "--model", "m", "--lerning_rate", "3"], "Did you mean --learning_rate"),
        (["run_eval.py", "--model", "m"], "the following arguments are required: --dataset"),
        (["run_eval.py", "--model", "m", "--dataset", "cutouts", "--output_dir", "out"], "--model: there is no 'm'"),
        (["run_finetune.py", "--model", "cutout-vit"], "Did you mean cutouts-vit?"),
        (["run_experiment.py", "tabel1"], "experiment: there is no 'tabel1'. Did you mean table1"),
        (["hf_robustvit/__main__.py", "finetune", "--help"], "usage: hf-robustvit finetune"),
        (["hf_robustvit/__main__.py", "--help"], "Print the versions that belong in a bug report."),
    ],
)
def test_help_and_mistakes_import_nothing_heavy(arguments, told):
    done = run(ROOT / arguments[0], *arguments[1:])
    assert told in done.stdout + done.stderr
    assert done.returncode == (0 if "--help" in arguments else 2)
    assert done.stdout.splitlines()[-1] == "HEAVY"


def test_flags_are_read_from_source_as_they_are():
    fields = {field.name: field.metadata.get("help", "") for field in dataclasses.fields(TrainingArguments)}
    assert flags_of_source(TrainingArguments.__module__, "TrainingArguments") == {
        name: text for name, text in fields.items() if not name.startswith("_")
    }


def test_the_flags_name_what_there_is():
    assert finetune.METHODS == tuple(LOSSES)
    assert masks.MADE_MASKS == tuple(SOURCES)
    assert masks.OPTIONS == tuple(source.options for source in SOURCES.values())
    assert experiment.EXPERIMENTS == tuple(EXPERIMENTS)


def test_finetune_gets_the_whole_config(tmp_path):
    flags = ["--model", "m", "--output_dir", str(tmp_path), "--learning-rate", "3e-6", "--bf16", "--seed", "7"]
    arguments, config, *_ = COMMANDS["finetune"].parse(flags)
    assert arguments.model == "m" and type(config) is RobustViTConfig
    assert (config.learning_rate, config.bf16, config.seed, config.lr_decay) == (3e-6, True, 7, 0.85)


def test_every_command_is_in_the_help(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = [line.split(" ")[4] for line in capsys.readouterr().out.splitlines() if line.startswith(4 * " ")]
    assert all(name in shown for name in (*COMMANDS, "explain", "push", "env"))
    with pytest.raises(SystemExit):
        main(["evil"])
    assert "invalid choice: 'evil'" in capsys.readouterr().err


def test_env_names_the_versions(capsys):
    main(["env"])
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["Python"] == sys.version.split()[0] and lines["torch"][0].isdigit()
    assert lines["hf-robustvit"] and lines["transformers"] and lines["CUDA"] == "no GPU"


def test_a_mistake_of_a_command_is_raised():
    with pytest.raises(UserError, match="there is no '--modle'. Did you mean --model"):
        main(["eval", "--model", "m", "--dataset", "d", "--output_dir", "o", "--modle", "x"])
