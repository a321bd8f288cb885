"""The findings of an audit on planted answers: photos weigh alike, and what cannot be shown is not told."""

import pytest
from planted_benchmarks import planted_answers

from hf_robustvit.evaluation.audit_findings import find


def test_photos_weigh_alike_however_many_backgrounds_they_have():
    # The second half has one background of another class each; the last photo none.
    own, elsewhere = [0.8] * 3 + [0.8, 0.4] * 2, [0.8] * 3 + [0.2] * 4
    found = find(planted_answers(own, elsewhere, [1, 1, 1, 0, 0, 0, 0], usable=[4, 4, 3, 1, 1, 1, 0]))
    before, after = (0.8 * 5 + 0.4) / 6, (0.8 * 3 + 0.2 * 3) / 6
    assert found["num_photos"] == 6 and found["reliance"] == pytest.approx(100 * (1 - after / before))
    other = found["differences"]["other_backgrounds"]
    assert (other["before"], other["after"], other["n"]) == (pytest.approx(500 / 6), pytest.approx(50), 6)
    # The same photos, so the same figures, as in the table.
    assert found["figures"]["own_background"]["value"] == pytest.approx(other["before"])
    assert found["figures"]["own_background"]["n"] == 6
    assert found["figures"]["other_class_background"]["value"] == pytest.approx(other["after"])
    by_name = {each["class_name"]: each for each in found["classes"]}
    assert by_name["c0"]["own"] == pytest.approx(200 / 3) and by_name["c1"]["elsewhere"] == 100


def test_a_photo_that_is_wrong_to_begin_with_does_not_make_a_reliance_of_its_class():
    # Alone it would lose -1900 %; beside a photo that is right, the class loses 0.21 of 0.81.
    own, elsewhere, labels = [0.8, 0.01, 0.01, 0.9, 0.7], [0.4, 0.2, 0.2, 0.9, 0.7], [0, 0, 1, 2, 3]
    classes = find(planted_answers(own, elsewhere, labels))["classes"]
    by_name = {each["class_name"]: each for each in classes}
    assert by_name["c0"]["reliance"] == pytest.approx(100 * (1 - 0.6 / 0.81))
    assert by_name["c1"]["reliance"] is None and (by_name["c1"]["n"], by_name["c1"]["own"]) == (1, 0)
    assert [each["class_name"] for each in classes] == ["c0", "c2", "c3", "c1"]


def test_a_model_that_gets_nothing_right_has_no_reliance():
    few = [0.01, 0.002] * 16
    found = find(planted_answers(few, [0.05] * 32, [0, 1] * 16, right=False))
    assert found["verdict"] == "unclear"
    assert found["reliance"] is found["reliance_interval95"] is found["detectable_reliance"] is None
    lost = find(planted_answers([0.01] * 32, [0.001] * 32, [0, 1] * 16, right=False))
    assert lost["verdict"] == "unclear", "nine tenths of next to nothing"


@pytest.mark.parametrize("count, can_show", [(5, False), (6, True)])
def test_so_few_photos_show_no_loss_at_all(count, can_show):
    found = find(
        planted_answers([0.9] * count, [0.30, 0.31, 0.32, 0.3, 0.31, 0.3][:count], [0, 1, 2, 3, 4, 5][:count])
    )
    assert (found["detectable_reliance"] is not None) == can_show == (found["verdict"] == "background")


def test_a_loss_above_all_there_is_to_lose_is_not_told_as_power():
    own, elsewhere = [0.9, 0.01, 0.01, 0.9, 0.01, 0.01], [0.01, 0.9, 0.9, 0.01, 0.01, 0.5]
    found = find(planted_answers(own, elsewhere, [0, 1, 2, 3, 4, 5]))
    assert found["reliance_interval95"][0] < -100 and found["detectable_reliance"] is None
