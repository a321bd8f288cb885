"""Images with other surroundings, as the model is shown them."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from planted_benchmarks import dataset_of
from transformers import ViTImageProcessorPil

from hf_robustvit.evaluation.backgrounds import GreyBackgrounds, SwappedBackgrounds


OBJECT, BACKGROUNDS = 100, (0, 50, 150, 200)


@pytest.fixture
def paths(tmp_path):
    """Four images, each the object's grey in the middle of a grey of its own."""
    files = []
    for number, value in enumerate(BACKGROUNDS):
        image = np.full((32, 32, 3), value, dtype=np.uint8)
        image[8:24, 8:24] = OBJECT
        mask = np.zeros((32, 32), dtype=np.uint8)
        mask[8:24, 8:24] = 255
        files.append((tmp_path / f"image{number}.png", tmp_path / f"mask{number}.png"))
        for picture, path in zip((image, mask), files[-1], strict=True):
            Image.fromarray(picture).save(path)
    return files


def shown(images_class, paths) -> list[tuple[int, int]]:
    """The grey of the object and of its surroundings in every image; (0, 0) where it is unreadable."""
    rows = dataset_of([image for image, _ in paths], [0, 0, 1, 1], ["c0", "c1"])
    rows = rows.add_column("mask", [{"path": str(mask), "bytes": None} for _, mask in paths], feature=datasets.Image())
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32}, do_normalize=False)
    colours = []
    for item in torch.utils.data.DataLoader(images_class(rows, processor), batch_size=None):
        values = (255 * item["pixel_values"][0]).round()
        inside = torch.zeros(32, 32, dtype=torch.bool)
        inside[8:24, 8:24] = True
        object_colours, background_colours = (values[part].unique() for part in (inside, ~inside))
        assert len(object_colours) == len(background_colours) == 1
        assert item["readable"] == bool(item["mask"].any())
        colours.append((int(object_colours), int(background_colours)))
    return colours


def test_grey_backgrounds(paths):
    assert shown(GreyBackgrounds, paths) == [(OBJECT, 128)] * 4


def test_swapped_backgrounds_are_those_of_the_other_class_each_once(paths):
    objects, backgrounds = zip(*shown(SwappedBackgrounds, paths), strict=True)
    assert objects == (OBJECT,) * 4
    assert sorted(backgrounds[:2]) == [150, 200] and sorted(backgrounds[2:]) == [0, 50]


def test_a_broken_image_lends_no_background_and_harms_no_other(paths):
    paths[2][0].write_bytes(b"no picture")
    colours = shown(SwappedBackgrounds, paths)
    assert colours[2] == (0, 0)
    assert all(colours[index][0] == OBJECT and colours[index][1] in (0, 50, 200) for index in (0, 1, 3))
