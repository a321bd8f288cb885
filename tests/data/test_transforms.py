import pickle

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers import ViTImageProcessorPil

from hf_robustvit.data import EvalTransform, TrainTransform, collate_pairs, with_pair_transform
from hf_robustvit.errors import UserError


def processor(size, **options):
    return ViTImageProcessorPil(size={"height": size, "width": size}, **options)


def batch_of(*sizes, seed=0):
    """Images of (width, height) whose red channel is their mask: whatever is done to them, that must stay so."""
    generator = np.random.default_rng(seed)
    masks = [generator.integers(0, 256, (height, width), dtype=np.uint8) for width, height in sizes]
    images = [np.stack([mask, *generator.integers(0, 256, (2, *mask.shape), dtype=np.uint8)], -1) for mask in masks]
    return {
        "image": [Image.fromarray(image) for image in images],
        "mask": [Image.fromarray(mask) for mask in masks],
        "label": list(range(len(sizes))),
        "image_id": [f"image {number}" for number in range(len(sizes))],
    }


def by_hand(picture, resized, box):
    """Resize to (width, height), crop, scale to [0, 1]: (height, width[, channels])."""
    return np.asarray(picture.resize(resized, Image.Resampling.BILINEAR).crop(box)).astype(np.float32) / 255


@pytest.mark.parametrize("transform_class", [TrainTransform, EvalTransform])
@pytest.mark.parametrize("size", [(97, 60), (20, 30), (7, 400)])
def test_mask_and_image_get_the_same_treatment(transform_class, size):
    transform = transform_class(processor(32))
    for seed in range(12):
        torch.manual_seed(seed)
        out = transform(batch_of(size, seed=seed))
        pixel_values, mask = out["pixel_values"][0], out["mask"][0]
        assert pixel_values.shape == (3, 32, 32) and mask.shape == (1, 32, 32)
        assert pixel_values.dtype == mask.dtype == torch.float32
        torch.testing.assert_close(pixel_values[:1] / 2 + 0.5, mask, rtol=0, atol=1e-6)
        assert 0 <= mask.min() and mask.max() <= 1 and mask.std() > 0


@pytest.mark.parametrize(
    ("size", "resized", "box"),
    [
        ((500, 375), (341, 256), (58, 16, 282, 240)),  # (341 - 224) / 2 = 58.5, rounded to even
        ((375, 500), (256, 341), (16, 58, 240, 282)),
        ((256, 256), (256, 256), (16, 16, 240, 240)),
        ((64, 48), (341, 256), (58, 16, 282, 240)),
        ((503, 375), (343, 256), (60, 16, 284, 240)),  # (343 - 224) / 2 = 59.5
    ],
)
def test_validation_is_resize_and_centre_crop(size, resized, box):
    batch = batch_of(size)
    out = EvalTransform(processor(224))(batch)
    mean_and_std = np.float32(0.5)
    expected = (by_hand(batch["image"][0], resized, box) - mean_and_std) / mean_and_std
    np.testing.assert_array_equal(out["pixel_values"][0].numpy(), expected.transpose(2, 0, 1))
    np.testing.assert_array_equal(out["mask"][0][0].numpy(), by_hand(batch["mask"][0], resized, box))


@pytest.mark.parametrize(
    ("size", "resized", "box"),
    # Crop 48 x 96 of at least 55 x 110: a square image grows to 110 x 110, a long one to height 55.
    [((100, 100), (110, 110), (7, 31, 103, 79)), ((300, 100), (165, 55), (34, 4, 130, 52))],
)
def test_validation_of_a_crop_that_is_not_square(size, resized, box):
    batch = batch_of(size)
    out = EvalTransform(processor(224), crop_size=(48, 96))(batch)
    assert out["pixel_values"][0].shape == (3, 48, 96)
    np.testing.assert_array_equal(out["mask"][0][0].numpy(), by_hand(batch["mask"][0], resized, box))


@pytest.mark.parametrize("size", [(1, 50), (50, 1), (3, 2), (1, 1)])
def test_tiny_images(size):
    for transform in (TrainTransform(processor(64)), EvalTransform(processor(64))):
        assert transform(batch_of(size))["pixel_values"][0].shape == (3, 64, 64)


def test_training_crops_and_flips_are_those_of_the_paper():
    """Every result is one crop of the resized image, flipped or not; both and the corners of the range occur."""
    batch = batch_of((40, 30))
    transform = TrainTransform(processor(28), crop_size=(28, 14))
    assert transform.resize_size == (32, 16)
    resized = np.asarray(batch["mask"][0].resize((16, 32), Image.Resampling.BILINEAR)).astype(np.float32) / 255
    crops = {}
    for top in range(5):
        for left in range(3):
            crop = resized[top : top + 28, left : left + 14]
            crops[crop.tobytes()] = (top, left, False)
            crops[np.ascontiguousarray(crop[:, ::-1]).tobytes()] = (top, left, True)
    torch.manual_seed(0)
    seen = [crops[transform(batch)["mask"][0].numpy().tobytes()] for _ in range(600)]
    assert set(seen) == set(crops.values()) and len(crops) == 30
    flipped = np.mean([flip for _, _, flip in seen])
    assert abs(flipped - 0.5) < 0.06  # three standard deviations


def test_same_seed_same_augmentation():
    batch, transform = batch_of((50, 50)), TrainTransform(processor(32))
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        results.append(transform(batch)["pixel_values"][0])
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


@pytest.mark.parametrize(
    ("image_processor", "crop_size", "expected"),
    [
        (processor(224), None, ((224, 224), (256, 256))),
        (processor(64), None, ((64, 64), (73, 73))),
        (processor(224), 64, ((64, 64), (73, 73))),
        (processor(224), [64, 96], ((64, 96), (73, 110))),
        (ViTImageProcessorPil(size={"shortest_edge": 112}), None, ((112, 112), (128, 128))),
        (
            ViTImageProcessorPil(
                size={"shortest_edge": 256}, do_center_crop=True, crop_size={"height": 224, "width": 196}
            ),
            None,
            ((224, 196), (256, 224)),
        ),
    ],
)
def test_sizes_come_from_the_processor(image_processor, crop_size, expected):
    transform = TrainTransform(image_processor, crop_size)
    assert (transform.crop_size, transform.resize_size) == expected


def test_normalisation_is_the_processors():
    batch = batch_of((32, 32))
    raw = EvalTransform(processor(32, do_normalize=False))(batch)["pixel_values"][0]
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    normal = EvalTransform(processor(32, image_mean=mean, image_std=std))(batch)["pixel_values"][0]
    torch.testing.assert_close(normal, (raw - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None])
    assert raw.min() >= 0 and raw.max() <= 1


def test_processor_without_a_usable_size():
    with pytest.raises(
        UserError, match="The image processor's size .* has neither height and width nor shortest_edge"
    ):
        EvalTransform(ViTImageProcessorPil(size={"longest_edge": 32}))


def test_batch_without_masks():
    batch = batch_of((40, 40), (30, 50))
    del batch["mask"]
    out = EvalTransform(processor(32))(batch)
    assert set(out) == {"pixel_values", "label", "image_id"}
    collated = collate_pairs([{key: out[key][row] for key in out} for row in range(2)])
    assert set(collated) == {"pixel_values", "labels", "image_ids"}


@pytest.fixture
def dataset():
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "mask": datasets.Image(),
            "label": datasets.ClassLabel(names=list("abc")),
            "image_id": datasets.Value("string"),
        }
    )
    return datasets.Dataset.from_dict(batch_of((40, 30), (30, 40), (32, 32)), features=features)


@pytest.mark.parametrize("attach", [datasets.Dataset.with_transform, with_pair_transform])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_through_a_data_set_and_workers(dataset, attach, num_workers):
    transform = pickle.loads(pickle.dumps(TrainTransform(processor(32))))
    loader = DataLoader(attach(dataset, transform), batch_size=2, collate_fn=collate_pairs, num_workers=num_workers)
    first, second = loader
    assert first["pixel_values"].shape == (2, 3, 32, 32) and second["pixel_values"].shape == (1, 3, 32, 32)
    assert first["masks"].shape == (2, 1, 32, 32) and first["masks"].dtype == torch.float32
    assert first["labels"].tolist() == [0, 1] and first["labels"].dtype == torch.int64
    assert first["image_ids"] + second["image_ids"] == ["image 0", "image 1", "image 2"]
    torch.testing.assert_close(first["pixel_values"][:, :1] / 2 + 0.5, first["masks"], rtol=0, atol=1e-6)


def test_workers_differ_and_epochs_differ_but_seeds_repeat():
    """Four copies of one image: no two workers and no two epochs may repeat each other's crops."""
    copies = {column: values * 4 for column, values in batch_of((80, 80)).items()}
    loader = DataLoader(
        with_pair_transform(datasets.Dataset.from_dict(copies), TrainTransform(processor(32))),
        batch_size=1,
        num_workers=2,
        collate_fn=collate_pairs,
    )

    def epoch():
        return [batch["masks"] for batch in loader]

    torch.manual_seed(3)
    first, second = epoch(), epoch()
    torch.manual_seed(3)
    assert all(torch.equal(one, other) for one, other in zip(first, epoch(), strict=True))
    assert not torch.equal(first[0], first[1])
    assert not all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_file_is_named_while_training(tmp_path, num_workers):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "mask.png").write_bytes(b"broken")
    row = {"image": str(tmp_path / "a.png"), "mask": str(tmp_path / "mask.png"), "image_id": "a", "label": 0}
    features = {"image": datasets.Image(), "mask": datasets.Image(), "image_id": datasets.Value("string")}
    features["label"] = datasets.Value("int64")
    broken = datasets.Dataset.from_list([row], features=datasets.Features(features))
    loader = DataLoader(
        with_pair_transform(broken, TrainTransform(processor(8))), collate_fn=collate_pairs, num_workers=num_workers
    )
    with pytest.raises(UserError, match="mask.png is not a picture. Repair or remove it; .*check_pairs finds all"):
        next(iter(loader))


def test_ignored_pixels_are_minus_one_wherever_they_are_mixed_in():
    mask, ignored = np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)
    mask[:, :2], ignored[:, 5:] = 255, 255
    row = {"image": Image.new("RGB", (8, 8)), "mask": Image.fromarray(mask), "ignore": Image.fromarray(ignored)}
    (found,) = EvalTransform(processor(28))({name: [value] for name, value in row.items()} | {"image_id": ["a"]})[
        "mask"
    ]
    # 8 pixels become 32, of which the middle 28 are kept: the ignored ones start at 20, less half a pixel's mixture.
    assert (found[0, :, 18:] == -1).all()
    assert (found[0, :, :4] == 1).all() and (found[0, :, 8:15] == 0).all()
    assert ((found >= 0) | (found == -1)).all()
