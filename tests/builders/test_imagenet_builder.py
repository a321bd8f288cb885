"""ImageNet val, -A, -R, -Sketch and -V2 in their official layouts."""

import os
from pathlib import Path

import pytest
from official_layouts import SETS_BY_WNID, check_accuracies, plant_imagenet, save_image
from planted_benchmarks import vit

from hf_robustvit.builders import BENCHMARKS, load_benchmark
from hf_robustvit.builders.imagenet import ImageNet
from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.imagenet_classes import IMAGENET_A, IMAGENET_R, WNIDS


@pytest.fixture(scope="module")
def checkpoint():
    return Checkpoint("tiny", None, *vit(1000))


@pytest.fixture
def load(tmp_path):
    return lambda name, folder, **options: load_benchmark(name, str(folder), str(tmp_path / "cache"), **options)


@pytest.mark.parametrize("name", SETS_BY_WNID)
def test_rows_and_accuracies(checkpoint, load, tmp_path, name, caplog):
    holder = tmp_path / "data"
    truth = plant_imagenet(holder, checkpoint, name)
    folder, _, indices = SETS_BY_WNID[name]
    rows = load(name, holder)
    assert "2 entries are not <class>/<file>" in caplog.text  # README.txt and list.csv; an empty folder is none
    assert rows.features["label"].names == [WNIDS[index] for index in indices]
    found = {
        holder / folder / row["image_id"]: WNIDS.index(rows.features["label"].names[row["label"]]) for row in rows
    }
    assert found == {path: index for path, (index,) in truth.items()}
    assert rows["label"][:] == sorted(rows["label"][:])
    assert {row["image"].mode for row in rows} == {"RGB", "L", "CMYK", "P"}
    check_accuracies(name, holder, checkpoint, truth, [(index,) for index in indices])


@pytest.mark.parametrize(
    "below",
    ["imagenet-a", "imagenet-a/imagenet-a", "."],
    ids=["authors' name", "in a folder of --dataset's", "itself"],
)
def test_the_folder_itself_and_one_that_holds_it(load, tmp_path, below):
    save_image(tmp_path / "data" / below / WNIDS[6] / "x.jpg")
    assert load("imagenet-a", tmp_path / "data")["image_id"][:] == [f"{WNIDS[6]}/x.jpg"]


def test_the_folders_of_v2_are_indices_not_positions(load, tmp_path):
    for folder in ("10", "1", "0", "2"):
        save_image(tmp_path / folder / "x.jpeg")
    rows = load("imagenet-v2", tmp_path)
    assert rows["image_id"][:] == ["0/x.jpeg", "1/x.jpeg", "2/x.jpeg", "10/x.jpeg"]
    assert rows["label"][:] == [0, 1, 2, 10]
    assert rows.features["label"].names == list(WNIDS)


def test_the_classes_of_a_and_r_are_the_official_ones():
    for name, indices in {"imagenet-a": IMAGENET_A, "imagenet-r": IMAGENET_R}.items():
        (config,) = [config for config in ImageNet.BUILDER_CONFIGS if config.name == name]
        assert [BENCHMARKS[name].imagenet_indices[wnid] for wnid in config.classes.values()] == [(i,) for i in indices]


def test_processes_and_streaming_give_the_same_rows(load, tmp_path):
    for index in (3, 4, 7):
        save_image(tmp_path / "val" / WNIDS[index] / "ILSVRC2012_val_00000001.JPEG", value=20 * index)
    expected = [(row["image_id"], row["label"]) for row in load("imagenet-val", tmp_path)]
    assert [label for _, label in expected] == [3, 4, 7]
    again = load_benchmark("imagenet-val", str(tmp_path), str(tmp_path / "other"), num_proc=2)
    assert [(row["image_id"], row["label"]) for row in again] == expected
    builder = ImageNet(config_name="imagenet-val", data_dir=str(tmp_path), cache_dir=str(tmp_path / "third"))
    stream = list(builder.as_streaming_dataset(split="test"))
    assert [(row["image_id"], row["label"]) for row in stream] == expected
    assert stream[2]["image"].getpixel((0, 0))[0] == 140


def test_rows_point_to_the_files(load, tmp_path, monkeypatch):
    save_image(tmp_path / "sketch" / WNIDS[0] / "sketch_1.JPEG")
    monkeypatch.chdir(tmp_path)
    rows = load("imagenet-sketch", ".")
    monkeypatch.chdir("/")
    assert rows[0]["image"].size == (8, 6)
    (table,) = Path(rows.cache_files[0]["filename"]).parent.glob("*.arrow")
    assert table.stat().st_size < 20_000
    (tmp_path / "sketch" / WNIDS[0] / "sketch_1.JPEG").unlink()
    with pytest.raises(FileNotFoundError):
        rows[0]


def test_a_changed_folder_is_read_anew_and_an_unchanged_one_is_not(load, tmp_path, monkeypatch):
    image = save_image(tmp_path / WNIDS[6] / "a.jpg")
    first = load("imagenet-a", tmp_path)
    save_image(tmp_path / WNIDS[6] / "b.jpg")
    assert load("imagenet-a", tmp_path)["image_id"][:] == [f"{WNIDS[6]}/a.jpg", f"{WNIDS[6]}/b.jpg"]
    os.utime(image, (1, 1))
    assert load("imagenet-a", tmp_path)._fingerprint != first._fingerprint
    (tmp_path / WNIDS[6] / "b.jpg").unlink()
    assert len(load("imagenet-a", tmp_path)) == 1
    monkeypatch.setattr(ImageNet, "_generate_examples", None)
    assert len(load("imagenet-a", tmp_path)) == 1


def test_a_moved_folder_is_told(load, tmp_path):
    save_image(tmp_path / "data" / WNIDS[6] / "a.jpg")
    load("imagenet-a", tmp_path / "data")
    (tmp_path / "data").rename(tmp_path / "moved")
    with pytest.raises(UserError) as error:
        load("imagenet-a", tmp_path / "data")
    assert str(error.value) == (
        f"--data_dir {tmp_path}/data, which should hold imagenet-a, does not exist: was it moved or renamed?"
    )


def test_another_data_set_is_refused(load, tmp_path):
    for index in (1, 2, 6):  # 6 is the only one of the three in ImageNet-A
        save_image(tmp_path / "imagenet-r" / WNIDS[index] / "a.jpg")
    with pytest.raises(UserError) as error:
        load("imagenet-a", tmp_path / "imagenet-r")
    assert str(error.value) == (
        f"--dataset imagenet-a: 2 of the 3 folders of images in {tmp_path}/imagenet-r are not among its classes "
        f"(first: {WNIDS[1]}): is this imagenet-a/<wnid>/*.jpg?"
    )


@pytest.mark.parametrize("stray", ["flat.JPEG", "imagenet-a/n01440764/x.jpg"])
def test_no_class_folders(load, tmp_path, stray):
    save_image(tmp_path / stray)
    with pytest.raises(UserError) as error:
        load("imagenet-val", tmp_path)
    assert str(error.value) == (
        f"--dataset imagenet-val: {tmp_path} has no class folders with images. "
        "Expected val/<wnid>/ILSVRC2012_val_*.JPEG; --data_dir names this folder or the one that holds it."
    )


def test_a_partial_copy_is_warned_of(load, tmp_path, caplog):
    save_image(tmp_path / WNIDS[6] / "a.jpg")
    load("imagenet-a", tmp_path)
    assert f"imagenet-a: 199 of its 200 class folders have no image in {tmp_path}" in caplog.text


def test_links_out_of_the_folder_are_refused(load, tmp_path):
    save_image(tmp_path / "secret" / "a.jpg")
    (tmp_path / "data" / WNIDS[6]).mkdir(parents=True)
    (tmp_path / "data" / WNIDS[6] / "a.jpg").symlink_to(tmp_path / "secret" / "a.jpg")
    with pytest.raises(UserError, match="a.jpg is a symbolic link that leads out of"):
        load("imagenet-a", tmp_path / "data")
