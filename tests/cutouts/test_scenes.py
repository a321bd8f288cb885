import numpy as np
import pytest

from hf_robustvit.cutouts.scenes import SCENES, draw_scene


@pytest.mark.parametrize("name", SCENES)
def test_scene_is_an_image_decided_by_its_seed(name):
    first, again, other = (np.asarray(draw_scene(name, np.random.default_rng(seed))) for seed in (0, 0, 1))
    assert first.shape == (64, 64, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 5
    assert first.std() > 5


def test_scenes_differ_more_than_images_of_one_scene():
    colours = {
        name: np.stack([np.asarray(draw_scene(name, np.random.default_rng(seed))).mean((0, 1)) for seed in range(20)])
        for name in SCENES
    }
    means = np.stack([values.mean(0) for values in colours.values()])
    distances = np.linalg.norm(means[:, None] - means, axis=-1)[~np.eye(10, dtype=bool)]
    spread = np.mean([np.linalg.norm(values - values.mean(0), axis=-1).mean() for values in colours.values()])
    assert distances.mean() > 3 * spread
