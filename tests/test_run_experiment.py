"""run_experiment.py as a user starts it: names first, mistakes in one sentence, several processes."""

import json
import shlex
import sys

import pytest
from photo_folder import save_model, save_photos

import run_experiment
from hf_robustvit.builders.suite_folder import is_for_development
from hf_robustvit.commands import experiment
from hf_robustvit.commands.experiment import start_helpers
from hf_robustvit.commands.settings import parse_settings
from hf_robustvit.data import MaskReading
from hf_robustvit.errors import UserError
from hf_robustvit.experiments.catalogue import EXPERIMENTS
from hf_robustvit.experiments.pages import jobs, needed_runs
from hf_robustvit.experiments.recipes import mask_recipes
from hf_robustvit.experiments.suites import CUTOUTS, IMAGENET, choose_suite
from hf_robustvit.masks import OPTIONS, QualityGate


def arguments(*flags):
    (parsed,) = parse_settings(run_experiment.ExperimentArguments, arguments=["--names", *flags])
    return parsed


def test_names_come_first_or_in_a_file(tmp_path):
    (tmp_path / "flags.yaml").write_text("names: [table1, seeds]\nsuite: cutouts\nquick: true\n")
    for given in (["table1", "seeds", "--suite", "cutouts", "--quick"], [str(tmp_path / "flags.yaml")]):
        flags = run_experiment.as_flags(given)
        (parsed,) = parse_settings(run_experiment.ExperimentArguments, arguments=flags)
        assert (parsed.names, parsed.suite, parsed.quick) == (["table1", "seeds"], "cutouts", True)
    flags = run_experiment.as_flags([str(tmp_path / "flags.yaml"), "--names", "table4"])
    assert parse_settings(run_experiment.ExperimentArguments, arguments=flags)[0].names == ["table4"]


def test_an_output_folder_that_cannot_be_written_stops_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--output_dir .*file cannot be written to"):
        run_experiment.main(arguments("table1", "--suite", "cutouts", "--output_dir", str(tmp_path / "file")))


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (["table5"], "experiment: there is no 'table5'. Did you mean table4"),
        (["table1", "--quick"], "--quick is for --suite cutouts"),
        (["table1", "--suite", "cutouts", "--development"], "--development is for a --suite that is a folder"),
        (["table1", "--learning_rate", "1e-5"], "--learning_rate is for a --suite that is a folder"),
        (["masks", "--mask_sources", "drawn"], "--mask_sources: there is no 'drawn'. Known names: tokencut, "),
        (["masks", "--suite", "cutouts", "--mask_sources", "saliency"], "Masks from saliency need --saliency_model"),
        (["table1", "--processes", "0"], "--processes is 0: give 1 or more"),
        (
            ["table3", "--suite", "cutouts", "--models", "google/vit-base-patch16-225"],
            "Did you mean google/vit-base-p",
        ),
    ],
)
def test_each_mistake_is_one_sentence(flags, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        run_experiment.main(arguments(*flags, "--output_dir", str(tmp_path)))


def test_the_flags_of_what_makes_masks_reach_the_runs(tmp_path, monkeypatch):
    suites, network = [], tmp_path / "n.onnx"
    network.touch()
    monkeypatch.setattr(experiment, "make_experiments", lambda chosen, workshop: suites.append(workshop.suite))
    monkeypatch.setattr(experiment, "show_experiments", lambda chosen, workshop: [])
    flags = [
        "--names",
        "masks",
        "--suite",
        "cutouts",
        "--output_dir",
        tmp_path,
        "--mask_sources",
        "tokencut",
        "saliency",
    ]
    flags += ["--saliency_model", network, "--saliency_mean", 1, 2, 3, "--image_size", 96, "--max_area", 0.7]
    types = (run_experiment.ExperimentArguments, MaskReading, QualityGate, *OPTIONS)
    run_experiment.main(*parse_settings(*types, arguments=list(map(str, flags))))
    (suite,) = suites
    *_, tokencut, saliency = (dict(recipe.run(suite, "cutouts-vit").settings) for recipe in mask_recipes(suite)[1:])
    assert (tokencut["backbone"], tokencut["image_size"], tokencut["max_area"]) == ("cutouts-vit", 96, 0.7)
    assert (saliency["saliency_model"], saliency["saliency_mean"]) == (str(network), (1.0, 2.0, 3.0))
    assert "backbone" not in saliency and "saliency_model" not in tokencut


def test_models_are_named_as_in_the_paper_or_by_id():
    suite = IMAGENET.with_models(["DeiT-B", "timm/other"])
    assert suite.models == {"DeiT-B": "facebook/deit-base-patch16-224", "timm/other": "timm/other"}
    assert suite.base_models == suite.ablation_models == ("DeiT-B", "timm/other")
    assert CUTOUTS.with_models(None) is CUTOUTS


def test_quick_takes_fewer_images():
    quick = choose_suite("cutouts", quick=True)
    assert quick.settings["samples_per_class"] < CUTOUTS.settings["samples_per_class"]
    assert quick.images_per_benchmark < CUTOUTS.images_per_benchmark
    assert quick.settings["learning_rate"] == CUTOUTS.settings["learning_rate"]


def test_helpers_repeat_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-c", "import sys; print(sys.argv[1:])", "table1"])
    for helper in start_helpers(2, tmp_path / "logs"):
        assert helper.wait(60) == 0
    logs = [path.read_text() for path in sorted((tmp_path / "logs").iterdir())]
    assert logs == ["['table1', '--helper']\n"] * 2


def test_a_folder_of_ones_own_is_a_suite(tmp_path, monkeypatch):
    classes = ("ant", "bee", "cow", "dog")
    save_photos(tmp_path / "photos" / "train", classes, count=1)
    save_photos(tmp_path / "photos" / "test", classes, count=4, seed=1)
    model = save_model(tmp_path / "tiny", classes)
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    flags = ("--suite", "photos", "--models", str(model), "--output_dir", str(out))
    with pytest.raises(UserError, match="--quick is for --suite cutouts"):
        run_experiment.main(arguments("lr-search", *flags, "--quick"))
    run_experiment.main(arguments("lr-search", *flags))
    assert "| rate " in (out / "lr-search" / "lr-search.md").read_text()
    (*_, record) = [json.loads(path.read_text()) for path in out.glob("runs/*/model/robustvit.json")]
    assert len(record["training_images"]) == 2  # of half the classes, one photo each
    assert record["validation_images"] == [
        name for name in sorted(f"{c}/{n}.png" for c in classes for n in range(4)) if is_for_development(name)
    ]


def test_jobs_are_one_command_a_run_and_make_what_one_command_makes(tmp_path, monkeypatch, capfd):
    classes = ("ant", "bee", "cow", "dog")
    save_photos(tmp_path / "photos" / "train", classes, count=1)
    save_photos(tmp_path / "photos" / "test", classes, count=4, seed=1)
    model = save_model(tmp_path / "tiny", classes)
    flags = ["lr-search", "--suite", tmp_path / "photos", "--models", model, "--output_dir", tmp_path / "out"]
    flags = list(map(str, flags))
    monkeypatch.setattr(sys, "orig_argv", ["python", "run_experiment.py", *flags, "--print_jobs"])
    run_experiment.main(arguments(*flags, "--print_jobs"))
    lines = capfd.readouterr().out.splitlines()
    commands = [shlex.split(line, comments=True) for line in lines]
    assert [command[-2:] for command in commands] == [["--run", str(number)] for number in range(1, len(lines) + 1)]
    assert all(command[:-2] == ["python", "run_experiment.py", *flags] for command in commands)
    assert len(commands) > 2 and not (tmp_path / "out" / "runs").exists()
    assert len({line.partition("#")[2] for line in lines}) == len(lines)  # each says what it is

    for command in reversed(commands):  # in any order
        run_experiment.main(arguments(*command[2:]))
    runs = sorted((tmp_path / "out" / "runs").iterdir())
    assert len(runs) == len(commands) and not (tmp_path / "out" / "lr-search").exists()
    made = [(run / "validation.json").stat().st_mtime_ns for run in runs]
    run_experiment.main(arguments(*flags))
    assert [(run / "validation.json").stat().st_mtime_ns for run in runs] == made  # the pages take what is there
    assert (tmp_path / "out" / "lr-search" / "lr-search.md").is_file()
    with pytest.raises(UserError, match=f"--run is 99: these experiments have the runs 1 to {len(commands)}"):
        run_experiment.main(arguments(*flags, "--run", "99"))


def test_an_interpolation_is_in_the_job_of_its_run():
    needs = needed_runs({"controls": EXPERIMENTS["controls"]}, CUTOUTS)
    parts = jobs(needs)
    assert sum(map(len, parts)) == len(needs) and all(len({run.finetuned for run in part}) == 1 for part in parts)
    assert [[run.share for run in part] for part in parts if len(part) > 1] == [[0.5, 1.0]]
