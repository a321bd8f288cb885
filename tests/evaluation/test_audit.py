"""The audit: every answer and figure by a plain loop, the rule of the verdict, and the planted bias of Cutouts."""

from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from PIL import Image, ImageFilter, ImageOps
from planted_benchmarks import box_masks, dataset_of, photographs, vit

from benchmarks.audit import audit, draw, unbiased
from hf_robustvit.data.background import fill_object, grey_background, swap_background
from hf_robustvit.data.composites import object_fault, paste
from hf_robustvit.data.masks import MaskReading
from hf_robustvit.data.pairs import read_row
from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.audit import OTHERS, classmates, explain_photos, load_answers
from hf_robustvit.evaluation.audit_findings import find, verdict
from hf_robustvit.evaluation.benchmark import evaluate_benchmark
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.label_spaces import match_classes
from hf_robustvit.evaluation.loop import LoopOptions
from hf_robustvit.evaluation.run import BenchmarkData, BenchmarkRun


LABELS = [0, 0, 1, 2, 1, 0, 2, 1, 0, 3, 2, 1]  # one photo is alone in its class
NAMES = ["c3", "c1", "c0", "c2"]


def run_over(rows: datasets.Dataset, names: list[str], folder: Path) -> tuple[BenchmarkRun, pd.DataFrame]:
    model, processor = vit(5)
    checkpoint = Checkpoint("tiny", None, model, processor)
    space = match_classes("toy", names, None, model.config)
    reading = MaskReading(mask_orientation="displayed")
    data = BenchmarkData("toy", rows, space, is_own_folder=True, reading=reading)
    how = Accelerator(cpu=True), LoopOptions(batch_size=5)
    run = BenchmarkRun(checkpoint, data, *how, oracle=True)
    return run, load_answers(run, evaluate_benchmark(checkpoint, data, folder, *how, oracle=True), folder)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    paths = photographs(folder / "images", count=len(LABELS))
    for path in paths:  # upright, so that masks fit in one way
        Image.open(path).convert("RGB").save(path)
    masks = [{"path": str(mask), "bytes": None} for mask in box_masks(paths, folder / "masks")]
    return dataset_of(paths, LABELS, NAMES).add_column("mask", masks, feature=datasets.Image())


@pytest.fixture(scope="module")
def answered(photos, tmp_path_factory):
    return run_over(photos, NAMES, tmp_path_factory.mktemp("answers"))


@pytest.fixture(scope="module")
def pairs(photos):
    return [read_row(row)[:2] for row in photos]


@torch.no_grad()
def ask_plainly(run: BenchmarkRun, picture: Image.Image, expected: int) -> tuple[int, float]:
    pixels = (np.asarray(picture.resize((32, 32), Image.Resampling.BILINEAR)) / 255 - [0.4, 0.5, 0.6]) / [
        0.2,
        0.3,
        0.25,
    ]
    model = run.checkpoint.model
    logits = model(torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]).logits[0]
    return int(logits.argmax()), float(logits.softmax(0)[expected])


def test_every_answer_by_a_plain_loop(photos, answered, pairs):
    run, answers = answered
    row_of = {image_id: row for row, image_id in enumerate(photos["image_id"])}
    mates = {label: [row for row in range(12) if LABELS[row] == label] for label in range(4)}
    used, taken = {name: [] for name in OTHERS}, [row for row in range(12) if object_fault(pairs[row][1]) is None]
    assert 3 < len(taken)
    for answer in answers.to_dict("records"):
        row = row_of[answer["image_id"]]
        image, mask = pairs[row]
        expected = answer["label"]
        assert expected == int(NAMES[LABELS[row]][1:])

        def check(kind, picture, answer=answer, expected=expected):
            guess, probability = ask_plainly(run, picture, expected)
            assert answer[f"{kind}_guess"] == guess
            assert answer[f"{kind}_probability"] == pytest.approx(probability, abs=1e-5)

        check("grey", grey_background(image, mask))
        check("alone", fill_object(image, mask))
        check("own", swap_background(image, mask, ImageOps.mirror(fill_object(image, mask))))
        for name in OTHERS:
            other = row_of[answer[f"{name}_image"]]
            assert LABELS[other] != LABELS[row]
            used[name].append(other)
            check(name, swap_background(image, mask, fill_object(*pairs[other])))
        if LABELS[row] == 3:
            assert pd.isna(answer["same_guess"]) and pd.isna(answer["same_probability"])
        else:
            asked = [
                ask_plainly(run, swap_background(image, mask, fill_object(*pairs[mate])), expected)
                for mate in mates[LABELS[row]]
                if mate != row
            ]
            assert any(
                answer["same_guess"] == guess and abs(answer["same_probability"] - probability) < 1e-5
                for guess, probability in asked
            )
        for kind, area, places in (
            ("centred", 0.2, [(0.5, 0.5)]),
            ("moved", 0.2, [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)]),
            ("shrunk", 0.05, [(0.5, 0.5)]),
        ):
            if row not in taken:
                assert pd.isna(answer[f"{kind}_guess"])
                continue
            picture = fill_object(image, mask.filter(ImageFilter.MaxFilter(5)))
            cutout = image.copy()
            cutout.putalpha(mask)
            place = places[taken.index(row) % len(places)]
            layer = paste(cutout.crop(mask.getbbox()), image.size[::-1], area, 0.0, *place)
            check(kind, Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB"))
    assert all(sorted(rows) == list(range(12)) for rows in used.values()), "each background is used once"
    assert len({tuple(rows) for rows in used.values()}) == len(OTHERS)


def test_every_figure_by_a_plain_loop(answered):
    _, answers = answered
    found, rows = find(answers), answers.to_dict("records")
    kept = lost = follows = stays = pairs = right_own = right_elsewhere = 0
    alone = {row["image_id"]: row["alone_guess"] for row in rows}
    gap = []
    for row in rows:
        kept += row["own_probability"]
        lost += row["own_probability"] - sum(row[f"{name}_probability"] for name in OTHERS) / 4
        for name in OTHERS:
            seen = alone[row[f"{name}_image"]]
            follows, stays, pairs = (
                follows + (row[f"{name}_guess"] == seen),
                stays + (row["own_guess"] == seen),
                pairs + 1,
            )
            right_elsewhere += row[f"{name}_guess"] == row["label"]
            right_own += row["own_guess"] == row["label"]
            if not pd.isna(row["same_guess"]):
                gap.append(int(row["same_guess"] == row["label"]) - int(row[f"{name}_guess"] == row["label"]))
    assert found["reliance"] == pytest.approx(100 * lost / kept, abs=1e-4)
    assert found["follows_background"] == pytest.approx(100 * (follows - stays) / pairs)
    assert found["differences"]["other_backgrounds"]["difference"] == pytest.approx(
        100 * (right_elsewhere - right_own) / pairs
    )
    assert found["differences"]["background_gap"]["difference"] == pytest.approx(100 * np.mean(gap))
    assert (found["num_photos"], found["differences"]["background_gap"]["n"]) == (12, 11)
    assert found["figures"]["other_class_background"]["value"] == pytest.approx(100 * right_elsewhere / pairs)
    for figure, kind in (
        ("object_alone", "grey"),
        ("background_alone", "alone"),
        ("own_background", "own"),
        ("same_class_background", "same"),
        ("moved", "moved"),
        ("shrunk", "shrunk"),
    ):
        asked = [row for row in rows if not pd.isna(row[f"{kind}_guess"])]
        share = sum(row[f"{kind}_guess"] == row["label"] for row in asked) / len(asked)
        assert found["figures"][figure]["value"] == pytest.approx(100 * share)
        assert found["figures"][figure]["n"] == len(asked)
        low, high = found["figures"][figure]["interval95"]
        assert low <= 100 * share <= high
    assert found["figures"]["top1"]["value"] == pytest.approx(
        100 * np.mean([row["top5_indices"][0] == row["label"] for row in rows])
    )
    assert found["figures"]["oracle"]["value"] == pytest.approx(100 * np.mean([row["top1_oracle"] for row in rows]))
    low, high = found["reliance_interval95"]
    assert low < found["reliance"] < high
    z = 1.959964
    assert found["detectable_reliance"] == pytest.approx(10 + (z + 0.841621) * (high - low) / (2 * z), rel=1e-5)
    reliance = {name: [0.0, 0.0] for name in NAMES}
    something_right = {row["class_name"] for row in rows if row["own_guess"] == row["label"]}
    assert 0 < len(something_right) < len(NAMES), "both kinds of classes"
    for row in rows:
        reliance[row["class_name"]][0] += row["own_probability"]
        reliance[row["class_name"]][1] += sum(row[f"{name}_probability"] for name in OTHERS) / 4
    shares = {name: 100 * (1 - after / before) for name, (before, after) in reliance.items()}
    told = [each["class_name"] for each in found["classes"] if each["reliance"] is not None]
    assert told == sorted(something_right, key=shares.get, reverse=True)
    assert told == [each["class_name"] for each in found["classes"][: len(told)]], "the others come last"
    for each in found["classes"]:
        wanted = shares[each["class_name"]] if each["class_name"] in something_right else None
        assert each["reliance"] == pytest.approx(wanted, abs=1e-4)
        assert each["n"] == sum(NAMES[label] == each["class_name"] for label in LABELS)
    losses = [photo["own"] - photo["elsewhere"] for photo in found["photos"]]
    assert losses == sorted(losses, reverse=True) and all(loss > 0 for loss in losses)


def test_leaning_photos_are_explained_as_they_are_and_where_they_lose_most(answered):
    run, answers = answered
    photos = find(answers)["photos"][:3]
    for photo, example in zip(photos, explain_photos(run, pd.DataFrame(photos)), strict=True):
        row = answers[answers["image_id"] == photo["image_id"]].iloc[0]
        assert row[f"{photo['other']}_probability"] == min(row[f"{name}_probability"] for name in OTHERS)
        assert photo["background"] == row[f"{photo['other']}_image"]
        plain, elsewhere = example.answers
        assert plain.prediction == f"c{row['top5_indices'][0]}"
        assert elsewhere.prediction == f"c{row[photo['other'] + '_guess']}"
        assert elsewhere.is_right == (row[f"{photo['other']}_guess"] == row["label"])
        assert elsewhere.relevance.shape == (32, 32) and np.ptp(elsewhere.relevance) > 0


def test_what_is_finished_is_not_asked_again(photos, tmp_path, monkeypatch):
    _, answers = run_over(photos, NAMES, tmp_path)
    monkeypatch.setattr(
        "hf_robustvit.evaluation.run.run_over_images", lambda *_, **__: pytest.fail("the model was run")
    )
    pd.testing.assert_frame_equal(run_over(photos, NAMES, tmp_path)[1], answers)


def test_backgrounds_of_the_own_class_say_nothing_and_one_class_alone_is_refused(photos, tmp_path):
    rows = photos.select([0, 1, 5, 8, 2])  # four of one class, one of another
    _, answers = run_over(rows, NAMES, tmp_path / "most")
    for name in OTHERS:
        assert answers[f"{name}_image"].notna().sum() == 2, "only the other class's photo has another background"
    usable = answers[[f"{name}_image" for name in OTHERS]].notna().any(axis=1)
    found = find(answers)
    assert found["num_photos"] == usable.sum() and found["verdict"] == "unclear"
    assert np.isfinite([found["reliance"], found["follows_background"]]).all()
    with pytest.raises(UserError, match="are of one class: add photos of another"):
        run_over(photos.select([0, 1, 5]), NAMES, tmp_path / "one")


def test_classmates_are_others_of_the_class():
    labels = np.array([3, 1, 3, 2, 1, 3])
    others = classmates(labels)
    assert sorted(others) == list(range(6)) and (labels[others] == labels).all()
    assert [row for row in range(6) if others[row] == row] == [3]


def test_the_verdict_is_which_side_of_one_in_ten_the_intervals_lie_on():
    low, above, below = (-10, 30), (11, 50), (-5, 9)
    assert verdict(6, [above, low]) == verdict(40, [low, above]) == "background"
    assert verdict(5, [above, above]) == "unclear"
    assert verdict(30, [below, below]) == "object" and verdict(29, [below, below]) == "unclear"
    assert verdict(1000, [below, low]) == verdict(1000, [low, low]) == "unclear"


@pytest.fixture(scope="module")
def models():
    return {"on": Checkpoint.load("cutouts-vit"), "off": unbiased(num_steps=100, pool_size=2000)}


def test_the_planted_bias_is_found_and_its_absence_too(models):
    photos = draw("dev", 150, 30, seed=0)
    found = {title: audit(model, photos) for title, model in models.items()}
    assert {title: each["verdict"] for title, each in found.items()} == {"on": "background", "off": "object"}
    assert found["on"]["differences"]["background_gap"]["interval95"][0] > 25
    low, high = found["off"]["differences"]["background_gap"]["interval95"]
    assert low < 0 < high


def test_few_photos_are_rarely_judged_wrongly(models):
    for seed, num_classes in enumerate((30, 30, 10)):
        photos = draw("dev", 30, num_classes, seed)
        assert audit(models["on"], photos)["verdict"] == "background"
        assert audit(models["off"], photos)["verdict"] != "background"
