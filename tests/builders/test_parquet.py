"""Data sets in Parquet: written by the scripts, read by plain `load_dataset`, by --dataset, and from a Hub."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from loopback_hub import TOKEN, LoopbackHub
from photo_folder import finetune, save_model, save_photos
from PIL import ExifTags, Image

import run_eval
from hf_robustvit.builders import load_benchmark_rows, load_training_pairs
from hf_robustvit.builders.parquet import ParquetData, official_name, write_parquet
from hf_robustvit.commands.convert import OWN_FOLDER, convert
from hf_robustvit.commands.settings import parse_settings
from hf_robustvit.data import MaskReading, check_pairs, read_row
from hf_robustvit.errors import UserError
from hf_robustvit.flags.convert import ConversionArguments
from hf_robustvit.flags.evaluate import EvaluationArguments


ROOT = Path(__file__).parents[2]
CLASSES = ("ant", "bee", "cow")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photos of three classes; one is square and to be turned, and its mask is as it is displayed."""
    folder = save_photos(tmp_path_factory.mktemp("photos") / "own")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    with Image.open(folder / "images/ant/0.png") as image:
        image.save(folder / "images/ant/0.png", exif=exif)
    return folder


@pytest.fixture(scope="module")
def converted(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parquet") / "own-parquet"
    arguments = ConversionArguments(data_dir=str(photos), output=str(folder))
    told = convert([OWN_FOLDER], arguments, MaskReading(mask_orientation="displayed"))
    assert told.startswith("15 rows (image, label, image_id, mask) are the split train")
    return folder


def test_a_damaged_file_is_named(converted, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(converted, folder)
    (path,) = folder.rglob("*.parquet")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=rf"--dataset {folder}: {path.relative_to(folder)} is damaged \(Parquet magic"):
        ParquetData.find(str(folder), "training").rows()


def test_plain_load_dataset_reads_it(photos, converted):
    rows = datasets.load_dataset(str(converted), split="train")
    assert rows.features["label"].names == list(CLASSES)
    assert rows.features["image"] == rows.features["mask"] == datasets.Image()
    row = rows[rows["image_id"][:].index("ant/0.png")]
    with Image.open(photos / "masks/ant/0.png") as mask:
        np.testing.assert_array_equal(row["mask"], mask)  # both as they are displayed
    with Image.open(photos / "images/ant/0.png") as image:
        np.testing.assert_array_equal(row["image"], image.transpose(Image.Transpose.ROTATE_270))


def test_masks_need_no_flags_any_more(photos, converted):
    with pytest.raises(UserError, match="--mask_orientation displayed or stored"):
        check_pairs(load_training_pairs(str(photos)))
    pairs = check_pairs(load_training_pairs(str(converted)))
    assert len(pairs) == 15
    before = {row["image_id"]: row for row in load_training_pairs(str(photos))}
    for row in pairs:
        expected = read_row(before[row["image_id"]], MaskReading(mask_orientation="displayed"))
        for found, wanted in zip(read_row(row)[:2], expected[:2], strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_pixels_that_do_not_count_are_a_column(tmp_path):
    folder = save_photos(tmp_path / "own", count=1)
    mask = np.zeros((40, 40), dtype=np.uint8)
    mask[5:20, 5:20], mask[20:22] = 38, 255
    for class_name in CLASSES:
        Image.fromarray(mask).save(folder / f"masks/{class_name}/0.png")
    arguments = ConversionArguments(data_dir=str(folder), output=str(tmp_path / "out"))
    convert([OWN_FOLDER], arguments, MaskReading(mask_foreground=["38"], mask_ignore=["255"]))
    rows = datasets.load_dataset(str(tmp_path / "out"), split="train")
    by_id = dict(zip(rows["image_id"], rows, strict=True))
    np.testing.assert_array_equal(np.asarray(by_id["ant/0.png"]["mask"]) > 0, mask == 38)
    np.testing.assert_array_equal(np.asarray(by_id["ant/0.png"]["ignore"]) > 0, mask == 255)


def test_streaming_reads_the_chosen_pictures_alone(converted):
    whole = load_training_pairs(str(converted))
    pairs = load_training_pairs(str(converted), streaming=True)
    assert pairs["image_id"][:] == whole["image_id"][:] and pairs[0]["image"] is pairs[0]["mask"] is None
    chosen = ParquetData.find(str(converted), "training").with_pictures(pairs.select([7, 2]))
    assert chosen.features["mask"] == datasets.Image()
    for row, number in zip(chosen, (7, 2), strict=True):
        assert row["image_id"] == whole[number]["image_id"] and row["label"] == whole[number]["label"]
        for column in ("image", "mask"):
            np.testing.assert_array_equal(row[column], whole[number][column])


def test_an_official_set_keeps_its_protocol(tmp_path):
    rows = datasets.Dataset.from_dict(
        {"image": [Image.new("RGB", (9, 9))] * 2, "label": [0, 1], "image_id": ["a", "b"]}
    )
    rows = rows.cast_column("image", datasets.Image()).cast_column("label", datasets.ClassLabel(names=["dog", "cat"]))
    write_parquet(rows, tmp_path / "objects", "test", "objectnet", {"dog": (1, 2), "cat": (3,)})
    found = load_benchmark_rows(str(tmp_path / "objects"))
    assert found.name == "objectnet" and not found.is_own_folder
    assert found.imagenet_indices == {"dog": [1, 2], "cat": [3]} and found.rows["label"][:] == [0, 1]
    assert official_name(str(tmp_path / "objects")) == "objectnet" and official_name("cutouts") == "cutouts"


def test_a_second_split_stays_beside_the_first(converted, tmp_path):
    rows = load_training_pairs(str(converted))
    for split, count in (("train", 3), ("validation", 5), ("train", 4)):
        write_parquet(rows.select(range(count)), tmp_path / "two", split, None, None)
    assert {split: len(part) for split, part in datasets.load_dataset(str(tmp_path / "two")).items()} == {
        "train": 4,
        "validation": 5,
    }
    assert len(load_training_pairs(str(tmp_path / "two"))) == 4
    assert len(load_benchmark_rows(str(tmp_path / "two")).rows) == 5
    (tmp_path / "one").mkdir()
    rows.select_columns(["label"]).to_parquet(tmp_path / "one" / "rows.parquet")
    with pytest.raises(UserError, match="has the columns label; expected image"):
        load_training_pairs(str(tmp_path / "one"))


@pytest.mark.parametrize("streaming", [False, True])
def test_fine_tuning_and_evaluation_are_as_with_the_folder(photos, converted, tmp_path, monkeypatch, streaming):
    model = save_model(tmp_path / "model", CLASSES)
    flags = ["--model", model, "--samples_per_class", 2, "--num_train_epochs", 1]
    folder = ["--dataset", photos, "--mask_orientation", "displayed", "--output_dir", tmp_path / "folder"]
    finetune(monkeypatch, *flags, *folder)
    parquet = ["--dataset", converted, "--output_dir", tmp_path / "parquet", "--streaming", streaming]
    finetune(monkeypatch, *flags, *parquet)
    weights, records = [], []
    for name in ("folder", "parquet"):
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
        records.append(json.loads((tmp_path / name / "robustvit.json").read_text()))
    assert weights[0] == weights[1] and records[0]["training_images"] == records[1]["training_images"]

    results = []
    for dataset, more in ((photos, ["--mask_orientation", "displayed"]), (converted, ["--streaming", streaming])):
        out = tmp_path / "results" / dataset.name
        line = ["--model", model, "--dataset", dataset, "--output_dir", out, "--num_workers", 0, *more]
        run_eval.main(*parse_settings(EvaluationArguments, MaskReading, arguments=list(map(str, line))))
        results.append(json.loads((out / f"{dataset.name}.json").read_text()))
    for figure in ("num_images", "top1", "per_class", "segmentation"):
        assert results[0].get(figure) == results[1].get(figure)


def test_a_repository_on_the_hub(photos, converted, tmp_path):
    script = [sys.executable, ROOT / "dataset_scripts/image_mask_folder.py", "--data_dir", photos]
    script += ["--mask_orientation", "displayed", "--push_to_hub", "you/own"]
    read = (
        "from hf_robustvit.builders.parquet import ParquetData; data = ParquetData.find('you/own', 'training'); "
        "(row,) = data.with_pictures(data.without_pictures().select([3])); print(*row['image'].getpixel((20, 20)))"
    )
    absent = "from hf_robustvit.builders import load_benchmark_rows; load_benchmark_rows('you/absent')"
    with LoopbackHub(tmp_path / "hub") as hub:
        environment = hub.environment(TOKEN, PYTHONPATH=str(ROOT), HF_HOME=str(tmp_path / "cache"))
        for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE"):
            environment.pop(name)
        done = [
            subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
            for command in (script, [sys.executable, "-c", read], [sys.executable, "-c", absent])
        ]
    assert "15 rows (image, label, image_id, mask) are the split train of you/own" in done[0].stdout, done[0].stderr
    cached = [path.name for path in (tmp_path / "cache").rglob("*.*") if path.suffix in (".arrow", ".parquet")]
    assert cached == ["image_mask_folder-train.arrow"]  # the script's; streaming leaves nothing on disk
    assert {"README.md", "origin.json", "data/train-00000-of-00001.parquet"} == hub.files("datasets/you/own").keys()
    pixel = datasets.load_dataset(str(converted), split="train")[3]["image"].getpixel((20, 20))
    assert done[1].stdout.split() == list(map(str, pixel)), done[1].stderr
    assert "--dataset you/absent cannot be read as a data set of the Hub" in done[2].stderr


@pytest.mark.parametrize(
    "given, names, sentence",
    [
        ({}, ["imagenet-s"], "name a folder with --output, or --push_to_hub"),
        ({"output": "o"}, ["imagenet-a", "imagenet-r"], "several data sets: name one with --dataset .imagenet-a, "),
        ({"output": "o", "dataset": "imagenet-x"}, ["imagenet-a"], "there is no 'imagenet-x'. Did you mean"),
        ({"output": "o", "split": "train"}, ["waterbirds"], "waterbirds is for evaluation alone"),
        ({"output": "o"}, [OWN_FOLDER], "--data_dir is missing"),
        ({"output": "o", "split": "test", "images_dir": "i"}, ["imagenet-s"], "--images_dir is for --split train"),
    ],
)
def test_mistakes(given, names, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence):
        convert(names, ConversionArguments(**given), MaskReading())


def test_streaming_is_for_parquet(photos):
    for load in (load_training_pairs, load_benchmark_rows):
        with pytest.raises(UserError, match="--streaming is for a data set in Parquet"):
            load(str(photos), streaming=True)
