"""Every threshold of the quality gate, and its reason."""

import pytest

from hf_robustvit.errors import UserError
from hf_robustvit.masks.quality import MaskScores, QualityGate


GOOD = {"area": 0.3, "components": 2, "agreement": 0.8, "eigen_gap": 0.2}


def test_a_good_mask_has_no_reason():
    assert QualityGate().reason(MaskScores(**GOOD)) is None


@pytest.mark.parametrize(
    "score, sentence",
    [
        ({"area": 0.004}, "mask covers 0.4% of the image, less than 1.0%"),
        ({"area": 0.97}, "mask covers 97.0% of the image, more than 90.0%"),
        ({"components": 21}, "foreground falls into 21 pieces, more than 20"),
        ({"agreement": 0.4}, "refined and unrefined mask have IoU 0.40, less than 0.60"),
        ({"eigen_gap": 0.001}, "eigen-gap of the cut is 0.0010, less than 0.0100"),
    ],
)
def test_each_reason(score, sentence):
    assert QualityGate(min_agreement=0.6).reason(MaskScores(**GOOD | score)) == sentence


@pytest.mark.parametrize("thresholds", [{"min_area": -0.1}, {"min_area": 0.5, "max_area": 0.2}, {"max_area": 1.5}])
def test_thresholds_that_do_not_fit(thresholds):
    with pytest.raises(UserError, match="--min_area"):
        QualityGate(**thresholds)
