"""A few of the moments at which benchmarks/kill_points.py kills commands: started again, they leave the same."""

import pytest
from kill_points import KillTest, experiments_command, masks_command


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    return KillTest(masks_command(folder), folder)


@pytest.mark.parametrize("seed", range(4))
def test_masks_that_were_killed_are_made_as_if_nothing_had_happened(masks, seed):
    assert {name.partition("/")[0] for name in masks.outcome} >= {"masks", "rejected", "masks.json"}
    *_, different = masks.differences(seed)
    assert not different


def test_experiments_that_were_killed_end_as_if_nothing_had_happened(tmp_path):
    experiments = KillTest(experiments_command(tmp_path), tmp_path)
    assert sum(name.endswith("model.safetensors") for name in experiments.outcome) == 3
    *_, different = experiments.differences(seed=2)
    assert not different
