"""The sentences of an audit on planted answers: no impossible number, and a rule that is told where it decides."""

import re

import pytest
from planted_benchmarks import planted_answers

from hf_robustvit.evaluation.audit_findings import find
from hf_robustvit.reporting.audit import gain_sentence, verdict_sentence
from hf_robustvit.reporting.tables import interval


def sentence_of(*planted, **settings) -> str:
    return verdict_sentence(find(planted_answers(*planted, **settings)))


def test_below_six_photos_the_rule_is_told():
    sentence = sentence_of([0.9] * 3, [0.1, 0.15, 0.2], [0, 1, 2])
    assert sentence.startswith("These 3 photos are too few to tell whether the model leans on the background: ")
    assert "at least 6 to say that it does, and 30 to say that it does not" in sentence
    assert "objects lose 83 % [" in sentence and "four of five" not in sentence


def test_a_wide_interval_has_no_impossible_bound():
    own, elsewhere = [0.9, 0.01, 0.01, 0.9, 0.01, 0.01], [0.01, 0.9, 0.5, 0.01, 0.01, 0.1]
    sentence = sentence_of(own, elsewhere, [0, 1, 2, 3, 4, 5])
    assert re.search(r"objects lose \d+ % \[below 0, \d+\] of the probability of their class", sentence)
    assert "no loss, however large, could reliably be shown with 6 photos as varied as these" in sentence
    assert "At least 30 photos are needed to say that the model does not lean on the background." in sentence


def test_a_power_is_told_where_there_is_one():
    elsewhere = [0.9, 0.9, 0.9, 0.8, 0.9, 0.5, 0.9, 0.9]
    sentence = sentence_of([0.9] * 8, elsewhere, list(range(8)))
    assert re.search(
        r"The limit is 10 %; with 8 photos, only a loss of \d\d % or more would be shown to be above it in four of",
        sentence,
    )


def test_nothing_is_lost_where_probabilities_rise_and_nothing_is_to_be_gained():
    found = find(planted_answers([0.8] * 61, [0.81, *[0.82] * 60], [0, *[1] * 30, *[2] * 30]))
    sentence, gain = verdict_sentence(found), gain_sentence(found)
    assert (
        sentence.startswith("The model does not lean on the background: ")
        and "objects lose none [below 0] " in sentence
    )
    assert "does not rise [below 0, " in sentence
    assert re.search(r"unusual, nothing, because they cost no top-1 now \[below 0, \d", gain)
    assert "-0.0" not in gain and "changes top-1 by +0.0 points" in gain


def test_a_model_that_gets_nothing_right_is_told_so():
    sentence = sentence_of([0.01, 0.002] * 16, [0.05] * 32, [0, 1] * 16, right=False)
    assert sentence.startswith(
        "The model gets none of these 32 photos right as they are, so nothing can be said about"
    )
    assert "of the probability" not in sentence and "that each photo is in the folder of its class" in sentence


@pytest.mark.parametrize("bounds, shown", [([-0.0, 1.25], "[0.0, 1.2]"), ([-0.04, -0.01], "[0.0, 0.0]")])
def test_a_bound_that_rounds_to_0_has_no_sign(bounds, shown):
    assert interval(bounds, 1) == shown
