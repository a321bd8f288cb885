"""run_eval's figures against an independent loop over PIL and the raw model."""

import json
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pandas as pd
import pytest
from accelerate import Accelerator
from planted_benchmarks import dataset_of, photographs, plain_logits, vit

from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.accuracy import outcomes
from hf_robustvit.evaluation.benchmark import evaluate_benchmark
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.label_spaces import match_classes
from hf_robustvit.evaluation.loop import LoopOptions
from hf_robustvit.evaluation.results import read_result
from hf_robustvit.evaluation.run import BenchmarkData
from hf_robustvit.evaluation.statistics import accuracy_interval


OPTIONS = LoopOptions(batch_size=7)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module")
def checkpoint():
    return Checkpoint("tiny", None, *vit(12))


def own_label_data(checkpoint, paths, embed=False, count=40):
    """8 of the model's 12 classes, shuffled; labels are the model's first to sixth choice by turns."""
    kept = [9, 2, 11, 4, 0, 7, 3, 1]
    logits = plain_logits(checkpoint.model, paths[:count], "paper")
    labels = [int(np.argsort(-row[kept])[number % 6]) for number, row in enumerate(logits)]
    rows = dataset_of(paths[:count], labels, [f"c{index}" for index in kept], embed)
    space = match_classes("planted", rows.features["label"].names, None, checkpoint.model.config)
    return BenchmarkData("planted", rows, space), labels, kept


def evaluate(checkpoint, data, folder, options=OPTIONS, **protocol):
    return evaluate_benchmark(checkpoint, data, folder, Accelerator(cpu=True), options, **protocol)


def top(scores, label, guesses):
    return label in np.argsort(-scores)[:guesses]


@pytest.mark.parametrize("preprocessing", ["checkpoint", "paper"])
@pytest.mark.parametrize("border", [0, 2])
def test_accuracies_equal_an_independent_loop(checkpoint, paths, tmp_path, preprocessing, border):
    data, labels, kept = own_label_data(checkpoint, paths)
    result = evaluate(checkpoint, data, tmp_path, preprocessing=preprocessing, crop_border=border)

    logits = plain_logits(checkpoint.model, paths, preprocessing, border)
    pairs = list(zip(logits, labels, strict=True))
    top1 = [top(row, kept[label], 1) for row, label in pairs]
    assert result.top1 == pytest.approx(100 * np.mean(top1))
    assert result.top5 == pytest.approx(100 * np.mean([top(row, kept[label], 5) for row, label in pairs]))
    assert result.top1_subset == pytest.approx(100 * np.mean([top(row[kept], label, 1) for row, label in pairs]))
    assert result.top5_subset == pytest.approx(100 * np.mean([top(row[kept], label, 5) for row, label in pairs]))
    assert 0 < result.top1 <= result.top1_subset < result.top5 < 100, "the planted labels tell nothing"
    assert result.top1_any is None and result.num_images == 40
    hits = sum(top1)
    for bound in result.top1_ci95:  # Wilson's: where the score test begins to reject
        share = bound / 100
        assert (hits / 40 - share) ** 2 == pytest.approx(1.959964**2 * share * (1 - share) / 40, rel=1e-5)
    assert (result.group, result.interval) == (None, "score")
    for position, name in enumerate(data.rows.features["label"].names):
        members = [hit for hit, label in zip(top1, labels, strict=True) if label == position]
        if members:
            assert result.per_class[name]["n"] == len(members)
            assert result.per_class[name]["top1"] == pytest.approx(100 * np.mean(members))
        else:
            assert name not in result.per_class


def test_embedded_images_and_workers_give_the_same_predictions(checkpoint, paths, tmp_path):
    by_path, _, _ = own_label_data(checkpoint, paths)
    by_bytes, _, _ = own_label_data(checkpoint, paths, embed=True)
    evaluate(checkpoint, by_path, tmp_path / "a")
    evaluate(checkpoint, by_bytes, tmp_path / "b", LoopOptions(batch_size=16, num_workers=2))
    first, second = (pd.read_parquet(tmp_path / folder / "planted.predictions.parquet") for folder in "ab")
    pd.testing.assert_frame_equal(first, second, rtol=1e-4)


def test_objectnet_counts_the_first_index_any_index_and_the_restricted_classes(paths, tmp_path):
    checkpoint = Checkpoint("tiny", None, *vit(1000))
    logits = plain_logits(checkpoint.model, paths, "paper")
    order = np.argsort(-logits, axis=1)
    used = list(dict.fromkeys(order[:, :3].T.ravel().tolist()))[:9]
    indices = {"bicycle": tuple(used[0:2]), "chair": tuple(used[2:5]), "oven": (used[5],), "tie": tuple(used[6:9])}
    names = list(indices)
    labels = [number % 4 for number in range(len(paths))]
    for number, row in enumerate(
        order
    ):  # two in three images get a class that the model ranks first, where there is one
        owners = [position for position, name in enumerate(names) if row[0] in indices[name]]
        labels[number] = owners[0] if owners and number % 3 else labels[number]
    rows = dataset_of(paths, labels, names)
    data = BenchmarkData("objectnet", rows, match_classes("objectnet", names, indices, checkpoint.model.config))
    result = evaluate(checkpoint, data, tmp_path, preprocessing="paper")

    allowed = [set(indices[names[label]]) for label in labels]
    firsts = [indices[names[label]][0] for label in labels]
    top1_any = np.mean([row[0] in members for row, members in zip(order, allowed, strict=True)])
    top1 = np.mean([row[0] == first for row, first in zip(order, firsts, strict=True)])
    columns = sorted(index for members in indices.values() for index in members)
    best_column = [columns[int(np.argmax(row[columns]))] for row in logits]
    subset = np.mean([best in members for best, members in zip(best_column, allowed, strict=True)])
    assert (result.top1, result.top1_any) == (pytest.approx(100 * top1), pytest.approx(100 * top1_any))
    assert result.top1_subset == pytest.approx(100 * subset)
    assert 0 < top1 < top1_any < subset < 1, "the planted labels tell nothing"


def test_a_benchmark_with_all_the_models_classes_has_no_subset_figures(checkpoint, paths, tmp_path):
    names = [f"c{index}" for index in range(12)]
    rows = dataset_of(paths[:6], [0, 1, 2, 3, 4, 5], names)
    data = BenchmarkData("all", rows, match_classes("all", names, None, checkpoint.model.config))
    evaluate(checkpoint, data, tmp_path)
    stored = json.loads((tmp_path / "all.json").read_text())
    assert stored["top1_subset"] is None and stored["top5_subset"] is None and stored["top1_any"] is None
    assert "subset_top5_indices" not in pd.read_parquet(tmp_path / "all.predictions.parquet")


def test_a_model_of_three_classes(paths, tmp_path):
    checkpoint = Checkpoint("tiny", None, *vit(3))
    rows = dataset_of(paths[:9], [0, 1, 0, 1, 0, 1, 0, 1, 0], ["c2", "c0"])
    data = BenchmarkData("few", rows, match_classes("few", ["c2", "c0"], None, checkpoint.model.config))
    result = evaluate(checkpoint, data, tmp_path)
    assert result.top5 == 100 and result.top5_subset == 100


def test_the_json_has_the_fixed_keys_and_the_parquet_what_paired_statistics_need(checkpoint, paths, tmp_path):
    data, labels, kept = own_label_data(checkpoint, paths)
    result = evaluate(checkpoint, data, tmp_path, preprocessing="paper", crop_border=1)
    stored = json.loads((tmp_path / "planted.json").read_text())
    fixed = "dataset model revision num_images top1 top5 top1_subset top5_subset top1_any top1_ci95 per_class"
    assert set(fixed.split()) | {"train_classes", "held_out_classes", "protocol", "versions"} <= set(stored)
    assert (stored["dataset"], stored["model"], stored["num_images"]) == ("planted", "tiny", 40)
    assert stored["protocol"] == {
        "preprocessing": "paper",
        "label_space": "model label names",
        "crop_border": 1,
        "precision": "fp32",
    }
    assert stored["versions"]["torch"] == version("torch")

    frame = pd.read_parquet(tmp_path / "planted.predictions.parquet")
    assert frame["image_id"].tolist() == [path.name for path in paths]
    assert frame["label"].tolist() == [kept[label] for label in labels]
    best = np.stack(frame["top5_indices"])
    assert result.top1 == pytest.approx(100 * np.mean(best[:, 0] == frame["label"]))
    subset_best = np.stack(frame["subset_top5_indices"])
    assert result.top5_subset == pytest.approx(
        100 * np.mean((subset_best == frame["label"].to_numpy()[:, None]).any(1))
    )
    logits = plain_logits(checkpoint.model, paths, "paper", 1)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        np.stack(frame["top5_probabilities"]), np.take_along_axis(probabilities, best, axis=1), rtol=1e-4
    )


def test_training_and_held_out_classes(checkpoint, paths, tmp_path):
    data, labels, kept = own_label_data(checkpoint, paths)
    trained = Checkpoint(
        "tiny", None, checkpoint.model, checkpoint.image_processor, frozenset({"c9", "c2", "c0", "c3"})
    )
    result = evaluate(trained, data, tmp_path, preprocessing="paper")
    logits = plain_logits(checkpoint.model, paths, "paper")
    hits = np.array([top(row, kept[label], 1) for row, label in zip(logits, labels, strict=True)])
    training = np.array([kept[label] in (9, 2, 0, 3) for label in labels])
    assert result.train_classes["n"] == training.sum() and result.held_out_classes["n"] == (~training).sum()
    assert result.train_classes["top1"] == pytest.approx(100 * hits[training].mean())
    assert result.held_out_classes["top1"] == pytest.approx(100 * hits[~training].mean())


def test_bfloat16_is_recorded_and_close(checkpoint, paths, tmp_path):
    data, _, _ = own_label_data(checkpoint, paths)
    evaluate(checkpoint, data, tmp_path / "full")
    result = evaluate(checkpoint, data, tmp_path / "half", LoopOptions(batch_size=7, bf16=True))
    assert result.protocol["precision"] == "bf16"
    full, half = (pd.read_parquet(tmp_path / name / "planted.predictions.parquet") for name in ("full", "half"))
    first, second = (np.stack(frame["top5_probabilities"])[:, 0] for frame in (full, half))
    assert 0 < np.abs(first - second).max() < 0.1


def test_a_finished_data_set_is_not_run_again(checkpoint, paths, tmp_path, caplog):
    data, _, _ = own_label_data(checkpoint, paths)
    first = evaluate(checkpoint, data, tmp_path)
    calls = []
    handle = checkpoint.model.register_forward_hook(lambda *_: calls.append(1))
    with caplog.at_level("INFO"):
        assert evaluate(checkpoint, data, tmp_path) == first
    assert not calls and "planted is finished" in caplog.text

    others = [
        (data, {"preprocessing": "paper"}),
        (data, {"crop_border": 2}),
        (data, {"relevance_method": "libra"}),
        (BenchmarkData("planted", data.rows.select(range(39)), data.label_space), {}),
    ]
    for changed, protocol in others:
        calls.clear()
        caplog.clear()
        evaluate(checkpoint, changed, tmp_path, **protocol)
        assert calls and "planted in" in caplog.text and "run again" in caplog.text
    handle.remove()


def test_images_of_the_same_object_are_told_and_kept_whole(checkpoint, paths, tmp_path):
    data, labels, _ = own_label_data(checkpoint, paths)
    described = {
        "object": [f"object {number // 4}" for number in range(len(labels))],
        "value": [float(number % 4) for number in range(len(labels))],
        "location": [[0.25, number / 100] for number in range(len(labels))],
        "style": ["drawn"] * len(labels),
    }
    rows = data.rows
    for name, values in described.items():
        rows = rows.add_column(name, values)
    result = evaluate(checkpoint, replace(data, rows=rows), tmp_path / "objects")
    assert (result.group, result.interval) == ("object", "group bootstrap")
    assert read_result(tmp_path / "objects", "planted") == result
    frame = pd.read_parquet(tmp_path / "objects" / "planted.predictions.parquet")
    assert frame["object"].tolist() == described["object"] and frame["value"].tolist() == described["value"]
    assert frame["x"].unique() == [0.25] and frame["y"].tolist() == [place[1] for place in described["location"]]
    assert not {"style", "location"} & set(frame)
    correct = outcomes(frame)["top1"].to_numpy()
    bounds = accuracy_interval(correct, np.arange(len(correct)) // 4)
    assert result.top1_ci95 == pytest.approx([100 * bound for bound in bounds])

    by_image = evaluate(checkpoint, data, tmp_path / "images")
    assert (by_image.group, by_image.interval, by_image.top1) == (None, "score", result.top1)
    assert by_image.top1_ci95 != result.top1_ci95


def test_a_result_of_another_version_is_made_again(checkpoint, paths, tmp_path, caplog):
    data, _, _ = own_label_data(checkpoint, paths)
    first = evaluate(checkpoint, data, tmp_path)
    stored = json.loads((tmp_path / "planted.json").read_text())
    assert stored.pop("group") is None
    stored["interval"] = {"top1_ci95": "exact"}
    (tmp_path / "planted.json").write_text(json.dumps(stored))
    assert evaluate(checkpoint, data, tmp_path) == first == read_result(tmp_path, "planted")
    assert " is made again: " in caplog.text and ".json is not a result of this version" in caplog.text


def test_other_weights_under_the_same_name_are_run_again(checkpoint, paths, tmp_path):
    data, _, _ = own_label_data(checkpoint, paths)
    first = evaluate(checkpoint, data, tmp_path)
    second = evaluate(Checkpoint("tiny", None, *vit(12, seed=1)), data, tmp_path)
    assert first.weights != second.weights and first.per_class != second.per_class


def test_an_interrupted_run_leaves_no_file(checkpoint, paths, tmp_path):
    data, _, _ = own_label_data(checkpoint, paths)
    evaluate(checkpoint, data, tmp_path)
    calls = []

    def interrupt(*_):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    handle = checkpoint.model.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluate(checkpoint, data, tmp_path / "fresh")
    handle.remove()
    assert not (tmp_path / "fresh").exists()
    assert checkpoint.model.config._attn_implementation == "eager"


@pytest.fixture
def broken(checkpoint, paths, tmp_path):
    """The planted benchmark with a truncated JPEG, a file of text, and a missing file."""
    copies = []
    for path in paths:
        copies.append(tmp_path / "images" / path.name)
        copies[-1].parent.mkdir(exist_ok=True)
        copies[-1].write_bytes(path.read_bytes())
    copies[5].write_bytes(copies[5].read_bytes()[:300])
    copies[11].write_text("not an image")
    copies[30].unlink()
    data, _, _ = own_label_data(checkpoint, paths)
    rows = dataset_of(copies, data.rows["label"][:], data.rows.features["label"].names)
    return BenchmarkData("planted", rows, data.label_space)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_stops_the_run_by_name(checkpoint, broken, tmp_path, workers):
    with pytest.raises(UserError, match=r"^image '005.jpg' cannot be read \(.*\); repair .* --skip_unreadable\.$"):
        evaluate(checkpoint, broken, tmp_path / "out", LoopOptions(batch_size=8, num_workers=workers))
    assert not (tmp_path / "out").exists()


def test_unreadable_images_are_left_out_and_listed_on_request(checkpoint, broken, paths, tmp_path, caplog):
    skipping = LoopOptions(batch_size=8, skip_unreadable=True)
    result = evaluate(checkpoint, broken, tmp_path / "out", skipping, preprocessing="paper")
    assert json.loads((tmp_path / "out" / "planted.json").read_text())["unreadable"] == [
        "005.jpg",
        "011.jpg",
        "030.jpg",
    ]
    assert result.num_images == 37 and "left out image '011.jpg'" in caplog.text

    data, labels, kept = own_label_data(checkpoint, paths)
    whole = [number for number in range(40) if number not in (5, 11, 30)]
    logits = plain_logits(checkpoint.model, paths, "paper")
    assert result.top1 == pytest.approx(100 * np.mean([top(logits[i], kept[labels[i]], 1) for i in whole]))
    with pytest.raises(UserError, match="005.jpg"):  # finished, but not by the rule that now holds
        evaluate(checkpoint, broken, tmp_path / "out", LoopOptions(batch_size=8), preprocessing="paper")


def test_a_data_set_without_a_readable_image_is_an_error(checkpoint, broken, tmp_path):
    data = BenchmarkData("planted", broken.rows.select([5, 11]), broken.label_space)
    with pytest.raises(UserError, match="planted: none of the 2 images can be read"):
        evaluate(checkpoint, data, tmp_path / "out", LoopOptions(skip_unreadable=True))


def test_an_image_of_nothing_but_border_is_unreadable(checkpoint, paths, tmp_path):
    data, _, _ = own_label_data(checkpoint, paths)
    with pytest.raises(UserError, match="nothing but a border of 30"):
        evaluate(checkpoint, data, tmp_path, crop_border=30)
