import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch.nn import functional

from hf_robustvit.metrics import RelevanceSegmentation, segmentation_counts
from hf_robustvit.metrics.relevance_segmentation import batch_counts


GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="module")
def golden():
    expected = json.loads((GOLDEN / "expected.json").read_text())["segmentation"]
    with np.load(GOLDEN / "golden.npz") as arrays:
        raw, masks = torch.from_numpy(arrays["seg_raw"]), arrays["seg_label"]
    maps = functional.interpolate(raw.reshape(-1, 1, 14, 14), scale_factor=16, mode="bilinear")[:, 0]
    return maps, masks, expected


def test_every_golden_count_is_exact(golden):
    maps, masks, expected = golden
    for relevance, mask, image in zip(maps, masks, expected["per_image"], strict=True):
        counts = segmentation_counts(relevance, mask)
        assert counts[:6].tolist() == [image["labeled"], image["correct"], *image["inter"], *image["union"]]
        assert counts[6] == pytest.approx(image["ap"], abs=1e-9)


def test_running_golden_scores(golden):
    maps, masks, expected = golden
    metric = RelevanceSegmentation()
    for last, image in enumerate(expected["per_image"], start=1):
        scores = metric.compute(predictions=maps[:last], references=masks[:last])
        assert scores["pixel_accuracy"] == pytest.approx(image["running_pixAcc"], abs=1e-12)
        assert scores["mean_iou"] == pytest.approx(image["running_mIoU"], abs=1e-12)
        assert scores["mean_average_precision"] == pytest.approx(image["running_mAP"], abs=1e-9)


def test_add_and_add_batch_keep_no_maps_and_start_afresh(golden):
    maps, masks, expected = golden
    metric = RelevanceSegmentation()
    metric.add(prediction=maps[0], reference=masks[0])
    metric.add_batch(predictions=maps[1:], references=masks[1:])
    assert metric.compute()["mean_iou"] == pytest.approx(expected["mIoU"], abs=1e-12)
    with pytest.raises(ValueError, match="no image was added"):
        metric.compute()


def test_min_max_normalised_maps_score_as_raw_ones(golden):
    relevance, mask = golden[0][0], golden[1][0]
    normalised = (relevance - relevance.min()) / (relevance.max() - relevance.min())
    np.testing.assert_array_equal(segmentation_counts(normalised, mask), segmentation_counts(relevance, mask))


def test_a_map_equal_to_the_mask_is_perfect_and_its_complement_is_wrong_everywhere():
    mask = np.zeros((5, 7), dtype=np.int8)
    mask[1:3, 2:6] = 1
    metric = RelevanceSegmentation()
    perfect = metric.compute(predictions=[mask.astype(np.float32)], references=[mask])
    assert perfect == {"pixel_accuracy": 1.0, "mean_iou": 1.0, "mean_average_precision": 1.0}
    inverted = metric.compute(predictions=[1.0 - mask], references=[mask])
    assert (inverted["pixel_accuracy"], inverted["mean_iou"]) == (0.0, 0.0)


def test_a_pixel_at_the_mean_is_background():
    counts = segmentation_counts([[0.0, 0.5, 1.0]], [[0, 1, 1]])
    assert counts[:6].tolist() == [3, 2, 1, 1, 2, 2]


def test_a_constant_map_is_finite_whatever_its_value():
    mask = [[0, 0, 0, 1]]
    for value in (0.0, 0.3, 1.0):
        counts = segmentation_counts([[value] * 4], mask)
        assert counts.tolist() == [4, 3, 3, 0, 4, 1, 0.5]


def test_ignored_pixels_count_nowhere():
    kept = segmentation_counts([[0.0, 0.2, 1.0, 0.4]], [[0, -1, 1, 0]])
    assert kept[0] == 3 and kept[1] == 3 and kept[6] == 1.0


def test_a_batch_is_counted_as_scikit_learn_does():
    rng = np.random.default_rng(0)
    maps = torch.tensor(np.round(rng.random((6, 9, 14)) ** 2, 2), dtype=torch.float32)  # many equal values
    masks = torch.tensor(rng.choice([-1, 0, 1], size=(6, 9, 14), p=[0.2, 0.5, 0.3]), dtype=torch.int8)
    masks[4], masks[5], maps[3] = 0, -1, 0.7
    counts = batch_counts(maps, masks)
    for relevance, mask, found in zip(maps[:5], masks[:5], counts, strict=False):
        np.testing.assert_array_equal(segmentation_counts(relevance, mask), found)
        spread = relevance.max() - relevance.min()
        scores = ((relevance - relevance.min()) / spread if spread else torch.full_like(relevance, 0.5)).numpy()
        kept, actual = mask.numpy() >= 0, mask.numpy() == 1
        targets = np.concatenate([~actual[kept], actual[kept]])
        wanted = average_precision_score(targets, np.concatenate([1 - scores[kept], scores[kept]]))
        assert float(found[6]) == pytest.approx(wanted, abs=1e-15)
        predicted = scores > scores.mean()
        assert found[:2].tolist() == [kept.sum(), (predicted == actual)[kept].sum()]
    assert counts[5, :6].tolist() == [0] * 6 and counts[5, 6].isnan()
    maps[0, 2, 3], maps[2, 0, 0] = torch.nan, torch.inf
    after = batch_counts(maps, masks)
    assert after[:, 6].isnan().tolist() == [True, False, True, False, False, True]
    torch.testing.assert_close(after[[1, 3, 4]], counts[[1, 3, 4]], rtol=0, atol=0)


def test_images_of_different_sizes():
    metric = RelevanceSegmentation()
    scores = metric.compute(predictions=[[[0.0, 1.0]], [[1.0], [0.0], [0.0]]], references=[[[0, 1]], [[0], [0], [0]]])
    assert scores["pixel_accuracy"] == pytest.approx(4 / 5)


@pytest.mark.parametrize(
    ("relevance", "mask", "message"),
    [
        ([[0.0, 1.0]], [[0], [1]], r"\(1, 2\) and \(2, 1\)"),
        ([[[0.0, 1.0]]], [[[0, 1]]], r"must be \(H, W\)"),
        ([[0.0, float("nan")]], [[0, 1]], "NaN"),
        ([[0.0, 1.0]], [[-1, -1]], "ignores every pixel"),
    ],
)
def test_what_cannot_be_scored_is_an_error(relevance, mask, message):
    with pytest.raises(ValueError, match=message):
        segmentation_counts(relevance, mask)
