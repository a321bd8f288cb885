"""gtsegs_ijcv.mat: a small file of the same build, written with h5py."""

import sys

import h5py
import numpy as np
import pytest
from accelerate import Accelerator
from planted_benchmarks import vit

from hf_robustvit.builders import load_benchmark, load_benchmark_rows
from hf_robustvit.builders.imagenet_segmentation import ImageNetSegmentation
from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.benchmark import evaluate_benchmark
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.loop import LoopOptions
from hf_robustvit.evaluation.run import BenchmarkData


@pytest.fixture
def pictures():
    """Images (height, width, 3) of several sizes and masks of one or two annotators."""
    rng = np.random.default_rng(0)
    pictures = []
    for number in range(5):
        height, width = 40 + number, 60 - 3 * number
        image = rng.integers(0, 256, size=(height, width, 3), dtype=np.uint8)
        masks = [np.zeros((height, width), dtype=np.uint8) for _ in range(1 + number % 2)]
        for place, mask in enumerate(masks):
            mask[5 + place : 20, 10:30] = 1
        pictures.append((image, masks))
    return pictures


@pytest.fixture
def mat(tmp_path, pictures):
    """value/img (n, 1) refers to (3, width, height), value/gt to (annotators, 1) and that to (width, height)."""
    path = tmp_path / "data" / "gtsegs_ijcv.mat"
    path.parent.mkdir()
    with h5py.File(path, "w", userblock_size=512) as file:
        references = h5py.special_dtype(ref=h5py.Reference)
        images = file.create_dataset("value/img", (len(pictures), 1), dtype=references)
        truths = file.create_dataset("value/gt", (len(pictures), 1), dtype=references)
        for number, (image, masks) in enumerate(pictures):
            images[number, 0] = file.create_dataset(f"#refs#/i{number}", data=image.transpose(2, 1, 0)).ref
            cell = file.create_dataset(f"#refs#/g{number}", (len(masks), 1), dtype=references)
            for place, mask in enumerate(masks):
                cell[place, 0] = file.create_dataset(f"#refs#/g{number}_{place}", data=mask.T).ref
            truths[number, 0] = cell.ref
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512)
    with open(path, "r+b") as file:
        file.write(header)
    return path


@pytest.fixture
def load(tmp_path):
    return lambda folder, cache="cache", **options: load_benchmark(
        "imagenet-segmentation", str(folder), str(tmp_path / cache), **options
    )


@pytest.mark.parametrize("named", ["folder", "file", "holder"])
def test_rows(mat, load, pictures, named):
    if named == "holder":
        (mat.parent / "imagenet-segmentation").mkdir()
        mat.rename(mat.parent / "imagenet-segmentation" / mat.name)
    rows = load(mat if named == "file" else mat.parent)
    assert rows.column_names == ["image", "mask", "image_id"]
    assert rows["image_id"][:] == ["00000", "00001", "00002", "00003", "00004"]
    for row, (image, masks) in zip(rows, pictures, strict=True):
        assert (row["image"].mode, row["mask"].mode) == ("RGB", "L")
        np.testing.assert_array_equal(np.asarray(row["image"]), image)
        np.testing.assert_array_equal(np.asarray(row["mask"]), masks[0] * 255)


def test_processes_and_streaming(mat, load, tmp_path):
    expected = [np.asarray(row["mask"]).sum() for row in load(mat)]
    assert [np.asarray(row["mask"]).sum() for row in load(mat, cache="other", num_proc=2)] == expected
    builder = ImageNetSegmentation(data_dir=str(mat.parent), cache_dir=str(tmp_path / "third"))
    stream = builder.as_streaming_dataset(split="test")
    assert [np.asarray(row["mask"]).sum() for row in stream] == expected


def test_the_segmentation_test_runs_on_it(mat, tmp_path):
    checkpoint = Checkpoint("tiny", None, *vit(1000))
    found = load_benchmark_rows("imagenet-segmentation", str(mat.parent))
    data = BenchmarkData.for_model(found, checkpoint.model.config)
    result = evaluate_benchmark(checkpoint, data, tmp_path / "out", Accelerator(cpu=True), LoopOptions(batch_size=2))
    assert result.num_images == 5 and result.top1 is None
    assert 0 < result.mean_iou < 100 and 0 < result.pixel_accuracy < 100


def test_a_changed_file_is_read_anew(mat, load):
    assert len(load(mat)) == 5
    with h5py.File(mat, "r+") as file:
        for name in ("img", "gt"):
            kept = file[f"value/{name}"][:2]
            del file[f"value/{name}"]
            file.create_dataset(f"value/{name}", data=kept, dtype=h5py.special_dtype(ref=h5py.Reference))
    assert len(load(mat)) == 2


@pytest.mark.parametrize(
    ("name", "put", "sentence"),
    [
        ("value/img", {"shape": (0, 1), "dtype": "u1"}, "it has no image"),
        ("value/img", {"data": 1}, "scalar dataset"),
        ("value/gt", {"shape": (5, 1), "dtype": "u1"}, ""),
        ("#refs#/i2", {"shape": (3, 4, 5), "dtype": "u1"}, r"image 2 has the shape \(3, 4, 5\), its mask"),
        ("#refs#/g2_0", {"shape": (), "dtype": "u1"}, r"its mask \(\)"),
    ],
)
def test_a_file_of_another_build_is_told(mat, load, name, put, sentence):
    with h5py.File(mat, "r+") as file:
        del file[name]
        file.create_dataset(name, **put)
    with pytest.raises(
        UserError, match=rf"gtsegs_ijcv.mat is not its authors' HDF5 file \(.*{sentence}.*; download it"
    ):
        load(mat)


def test_a_few_bytes_that_claim_to_be_30_gigabytes_are_not_read(mat, load):
    with h5py.File(mat, "r+") as file:
        for name, shape in (("i0", (3, 100_000, 100_000)), ("g0_0", (100_000, 100_000))):
            del file[f"#refs#/{name}"]
            file.create_dataset(f"#refs#/{name}", shape, "u1", chunks=(*shape[:-2], 100, 100))
        file["value/img"][0, 0], file["value/gt"][0, 0] = file["#refs#/i0"].ref, file["#refs#/g0"].ref
        file["#refs#/g0"][0, 0] = file["#refs#/g0_0"].ref
    with pytest.raises(UserError, match="is not its authors' HDF5 file .image 0 has the shape"):
        load(mat)


def test_missing_and_wrong_files(mat, load, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=f"{tmp_path} has no file gtsegs_ijcv.mat; name its folder with --data_dir"):
        load(tmp_path)
    with h5py.File(mat, "w") as file:
        file["other"] = 1
    with pytest.raises(UserError, match="gtsegs_ijcv.mat lacks value/img or value/gt; download it again"):
        load(mat)
    mat.write_text("not found")
    with pytest.raises(UserError, match=r"gtsegs_ijcv.mat is not its authors' HDF5 file \(.*; download it again"):
        load(mat)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r'needs h5py to read .*: pip install "hf-robustvit\[segmentation\]"'):
        load(mat)
