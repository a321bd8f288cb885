"""Cutouts as a data set of the Hub: what is pushed, what its card says, and what Croissant is told."""

import functools
import hashlib
import json

import datasets
import numpy as np
import pyarrow.parquet
import pytest
from huggingface_hub import DatasetCard, constants
from loopback_hub import TOKEN, LoopbackHub

from hf_robustvit.builders import cutouts as builder_module
from hf_robustvit.builders import cutouts_folder
from hf_robustvit.builders.cutouts import Cutouts
from hf_robustvit.builders.cutouts_folder import write_cutouts
from hf_robustvit.builders.parquet import ParquetData, official_name
from hf_robustvit.commands.convert import convert
from hf_robustvit.cutouts import BENCHMARK_SPLITS, CLASS_NAMES, SPLITS, render
from hf_robustvit.cutouts.splits import Split
from hf_robustvit.data import MaskReading
from hf_robustvit.errors import UserError
from hf_robustvit.flags.convert import ConversionArguments


NAMES = ("train", "validation", *BENCHMARK_SPLITS[1:])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """What is on the Hub after a push, of three images a split; and what was told."""
    place = tmp_path_factory.mktemp("cutouts")
    small = {name: Split(**{**vars(split), "num_images": 3}) for name, split in SPLITS.items()}
    with LoopbackHub(place / "hub") as hub, pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder_module, "SPLITS", small)
        patch.setattr(cutouts_folder, "Cutouts", functools.partial(Cutouts, cache_dir=str(place / "cache")))
        patch.setattr(constants, "ENDPOINT", hub.url)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setenv("HF_TOKEN", TOKEN)
        told = convert(["cutouts"], ConversionArguments(push_to_hub="you/cutouts"), MaskReading(), write_cutouts)
        return hub.folder("datasets/you/cutouts"), told


def test_all_of_it_is_pushed_and_plain_load_dataset_reads_it(written):
    folder, told = written
    assert told == "33 rows in 11 splits are written. They are in you/cutouts."
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {
        *("README.md", "LICENCES.md", "croissant.json", "origin.json"),
        *(f"data/{name}-00000-of-00001.parquet" for name in NAMES),
    }
    found = datasets.load_dataset(str(folder))
    assert {name: len(rows) for name, rows in found.items()} == dict.fromkeys(NAMES, 3)
    row, rendered = found["a"][2], render("a", 2)
    assert row["label"] == rendered.label and row["image_id"] == "a/00002"
    np.testing.assert_array_equal(row["image"], rendered.image)
    np.testing.assert_array_equal(row["mask"], rendered.mask)


def test_it_is_trained_on_and_evaluated_on_as_cutouts(written):
    folder = str(written[0])
    assert official_name(folder) == "cutouts"
    assert ParquetData.find(folder, "training").split == "train"
    assert ParquetData.find(folder, "evaluation").split == "validation"


def test_the_card_has_licence_task_size_and_features(written):
    card = DatasetCard.load(written[0] / "README.md")
    assert card.data.license == ["ofl-1.1", "cc-by-4.0", "cc-by-sa-4.0", "mit"]
    assert "image-classification" in card.data.task_categories and card.data.size_categories == ["10K<n<100K"]
    assert 10_000 < sum(SPLITS[name].num_images for name in ("train", *BENCHMARK_SPLITS)) < 100_000
    info = card.data.to_dict()["dataset_info"]
    assert [column["name"] for column in info["features"]] == list(cutouts_folder.COLUMNS)
    assert list(info["features"][2]["dtype"]["class_label"]["names"].values()) == list(CLASS_NAMES)
    assert {split["name"]: split["num_examples"] for split in info["splits"]} == dict.fromkeys(NAMES, 3)
    assert (written[0] / "LICENCES.md").read_text().count("CC-BY") == 2


def test_croissant_names_every_file_by_its_digest_and_every_column(written):
    croissant = json.loads((written[0] / "croissant.json").read_text())
    assert croissant["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    files = {file["@id"]: written[0] / file["contentUrl"] for file in croissant["distribution"]}
    for file in croissant["distribution"]:
        content = files[file["@id"]].read_bytes()
        assert file["sha256"] == hashlib.sha256(content).hexdigest() and file["contentSize"] == f"{len(content)} B"
    assert [records["@id"] for records in croissant["recordSet"]] == list(NAMES)
    for records in croissant["recordSet"]:
        for field in records["field"]:
            source = field["source"]
            columns = pyarrow.parquet.read_schema(files[source["fileObject"]["@id"]]).names
            assert (
                source["fileObject"]["@id"] == f"{records['@id']}.parquet" and source["extract"]["column"] in columns
            )
        assert [field["name"] for field in records["field"]] == columns


def test_a_split_needs_a_data_set(tmp_path):
    arguments = ConversionArguments(output=str(tmp_path / "out"), split="test")
    with pytest.raises(UserError, match="--split chooses from one data set, and without --dataset all are written"):
        convert(["cutouts"], arguments, MaskReading(), write_cutouts)
