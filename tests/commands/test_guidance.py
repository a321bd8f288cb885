"""What is printed when a command is done: every place that it names is there, every command that it prints is one."""

import shlex
from pathlib import Path

import pytest
from photo_folder import save_model

from hf_robustvit.__main__ import parser
from hf_robustvit.commands import guidance
from hf_robustvit.commands.start import COMMANDS
from hf_robustvit.config import RobustViTConfig
from hf_robustvit.flags.evaluate import EvaluationArguments
from hf_robustvit.flags.experiment import ExperimentArguments
from hf_robustvit.flags.finetune import FinetuneArguments
from hf_robustvit.flags.masks import MaskArguments


def told_command(text: str, start: str) -> list[str]:
    """The words after the command's name, of the line that begins so."""
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return shlex.split(line.removeprefix(start))[3:]  # python -m hf_robustvit


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_model(tmp_path_factory.mktemp("a model") / "of ants", ("ant", "bee", "cow")))


@pytest.mark.parametrize("names, is_compared", [(["ant", "bee"], True), (["dog", "elk"], False)])
def test_an_original_of_other_classes_is_not_compared_with(model, names, is_compared, tmp_path):
    config = RobustViTConfig(output_dir=f"{tmp_path}/my model", use_cpu=True)
    told = guidance.after_finetuning(FinetuneArguments(model=model, dataset="photos"), config, names)
    command, *flags = told_command(told, "Evaluate it with: ")
    arguments, *_ = COMMANDS["eval"].parse(flags)
    assert command == "eval" and arguments.model == f"{tmp_path}/my model" and arguments.dataset == ["TEST_PHOTOS"]
    assert arguments.baseline == (model if is_compared else None) and arguments.report
    assert "TEST_PHOTOS stands for a folder" in told


def test_data_sets_of_the_package_need_no_photos():
    config = RobustViTConfig(output_dir="out", use_cpu=True)
    told = guidance.after_finetuning(FinetuneArguments(model="cutouts-vit", dataset="cutouts"), config, ["bird"])
    arguments, *_ = COMMANDS["eval"].parse(told_command(told, "Evaluate it with: ")[1:])
    assert (arguments.dataset, arguments.baseline) == (["cutouts"], "cutouts-vit") and "TEST_PHOTOS" not in told


@pytest.mark.parametrize(
    "accepted, samples", [({}, None), ({0: 1, 1: 1}, None), ({0: 4, 1: 3}, 3), ({0: 3, 1: 3}, 2), ({0: 1, 1: 9}, 1)]
)
def test_masks_are_trained_with_where_there_are_enough(accepted, samples):
    told = guidance.after_masks(MaskArguments(images="my photos", output_dir="out"), accepted)
    assert told.startswith("The masks are in out/masks; look at out/contact_sheet.png")
    assert ("Then train with: " in told) == bool(samples)
    assert ("one class at least needs two images" in told) == (accepted == {0: 1, 1: 1})
    if samples:
        command, *flags = told_command(told, "Then train with: ")
        arguments, *_ = COMMANDS[command].parse(flags)
        assert arguments.samples_per_class == samples


def test_an_evaluated_model_is_pushed_under_a_name_that_the_hub_takes(tmp_path):
    folder = tmp_path / "my model"
    folder.mkdir()
    (folder / "README.md").touch()
    arguments = EvaluationArguments(model=str(folder), dataset=["cutouts"], output_dir="out", update_card=True)
    words = told_command(guidance.after_evaluation(arguments), "Push the model with: ")
    chosen = parser().parse_args(words)
    assert (chosen.command, chosen.folder, chosen.name) == ("push", str(folder), "USER/my-model")


def test_an_audit_says_where_its_page_is():
    arguments = EvaluationArguments(model="m", dataset=["photos"], output_dir="out", audit=True)
    told = "The findings are in out/audit.html, to be opened in a browser, and in out/audit.json."
    assert guidance.after_evaluation(arguments) == told


def test_experiments_name_their_pages_and_single_runs_what_follows():
    arguments = ExperimentArguments(names=["seeds"], output_dir="out")
    assert guidance.after_experiments(arguments, [Path("out/seeds/seeds.md")]).splitlines() == [
        "out/seeds/seeds.md",
        "The models are in out/runs.",
        "Tables and figures lie beside each page, and all results are in out/results.parquet.",
    ]
    arguments = ExperimentArguments(names=["seeds"], output_dir="out", run=2)
    assert guidance.after_experiments(arguments, []).splitlines() == [
        "The models are in out/runs.",
        "When all runs are made, the same command without --run makes the pages.",
    ]
