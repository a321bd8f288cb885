"""Boxes of both formats as masks, found by the image's name, and files that cannot be used."""

import json
import unicodedata

import numpy as np
import pytest
from PIL import Image

from hf_robustvit.errors import UserError
from hf_robustvit.masks.boxes import BoxMasks


VOC = """<annotation><filename>{name}</filename><size><width>40</width><height>30</height><depth>3</depth></size>
{objects}</annotation>"""
VOC_BOX = "<object><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


@pytest.fixture
def coco(tmp_path):
    images = [{"id": 7, "file_name": "cat/a.jpg", "width": 40, "height": 30}]
    images += [{"id": 8, "file_name": "b.jpg", "width": 40, "height": 30}]
    images += [{"id": 9, "file_name": "none.jpg", "width": 40, "height": 30}]
    boxes = [{"image_id": 7, "bbox": [10, 5, 20, 10]}, {"image_id": 7, "bbox": [0, 25, 3.4, 99]}]
    boxes += [{"image_id": 8, "bbox": [50, 5, 20, 10]}]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": boxes}))
    return path


def test_coco_boxes(coco):
    masker = BoxMasks(coco)
    image = Image.new("RGB", (40, 30))
    sizes = [masker.prepare(image) for image in (image, image, image, Image.new("RGB", (20, 30)))]
    two, outside, none, other_size = masker(sizes, ["cat/a.jpg", "dog/b.jpg", "dog/none.jpg", "cat/a.png"])
    wanted = np.zeros((30, 40), dtype=np.uint8)
    wanted[5:15, 10:30] = wanted[25:, 0:3] = 255
    np.testing.assert_array_equal(two.image, wanted)
    assert two.problem is None
    assert outside.problem == "its boxes contain none of its pixels"
    assert none.problem == "instances.json has no box for it"
    assert other_size.problem == "its boxes are for 40x30 pixels, it has 20x30"
    assert masker.settings == {"source": "boxes", "boxes": str(coco)}


def test_voc_counts_pixels_from_one(tmp_path):
    (tmp_path / "a.xml").write_text(VOC.format(name="a.jpg", objects=VOC_BOX.format(11, 6, 30, 15)))
    (tmp_path / "b.xml").write_text(VOC.format(name="b.jpg", objects=VOC_BOX.format(1, 1, 40, 30)))
    part, whole = BoxMasks(tmp_path)([(40, 30)] * 2, ["cat/a.jpg", "cat/b.jpg"])
    wanted = np.zeros((30, 40), dtype=np.uint8)
    wanted[5:15, 10:30] = 255
    np.testing.assert_array_equal(part.image, wanted)
    assert np.asarray(whole.image).all()
    (single,) = BoxMasks(tmp_path / "a.xml")([(40, 30)], ["cat/a.jpg"])
    assert single.problem is None


def coco_of(tmp_path, names):
    """A file of one box for each image, whose width tells which it is."""
    images = [{"id": n, "file_name": name, "width": 40, "height": 30} for n, name in enumerate(names)]
    boxes = [{"image_id": n, "bbox": [0, 0, n + 1, 1]} for n in range(len(names))]
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({"images": images, "annotations": boxes}))
    return path


@pytest.mark.parametrize(
    "names",
    [
        ["cat\\a.jpg", "dog\\a.jpg"],
        ["images/cat/a.jpg", "images/dog/a.jpg"],
        ["C:\\data\\cat\\a.jpg", ".\\dog\\a.png"],
        ["./cat/a.jpg", "/home/me/dog/a.jpg"],
    ],
)
def test_names_with_backslashes_and_other_folders(tmp_path, names):
    masker, image_ids = BoxMasks(coco_of(tmp_path, names)), ["cat/a.jpg", "dog/a.jpg", "ant/a.jpg"]
    masker.check(image_ids)
    masks = masker([(40, 30)] * 3, image_ids)
    assert [np.count_nonzero(mask.image) for mask in masks] == [1, 2, 0]
    assert masks[2].problem == "boxes.json has no box for it"


def test_accents_and_images_without_classes(tmp_path):
    masker = BoxMasks(coco_of(tmp_path, [unicodedata.normalize("NFD", "train/é.jpg")]))
    masker.check(["é.jpg"])
    assert masker([(40, 30)], ["é.jpg"])[0].problem is None


@pytest.mark.parametrize(
    "names, image_ids, sentence",
    [
        (["b.jpg"], ["cat/b.jpg", "dog/b.jpg"], "'b' could be 'cat/b.jpg' or 'dog/b.jpg': name the files with their"),
        (
            ["train/b.jpg", "val/b.jpg"],
            ["b.jpg"],
            "'b.jpg' could be 'train/b' or 'val/b': give the files the images' names",
        ),
        (["cat/b.jpg", "cat\\b.png"], ["cat/b.jpg"], r"boxes.json has two images 'cat/b' \(suffixes do not count\)"),
        (
            ["x/b.jpg", "c.jpg"],
            ["cat/b.jpg", "d.jpg"],
            r"none of its 2 names \(first: 'x/b'\) is that of one of the 2 images \(first: 'cat/b'\): make the names",
        ),
    ],
)
def test_names_that_fit_two_images_or_none(tmp_path, names, image_ids, sentence):
    with pytest.raises(UserError, match=f"--boxes .*{sentence}"):
        BoxMasks(coco_of(tmp_path, names)).check(image_ids)


def test_voc_files_below_one_more_folder(tmp_path):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations/a.xml").write_text(VOC.format(name="a.jpg", objects=VOC_BOX.format(1, 1, 7, 1)))
    masker = BoxMasks(tmp_path)
    masker.check(["a.jpg"])
    assert np.count_nonzero(masker([(40, 30)], ["a.jpg"])[0].image) == 7


@pytest.mark.parametrize("name", ["n01_1", "%s"])  # as some of ImageNet's files say
def test_voc_files_are_found_by_their_own_name(tmp_path, name):
    for folder in ("n01", "n02"):
        (tmp_path / "train" / folder).mkdir(parents=True)
        text = VOC.format(name=name, objects=VOC_BOX.format(1, 1, 10 + (folder == "n02"), 1))
        (tmp_path / "train" / folder / "1.xml").write_text(text)
    masks = BoxMasks(tmp_path)([(40, 30)] * 3, ["n01/1.JPEG", "n02/1.JPEG", "n03/1.JPEG"])
    assert [np.count_nonzero(mask.image) for mask in masks] == [10, 11, 0]
    assert masks[2].problem == f"{tmp_path.name} has no box for it"


@pytest.mark.parametrize(
    "name, content, sentence",
    [
        ("x.json", "{", r"x.json cannot be read as COCO JSON \(JSONDecodeError"),
        ("x.json", '{"images": []}', r"x.json cannot be read as COCO JSON \(KeyError: 'annotations'"),
        ("x.json", '{"images": [], "annotations": []}', "x.json has no boxes; give a COCO .json file"),
        ("x.json", "[" * 100_000, r"x.json cannot be read as COCO JSON \(ValueError: it is nested too deeply\)"),
        (
            "x.json",
            '{"images": [{"id": 1, "file_name": "a", "width": 1e999, "height": 1}], "annotations": []}',
            r"x.json cannot be read as COCO JSON \(OverflowError",
        ),
        ("x.xml", "<annotation>", "x.xml cannot be read as Pascal VOC XML"),
        ("x.xml", "<annotation/>", "x.xml cannot be read as Pascal VOC XML"),
        ("x.xml", VOC.format(name="a.jpg", objects=""), "x.xml has no boxes"),
        ("x.xml", '<!DOCTYPE a [<!ENTITY b "b">]><annotation>&b;</annotation>', ".*it declares a document type"),
        ("x.xml", VOC.format(name="a.jpg", objects=VOC_BOX.format(1, "nan", 3, 4)), ".*are not the corners of a box"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, name, content, sentence):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=f"--boxes .*{sentence}"):
        BoxMasks(tmp_path / name)


def test_missing_file_and_boxes_given_twice(tmp_path):
    with pytest.raises(UserError, match="--boxes .*nowhere.json cannot be read"):
        BoxMasks(tmp_path / "nowhere.json")
    for folder in ("train/cat", "val/cat"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "1.xml").write_text(VOC.format(name="1.jpg", objects=VOC_BOX.format(1, 1, 9, 9)))
    with pytest.raises(UserError, match="has boxes for 'cat/1' in two files"):
        BoxMasks(tmp_path)
