import numpy as np
import pytest

from hf_robustvit.builders import BENCHMARKS, load_benchmark
from hf_robustvit.builders import cutouts as builder_module
from hf_robustvit.builders.cutouts import Cutouts
from hf_robustvit.cutouts import BENCHMARK_SPLITS, CLASS_NAMES, SPLITS, VERSION, render
from hf_robustvit.cutouts.splits import Split
from hf_robustvit.errors import UserError


@pytest.fixture
def small_splits(monkeypatch):
    """Every split reduced to 250 images: three shards, the last one not full."""
    small = {name: Split(**{**vars(split), "num_images": 250}) for name, split in SPLITS.items()}
    monkeypatch.setattr(builder_module, "SPLITS", small)


def test_every_split_is_a_benchmark():
    for split in BENCHMARK_SPLITS:
        benchmark = BENCHMARKS[f"cutouts-{split}"]
        assert benchmark.builder is Cutouts and benchmark.config_name == split and benchmark.imagenet_indices is None


def test_rows_are_the_rendered_images(small_splits, tmp_path):
    rows = load_benchmark("cutouts-size", cache_dir=str(tmp_path))
    assert len(rows) == 250
    assert rows.features["label"].names == list(CLASS_NAMES)
    assert len(set(rows["image_id"])) == 250
    for index in (0, 1, 130, 249):
        row, rendered = rows[index], render("size", index)
        assert row["image_id"] == f"size/{index:05d}"
        assert row["image"].mode == "RGB" and row["mask"].mode == "L"
        np.testing.assert_array_equal(np.asarray(row["image"]), np.asarray(rendered.image))
        np.testing.assert_array_equal(np.asarray(row["mask"]), np.asarray(rendered.mask))
        assert row["location"] == pytest.approx(rendered.location)
        assert row["area"] == pytest.approx(rendered.area)
        for name in ("label", "object", "style", "scene", "rotation"):
            assert row[name] == getattr(rendered, name)


def test_train_has_a_train_split_and_version_in_its_cache(small_splits, tmp_path):
    builder = Cutouts(config_name="train", cache_dir=str(tmp_path))
    builder.download_and_prepare(num_proc=2)
    rows = builder.as_dataset(split="train")
    assert rows["image_id"][:] == [f"train/{index:05d}" for index in range(250)]
    assert VERSION in builder.cache_dir


def test_streaming_needs_no_preparation(tmp_path):
    row = next(iter(Cutouts(config_name="sketch", cache_dir=str(tmp_path)).as_streaming_dataset(split="test")))
    assert row["image_id"] == "sketch/00000" and row["scene"] == "white"


def test_unknown_benchmark_names_the_nearest():
    with pytest.raises(UserError, match="--dataset.*no 'cutouts-viewpoints'.*cutouts-viewpoint"):
        load_benchmark("cutouts-viewpoints")
