"""Every threshold of the quality gate, and its reason."""

import numpy as np
import pytest

from hf_robustvit.cutouts.scenes import SCENES, draw_scene
from hf_robustvit.cutouts.splits import render
from hf_robustvit.errors import UserError
from hf_robustvit.masks.quality import MaskScores, QualityGate
from hf_robustvit.masks.tokencut import TokenCut, TokenCutOptions


GOOD = {"area": 0.3, "components": 2, "agreement": 0.8, "eigen_gap": 0.2}


def test_a_good_mask_has_no_reason():
    assert QualityGate().reason(MaskScores(**GOOD)) is None
    assert QualityGate().reason(MaskScores(area=0.3, components=2)) is None  # what a source does not measure


@pytest.mark.parametrize(
    "score, sentence",
    [
        ({"area": 0.004}, "mask covers 0.4% of the image, less than 2.0%"),
        ({"area": 0.97}, "mask covers 97.0% of the image, more than 50.0%"),
        ({"components": 31}, "foreground falls into 31 pieces, more than 30"),
        ({"agreement": 0.4}, "refined and unrefined mask have IoU 0.40, less than 0.60"),
        ({"eigen_gap": 0.001}, "eigen-gap of the cut is 0.0010, less than 0.0200"),
        ({"unsure": 0.123}, "network is unsure of 12.3% of the pixels, more than 10.0%"),
    ],
)
def test_each_reason(score, sentence):
    assert QualityGate(min_agreement=0.6).reason(MaskScores(**GOOD | score)) == sentence


@pytest.mark.parametrize(
    "score, sentence",
    [
        ({}, None),
        ({"null_score": 0.32}, None),
        (
            {"null_score": 0.33},
            "the null prompt finds the same with confidence 0.33, more than 80% of the name's 0.40",
        ),
        ({"score": 0.29}, "the name's best box has confidence 0.29, less than 0.30"),
        ({"shared": 0.44}, "IoU with the other source's mask is 0.44, less than 0.50"),
        ({"area": 0.004}, "mask covers 0.4% of the image, less than 2.0%"),
    ],
)
def test_each_reason_of_a_mask_from_text(score, sentence):
    scores = {"area": 0.3, "components": 2, "score": 0.4, "null_score": 0.2, "shared": 0.5}
    assert QualityGate(min_score=0.3).reason(MaskScores(**scores | score)) == sentence


def test_false_masks_on_photos_without_the_object_by_planted_scores():
    """A name's confidence beats the null prompt's on its object, and neither's where there is nothing to find."""
    rng = np.random.default_rng(0)
    own, null = rng.uniform(0.4, 0.9, 500), rng.uniform(0, 0.3, 500)
    objects = [MaskScores(0.2, 1, score=score, null_score=other) for score, other in zip(own, null, strict=True)]
    either = rng.uniform(0.35, 0.5, (500, 2))
    nothing = [MaskScores(0.2, 1, score=score, null_score=other) for score, other in either]
    kept = [np.mean([QualityGate().reason(one) is None for one in masks]) for masks in (objects, nothing)]
    without = [np.mean([QualityGate(max_null=9).reason(one) is None for one in masks]) for masks in (objects, nothing)]
    assert kept[0] > 0.99 and kept[1] < 0.15 and without == [1, 1]


@pytest.mark.parametrize("thresholds", [{"min_area": -0.1}, {"min_area": 0.5, "max_area": 0.2}, {"max_area": 1.5}])
def test_thresholds_that_do_not_fit(thresholds):
    with pytest.raises(UserError, match="--min_area"):
        QualityGate(**thresholds)


@pytest.mark.parametrize(
    "name, value, sentence",
    [
        ("max_null", float("nan"), "must be a number that is not negative, found nan"),
        ("min_score", 1.5, "must not be above 1, found 1.5"),
        ("min_shared", 1.5, "must not be above 1, found 1.5"),
    ],
)
def test_thresholds_that_no_score_could_meet_or_fail(name, value, sentence):
    with pytest.raises(UserError, match=f"--{name} {sentence}"):
        QualityGate(**{name: value})


def test_scenes_without_an_object_are_rejected_and_objects_kept():
    tokencut = TokenCut(TokenCutOptions(backbone="cutouts-vit", image_size=128, sigma_spatial=8))
    rng = np.random.default_rng(0)
    scenes = [draw_scene(scene, rng) for scene in SCENES]
    objects = [render("dev", index).image for index in range(10)]
    masks = tokencut([tokencut.prepare(picture) for picture in scenes + objects], [""] * 20)
    kept = [mask.scores is not None and QualityGate().reason(mask.scores) is None for mask in masks]
    assert sum(kept[:10]) <= 1 and sum(kept[10:]) == 10
