"""The digest of what a data set holds."""

import shutil

import datasets
import PIL.Image
import pytest
from photo_folder import save_photos

from hf_robustvit.builders.composites import load_composites
from hf_robustvit.builders.image_mask_folder import load_image_mask_folder
from hf_robustvit.data.content import content_digest


def of_photos(folder, cache) -> str:
    return content_digest(load_image_mask_folder(str(folder), cache_dir=str(cache)))


def of_composites(folder, cache) -> str:
    return content_digest(load_composites("composites-size", str(folder), cache_dir=str(cache)).rows)


@pytest.mark.parametrize("digest", [of_photos, of_composites])
def test_a_copy_prepared_anew_holds_the_same_and_a_changed_picture_does_not(tmp_path, digest):
    folder = save_photos(tmp_path / "photos")
    copy = shutil.copytree(folder, tmp_path / "elsewhere", copy_function=shutil.copyfile)  # with new times
    first = digest(folder, tmp_path / "cache")
    assert digest(copy, tmp_path / "another cache") == first and len(first) == 16

    with PIL.Image.open(copy / "images" / "bee" / "1.png") as image:
        image.convert("L").save(copy / "images" / "bee" / "1.png")
    assert digest(copy, tmp_path / "cache") != first


def test_every_value_order_and_name_counts():
    rows = {"image_id": ["a", "b"], "label": [0, 1]}
    others = [
        rows | {"label": [0, 0]},
        rows | {"image_id": ["a", "c"]},
        rows | {"value": [0.5, 0.5]},
        {"image_id": ["b", "a"], "label": [1, 0]},
    ]
    digests = [content_digest(datasets.Dataset.from_dict(one)) for one in (rows, *others)]
    assert len(set(digests)) == len(digests)
    assert content_digest(datasets.Dataset.from_dict(rows)) == digests[0]
    assert content_digest(datasets.Dataset.from_dict(rows).select([1])) not in digests


def test_embedded_pictures_count_by_their_bytes():
    def digest(*colours: str) -> str:
        images = [PIL.Image.new("RGB", (8, 8), colour) for colour in colours]
        features = datasets.Features({"image": datasets.Image()})
        return content_digest(datasets.Dataset.from_dict({"image": images}, features=features))

    noise = PIL.Image.effect_noise((8, 8), 50).convert("RGB")
    features = datasets.Features({"image": datasets.Image()})
    assert digest("red") == digest("red")
    assert content_digest(datasets.Dataset.from_dict({"image": [noise]}, features=features)) != digest("red")
