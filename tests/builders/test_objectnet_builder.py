"""ObjectNet in its official layout."""

import shutil

import numpy as np
import pytest
from official_layouts import OBJECTNET, check_accuracies, plant, save_image, save_json, write_objectnet_tables
from planted_benchmarks import vit

from hf_robustvit.builders import imagenet_indices, load_benchmark
from hf_robustvit.builders.objectnet import ObjectNet
from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.checkpoint import Checkpoint


@pytest.fixture
def root(tmp_path):
    """Two images in each folder, one that ImageNet has no class for, and stray files."""
    root = tmp_path / "data" / "objectnet-1.0"
    write_objectnet_tables(root)
    for folder in (*OBJECTNET, "air_freshener"):
        for name in ("b", "a"):
            save_image(root / "images" / folder / f"{name}.png")
    (root / "images" / "README.txt").write_text("red borders")
    return root


@pytest.fixture
def load(tmp_path):
    return lambda folder, **options: load_benchmark("objectnet", str(folder), str(tmp_path / "cache"), **options)


@pytest.mark.parametrize("named", ["data", "data/objectnet-1.0", "data/objectnet-1.0/images"])
def test_rows(root, load, tmp_path, named):
    rows = load(tmp_path / named)
    folders = sorted(OBJECTNET)
    assert rows.features["label"].names == folders
    assert rows["image_id"][:] == [f"{folder}/{name}.png" for folder in folders for name in "ab"]
    assert rows["label"][:] == [label for label in range(6) for _ in "ab"]
    indices = imagenet_indices("objectnet", str(tmp_path / named))
    assert indices == {folder: indices for folder, (_, indices) in OBJECTNET.items()}


def test_processes_and_streaming(root, load, tmp_path):
    expected = load(root)["image_id"][:]
    assert load_benchmark("objectnet", str(root), str(tmp_path / "other"), num_proc=2)["image_id"][:] == expected
    stream = ObjectNet(data_dir=str(root), cache_dir=str(tmp_path / "third")).as_streaming_dataset(split="test")
    assert [row["image_id"] for row in stream] == expected


@pytest.mark.parametrize("border", [0, 2])
def test_accuracies(tmp_path, border):
    checkpoint = Checkpoint("tiny", None, *vit(1000))
    # Far more indices than the real one, so that the first of several is not always the best; no index is used twice.
    indices = iter(np.random.default_rng(0).permutation(1000).tolist())
    classes = [tuple(next(indices) for _ in range(1 + start % 7)) for start in range(113)]
    table = {f"folder_{start:03d}": (f"Folder {start}", indices) for start, indices in enumerate(classes)}
    root = tmp_path / "objectnet-1.0"
    write_objectnet_tables(root, table)
    truth = plant(
        tmp_path, checkpoint, classes, lambda number, start: root / "images" / f"folder_{start:03d}" / f"{number}.png"
    )
    save_image(root / "images" / "air_freshener" / "x.png")
    check_accuracies("objectnet", tmp_path, checkpoint, truth, classes, border)


def test_an_unknown_folder_is_refused(root, load):
    save_image(root / "images" / "my_own" / "a.png")
    with pytest.raises(
        UserError, match=r"1 of the 8 folders of images in .*/images are not among .* \(first: my_own\)"
    ):
        load(root)


def test_another_table_is_another_data_set(root, load):
    first = load(root)
    save_json(root / "mappings" / "objectnet_to_imagenet_1k.json", {"Mug": "class 504, also called so"})
    second = load(root)
    assert (len(first), len(second)) == (12, 2) and second.features["label"].names == ["mug"]


def test_tables_that_cannot_be_read_or_do_not_fit(root, load):
    path = root / "mappings" / "objectnet_to_imagenet_1k.json"
    save_json(path, {"Mug": "a class that ImageNet has not"})
    with pytest.raises(UserError, match="do not match: one lacks 'a class that ImageNet has not'"):
        load(root)
    save_json(path, {"Mug": "[" * 5000})
    with pytest.raises(UserError, match=r"do not match: one lacks '\[+ \.\.\. \[+'; unpack"):
        load(root)
    save_json(path, {"Mag": "class 504"})
    with pytest.raises(UserError, match="images has no image of its classes. Expected objectnet-1.0/images/"):
        load(root)
    path.write_text('{"Mug": null}')
    with pytest.raises(UserError, match="do not match: 'NoneType' object has no attribute 'split'; unpack"):
        load(root)
    path.write_text("[1]")
    with pytest.raises(UserError, match=r"objectnet_to_imagenet_1k.json cannot be read \(cannot convert dictionary"):
        load(root)
    path.write_text("{")
    with pytest.raises(UserError, match=r"objectnet_to_imagenet_1k.json cannot be read \(Expecting"):
        load(root)
    (root / "mappings" / "folder_to_objectnet_label.json").unlink()
    with pytest.raises(UserError, match=r"folder_to_objectnet_label.json cannot be read \(.*No such file"):
        load(root)


def test_missing_parts(root, load):
    shutil.rmtree(root / "mappings")
    with pytest.raises(UserError, match=r"objectnet-1.0 has no folder 'mappings'. Expected objectnet-1.0/images/"):
        load(root)
    shutil.rmtree(root / "images")
    with pytest.raises(UserError, match=r"objectnet-1.0 has no folder 'images'. Expected objectnet-1.0/images/"):
        load(root.parent)
