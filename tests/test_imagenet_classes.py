"""The class lists, held against anchors that do not come from the package they were made from."""

import re

from dataset_scripts import make_imagenet_classes
from hf_robustvit.imagenet_classes import IMAGENET_A, IMAGENET_R, NAMES, SI_SCORE, WNIDS


def test_wnids_are_the_sorted_thousand():
    assert len(WNIDS) == 1000 and list(WNIDS) == sorted(set(WNIDS))
    assert all(re.fullmatch(r"n\d{8}", wnid) for wnid in WNIDS)
    # Indices the authors' released class table gives, among them the five pairs ImageNet-S merges.
    for wnid, index in {
        "n01440764": 0, "n04356056": 837, "n04355933": 836, "n04493381": 876, "n02808440": 435, "n03642806": 620,
        "n03832673": 681, "n04008634": 744, "n03773504": 657, "n03887697": 700, "n15075141": 999,
    }.items():  # fmt: skip
        assert WNIDS.index(wnid) == index


def test_names_are_readable_and_unique():
    assert len(NAMES) == len(set(NAMES)) == 1000
    assert all(name.isascii() and "," not in name for name in NAMES)
    named = {0: "tench", 134: "crane (bird)", 517: "crane (machine)", 409: "analog clock", 530: "digital clock"}
    assert {index: NAMES[index] for index in named} == named


def test_imagenet_a_and_r_share_86_classes():
    for subset in (IMAGENET_A, IMAGENET_R):
        assert len(subset) == 200 and list(subset) == sorted(set(subset))
        assert 0 <= subset[0] and subset[-1] < 1000
    assert len(set(IMAGENET_A) & set(IMAGENET_R)) == 86
    assert IMAGENET_A[:3] == (6, 11, 13) and IMAGENET_R[:3] == (1, 2, 4)


def test_si_score_names_one_distinct_index_each():
    assert len(SI_SCORE) == len(set(SI_SCORE.values())) == 112
    assert SI_SCORE["kite"] == 21 and NAMES[21] == "kite"  # the bird, as its authors have it
    assert (SI_SCORE["flowerpot"], SI_SCORE["missile"], SI_SCORE["volleyball (ball)"]) == (738, 657, 890)
    same_name = [name for name, index in SI_SCORE.items() if NAMES[index].lower() == name]
    assert len(same_name) > 70


def test_the_generating_script_writes_where_the_package_reads():
    assert make_imagenet_classes.TARGET.is_file()
    assert make_imagenet_classes.TARGET.name == "imagenet_classes.json"
