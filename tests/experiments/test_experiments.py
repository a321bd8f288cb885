"""Every experiment of the list on a tiny suite: its runs, its files, and what is not done twice."""

import json
import os
import re
import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from forked import run_forked
from mask_images import colour_features
from tiny_suite import open_workshop, save_suite

from hf_robustvit.commands import experiment
from hf_robustvit.evaluation.results import read_result
from hf_robustvit.experiments import runs
from hf_robustvit.experiments.catalogue import EXPERIMENTS
from hf_robustvit.experiments.frontier import SHARES
from hf_robustvit.experiments.pages import make_experiments, show_experiments
from hf_robustvit.experiments.recipes import FRONTIER, LATE_MAP, LIBRA_MAP, OURS, PLAIN_SWAPPED, RECIPE, SEEDS
from hf_robustvit.experiments.runs import Run
from hf_robustvit.masks.backbone import Backbone
from hf_robustvit.record import TrainingRecord


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite")
    return folder, save_suite(folder)


@pytest.fixture(scope="module")
def finished(suite):
    """All experiments, made once."""
    folder, described = suite
    workshop = open_workshop(folder, described, folder / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Backbone, "key_features", colour_features)
        make_experiments(EXPERIMENTS, workshop)
        pages = list(show_experiments(EXPERIMENTS, workshop))
    return workshop, pages


def test_every_experiment_has_a_page_whose_figures_exist(finished):
    workshop, pages = finished
    assert [page.stem for page in pages] == list(EXPERIMENTS)
    for page in pages:
        text = page.read_text()
        figures = re.findall(r"\]\((.*?)\)", text)
        assert figures or "|" in text, page
        for figure in figures:
            assert (page.parent / figure).is_file() and (page.parent / figure).with_suffix(".pdf").is_file()
    assert "Did the model change, or only its map?" in (workshop.root / "table1/table1.md").read_text()


def test_tables_in_three_formats_hold_the_same_numbers(finished):
    workshop, _ = finished
    accuracy = read_result(workshop.folder(OURS.run(workshop.suite, workshop.suite.models["Tiny"])) / "results", "far")
    for ending in ("md", "tex", "csv"):
        text = (workshop.root / "table1" / f"table1.{ending}").read_text()
        assert f"{accuracy.top1:.1f}" in text
    latex = (workshop.root / "table1" / "table1.tex").read_text()
    body = latex.split(r"\midrule")[1].split(r"\bottomrule")[0]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 7 and {row.count("&") for row in rows} == {5}
    assert latex.count("{") == latex.count("}")


def test_the_masks_of_each_source_are_judged_beside_their_accuracies(finished):
    workshop, _ = finished
    table = pd.read_csv(workshop.root / "masks/masks.csv").set_index("method")
    assert list(table.index) == ["Ours, masks from tokencut", "Ours, masks from saliency"]
    for source in workshop.suite.mask_sources:
        (path,) = workshop.root.glob(f"runs/*/model/{source}/masks.json")
        records = [*json.loads(path.read_text())["images"].values()]
        row = table.loc[f"Ours, masks from {source}"]
        assert row["images"] == len(records)
        assert row["accepted (%)"] == pytest.approx(
            100 * np.mean([record["accepted"] for record in records]), abs=0.05
        )
        assert row["IoU"] == pytest.approx(np.mean([record["iou"] for record in records]), abs=6e-4)
        assert row["images a second"] > 0
    assert table.loc["Ours, masks from saliency", "IoU of the accepted"] > 0.7  # the square is bright
    accuracies = (workshop.root / "masks/masks-top1.md").read_text()
    for method in ("Original", "Ours ", "Ours, bounding boxes", *table.index):
        assert f"| {method}" in accuracies


def test_tidy_results_agree_with_the_runs(finished):
    workshop, _ = finished
    table = pd.read_parquet(workshop.root / "results.parquet")
    with_runs = set(EXPERIMENTS) - {"lr-search", "sis"}  # these are scored on no benchmark
    assert set(table["experiment"]) == with_runs
    row = table.query("experiment == 'table1' and method == 'RRR' and dataset == 'near' and figure == 'top1'").iloc[0]
    original = table.query(
        "experiment == 'table1' and method == 'Original' and dataset == 'near' and figure == 'top1'"
    ).iloc[0]
    assert row["original"] == original["value"] and row["difference"] == pytest.approx(row["value"] - row["original"])
    assert row["low"] <= row["difference"] <= row["high"]
    changes = (workshop.root / "controls" / "controls-changes.md").read_text()
    plain = table.query("experiment == 'controls' and method == 'Plain fine-tuning' and dataset == 'far'")
    change = plain.query("figure == 'top1' and classes == 'all'").iloc[0]
    assert f"{change['difference']:+.1f} [{change['low']:+.1f}, {change['high']:+.1f}]" in changes
    assert sorted(table.query("experiment == 'seeds'")["seed"].dropna().unique()) == [0, 1, 2]


def test_runs_are_shared_and_not_repeated(finished, suite, monkeypatch):
    workshop, _ = finished
    titles = [path.name for path in (workshop.root / "runs").iterdir()]
    assert len(titles) == len(set(titles))
    # Eight ablations, eight controls and so on, but many rows of the tables are one run.
    rows = {row[2] for one in EXPERIMENTS.values() for row in one.rows(workshop.suite)}
    rows |= {run.finetuned for run in rows}
    assert len(titles) == len(rows) < sum(len(e.rows(workshop.suite)) for e in EXPERIMENTS.values())

    folder, described = suite
    monkeypatch.setattr(experiment, "finetune", lambda *arguments: pytest.fail("a finished run is made again"))
    monkeypatch.setattr(runs, "evaluate_benchmark", lambda *arguments: pytest.fail("a finished run is scored again"))
    make_experiments(EXPERIMENTS, open_workshop(folder, described, folder / "out"))


def test_other_settings_or_weights_are_another_run(finished, suite):
    workshop, _ = finished
    folder, described = suite
    model = described.models["Tiny"]
    ours = OURS.run(described, model)
    changed = Run.of(model, dict(ours.settings) | {"learning_rate": 3e-3})
    assert workshop.folder(changed) != workshop.folder(ours) and not workshop.is_finished(changed, [])
    fewer = open_workshop(folder, replace(described, images_per_benchmark=4), folder / "out")
    assert fewer.folder(ours) == workshop.folder(ours)
    assert fewer.is_finished(ours, []) and not fewer.is_finished(ours, ["near"])  # the data set has changed


def test_interpolated_weights_lie_half_way(finished):
    workshop, _ = finished
    (half,) = {run for _, _, run in EXPERIMENTS["controls"].rows(workshop.suite) if run.share == 0.5}
    original, ours, mixed = (
        workshop.checkpoint(run).model.classifier.weight.detach().numpy()
        for run in (Run.of(half.model, None), half.finetuned, half)
    )
    assert not np.allclose(original, ours)
    np.testing.assert_allclose(mixed, (original + ours) / 2, atol=1e-7)


def test_an_interpolated_model_knows_what_it_was_trained_on(finished):
    workshop, _ = finished
    (half,) = {run for _, _, run in EXPERIMENTS["controls"].rows(workshop.suite) if run.share == 0.5}
    records = [TrainingRecord.read(workshop.folder(run) / "model") for run in (half, half.finetuned)]
    assert records[0].training_classes == records[1].training_classes
    assert records[0].arguments == records[1].arguments | {"finetuned_share": 0.5} and records[0].validation is None


def test_the_frontier_weighs_data_sets_alike(finished):
    workshop, _ = finished
    table = pd.read_csv(workshop.root / "frontier" / "frontier-Tiny.csv")
    assert len(table) == len(FRONTIER) * len(SHARES)
    assert list(table["share"].unique()) == list(SHARES)
    rows = [row for row in EXPERIMENTS["frontier"].rows(workshop.suite) if not row[2].is_original]
    for (_, recipe, run), (_, row) in zip(rows, table.iterrows(), strict=True):
        assert recipe.label == f"{row['recipe']}, {row['share']:.0%}"
        for name, sets in (("natural", ("near", "far")), ("synthetic", ("turned",))):
            results = [(workshop.result(run, each), workshop.result(Run.of(run.model, None), each)) for each in sets]
            expected = sum(after.top1 - before.top1 for after, before in results) / len(results)
            assert row[name] == pytest.approx(expected, abs=1e-9)
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    # All three classes are trained on, so that none are held out.
    assert table["natural_held_out"].equals(table["natural"])
    page = (workshop.root / "frontier" / "frontier.md").read_text()
    assert "| Ours" in page and "frontier-Tiny.png" in page


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("recipe", RECIPE.label, OURS.label),
        ("recipe", RECIPE.label, PLAIN_SWAPPED.label),
        ("maps", LIBRA_MAP, OURS.label),
        ("maps", LATE_MAP, OURS.label),
    ],
)
def test_contestants_are_held_against_each_other_seed_by_seed(finished, name, one, other):
    workshop, _ = finished
    top1 = {
        recipe.label: workshop.result(run, "turned").top1
        for _, recipe, run in EXPERIMENTS[name].rows(workshop.suite)
    }
    differences = [top1[f"{one}, seed {seed}"] - top1[f"{other}, seed {seed}"] for seed in SEEDS]
    page = (workshop.root / name / f"{name}.md").read_text().split("one row minus another")[1]
    cells = re.search(rf"^\| {one} minus {other} +\|(.*)$", page, re.MULTILINE)[1].split("|")
    assert cells[1].strip().startswith(f"{np.mean(differences):+.1f} [")


@pytest.mark.parametrize("moment", ["before training", "after training", "second benchmark"])
def test_killed_and_started_again_it_ends_with_the_same_results(suite, finished, tmp_path, moment):
    folder, described = suite
    experiments = {"table3": EXPERIMENTS["table3"]}

    def start():
        make_experiments(experiments, open_workshop(folder, described, tmp_path / "out"))

    def die_at():
        target = {
            "before training": (experiment, "finetune"),
            "after training": (runs, "replacing"),
            "second benchmark": (runs, "evaluate_benchmark"),
        }
        (module, name), calls = target[moment], []
        real = getattr(module, name)

        def wrapped(*arguments, **keywords):
            calls.append(1)
            if moment != "second benchmark" or len(calls) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **keywords)

        setattr(module, name, wrapped)

    status, log = run_forked(start, [], tmp_path / "log", die_at)
    assert status == -signal.SIGKILL, log
    status, log = run_forked(start, [], tmp_path / "log")
    assert status == 0, log
    workshop, _ = finished
    again = open_workshop(folder, described, tmp_path / "out")
    for run in (Run.of(described.models["Tiny"], None), OURS.run(described, described.models["Tiny"])):
        assert again.folder(run).name == workshop.folder(run).name
        pd.testing.assert_frame_equal(again.predictions(run, "masked"), workshop.predictions(run, "masked"))
