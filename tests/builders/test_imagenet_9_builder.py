"""ImageNet-9 in its official layout, its many-to-one classes, and its gap between backgrounds."""

import shutil

import numpy as np
import pandas as pd
import pytest
from official_layouts import evaluate_set, save_image, whole_logits
from planted_benchmarks import photographs, vit

from hf_robustvit.builders import benchmark_names, load_benchmark
from hf_robustvit.builders.imagenet_9 import FOLDERS, IN9_INDICES, VARIATIONS
from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.combined import combine
from hf_robustvit.imagenet_classes import NAMES


KINDS = list(IN9_INDICES)


@pytest.fixture
def checkpoint():
    return Checkpoint("tiny", None, *vit(1000))


def write_variation(holder, variation, checkpoint, seed, names, kinds=None):
    """Photographs in the given kinds, or mostly in those the model thinks of: path -> kind."""
    kind_of = {index: kind for kind, indices in enumerate(IN9_INDICES.values()) for index in indices}
    truth = {}
    for number, path in enumerate(photographs(holder / "made", len(names), seed)):
        guess = int(whole_logits(checkpoint.model, [path])[0].argmax())
        kind = kinds[number] if kinds else kind_of.get(guess, number % 9) if number % 3 else number % 9
        target = holder / "bg_challenge" / variation / "val" / list(FOLDERS)[kind] / names[number]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)
        truth[target] = kind
    return truth


def official(checkpoint, truth):
    """Its authors' loop: the likeliest of the 1000 classes, then its kind, -1 being always wrong."""
    table = [-1] * 1000
    for kind, indices in enumerate(IN9_INDICES.values()):
        for index in indices:
            table[index] = kind
    hits = []
    for path, kind in truth.items():
        hits.append(table[int(whole_logits(checkpoint.model, [path])[0].argmax())] == kind)
    return np.array(hits)


def test_the_classes_of_the_nine_kinds():
    assert [len(indices) for indices in IN9_INDICES.values()] == [116, 52, 42, 36, 35, 27, 26, 20, 16]
    assert len({index for indices in IN9_INDICES.values() for index in indices}) == 370
    some = {"tench": "fish", "ostrich": "bird", "Chihuahua": "dog", "timber wolf": "carnivore", "ladybug": "insect"}
    some |= {
        "ambulance": "wheeled vehicle",
        "accordion": "musical instrument",
        "gorilla": "primate",
        "mud turtle": "reptile",
    }
    assert {name: next(kind for kind in KINDS if NAMES.index(name) in IN9_INDICES[kind]) for name in some} == some
    # Domestic cats and two sighthounds count for nothing in the authors' table.
    counted = {index for indices in IN9_INDICES.values() for index in indices}
    assert not {171, 172, *range(281, 286)} & counted


@pytest.mark.parametrize("named", [".", "bg_challenge", "bg_challenge/mixed_rand", "bg_challenge/mixed_rand/val"])
def test_rows(tmp_path, named):
    root = tmp_path / "bg_challenge" / "mixed_rand" / "val"
    save_image(root / "06_musical instrument" / "fg_n02672831_7_bg_n02085620_12.JPEG")
    save_image(root / "00_dog" / "n02085620_12.JPEG")
    save_image(root / "00_dog" / "odd.JPEG")
    rows = load_benchmark("imagenet-9-mixed_rand", str(tmp_path / named), str(tmp_path / "cache"))
    assert rows.features["label"].names == KINDS and rows["label"][:] == [0, 0, 6]
    assert rows["object"][:] == ["00_dog/n02085620_12", "00_dog/odd", "06_musical instrument/n02672831_7"]
    save_image(root / "09_cat" / "a.JPEG")
    with pytest.raises(UserError, match=r"imagenet-9-mixed_rand: 1 of the 3 folders .* \(first: 09_cat\)"):
        load_benchmark("imagenet-9-mixed_rand", str(tmp_path / named), str(tmp_path / "cache"))


def test_a_group_of_eight_that_is_not_part_of_all():
    names = benchmark_names(["imagenet-9"], for_imagenet=True)
    assert names == [f"imagenet-9-{variation}" for variation in VARIATIONS]
    assert not set(names) & set(benchmark_names(["all"], for_imagenet=True))


def test_accuracy_is_the_authors_and_counts_every_index_of_a_kind(tmp_path, checkpoint):
    names = [f"n02085620_{number}.JPEG" for number in range(24)]
    truth = write_variation(tmp_path, "original", checkpoint, 0, names)
    result, frame = evaluate_set("imagenet-9-original", tmp_path, checkpoint)
    hits = official(checkpoint, truth)
    assert result.top1 == pytest.approx(100 * hits.mean()) and 0 < result.top1 < 100
    assert result.protocol["label_space"] == "ImageNet indices, any of a class"
    assert result.protocol["images"] == "whole"
    assert (result.top1_any, result.top1_subset, result.train_classes) == (None, None, None)
    order = np.argsort(-whole_logits(checkpoint.model, list(truth)), axis=1)[:, :5]
    top5 = [set(best) & set(IN9_INDICES[KINDS[kind]]) for best, kind in zip(order, truth.values(), strict=True)]
    assert result.top5 == pytest.approx(100 * np.mean([bool(common) for common in top5]))
    by_id = frame.set_index("image_id")
    for path, best in zip(truth, order, strict=True):
        row = by_id.loc[f"{path.parent.name}/{path.name}"]
        assert row["top5_indices"].tolist() == best.tolist()
        predicted = [kind for kind in KINDS if best[0] in IN9_INDICES[kind]]
        assert predicted == ([] if pd.isna(row["predicted"]) else [row["predicted"]])


@pytest.mark.parametrize("same_photos", [True, False])
def test_the_gap_between_backgrounds(tmp_path, checkpoint, caplog, same_photos):
    hits, results, kinds = {}, [], None
    for seed, variation in enumerate(("mixed_same", "mixed_rand")):
        first = 0 if same_photos or not seed else 100
        names = [f"fg_n02085620_{first + number}_bg_n0000000{seed}_1.JPEG" for number in range(24)]
        truth = write_variation(tmp_path, variation, checkpoint, seed, names, kinds)
        kinds = list(truth.values())
        hits[variation] = official(checkpoint, truth)
        results.append(evaluate_set(f"imagenet-9-{variation}", tmp_path, checkpoint)[0])
    assert combine(tmp_path / "out", results[:1]) == []
    (gap,) = combine(tmp_path / "out", results)
    assert (gap.dataset, gap.num_images, gap.top1) == ("imagenet-9", 48, None)
    assert gap.bg_gap == pytest.approx(100 * (hits["mixed_same"].mean() - hits["mixed_rand"].mean()))
    assert gap.bg_gap_ci95[0] < gap.bg_gap < gap.bg_gap_ci95[1]
    assert (tmp_path / "out" / "imagenet-9.json").is_file()
    assert gap.protocol["paired"] is same_photos and ("differ in their photographs" in caplog.text) is not same_photos
    assert (gap.group, gap.interval) == (("object", "group bootstrap") if same_photos else (None, "score"))
