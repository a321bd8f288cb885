"""The interval of a mean over models that are scored on the same images."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from hf_robustvit.evaluation.statistics import bootstrap_interval
from hf_robustvit.experiments.runs import Run
from hf_robustvit.experiments.tables import mean_change_interval


IMAGES = 400


def book(changes, **columns):
    """Three models, right or wrong about even and odd (training) images; a change is -1, 0 or 1."""
    runs = [Run.of(f"model{number}", {"method": "robustvit"}) for number in range(len(changes))]
    rows = [row for run in runs for row in (("M", None, Run.of(run.model, None)), ("M", None, run))]

    def frame(correct):
        return pd.DataFrame(
            {
                "label": 3,
                "top5_indices": [[3, 0] if hit else [0, 1] for hit in correct],
                "training_class": np.arange(IMAGES) % 2 == 1,
            }
            | columns,
            index=[f"{number:03d}" for number in range(IMAGES)],
        )

    def paired_predictions(run, benchmark):
        assert benchmark == "set"
        change = changes[runs.index(run)]
        return frame(change < 0), frame(change > 0)

    experiment = SimpleNamespace(rows=lambda suite: rows)
    return SimpleNamespace(
        workshop=SimpleNamespace(suite=None), experiment=experiment, paired_predictions=paired_predictions
    )


def test_models_that_err_alike_tell_no_more_than_one():
    change = np.random.default_rng(0).choice([-1, 0, 1], IMAGES, p=[0.2, 0.4, 0.4])
    for is_training, images in ((True, change[1::2]), (False, change[::2])):
        interval = mean_change_interval(book([change] * 3), "set", "top1", is_training)
        assert interval == pytest.approx(100 * np.array(bootstrap_interval(np.mean, images)))
        half = 100 * 1.96 * images.std() / np.sqrt(len(images))
        assert interval == pytest.approx([100 * images.mean() - half, 100 * images.mean() + half], abs=1)


def test_models_that_err_apart_tell_more():
    changes = np.random.default_rng(0).choice([-1, 0, 1], (3, IMAGES), p=[0.2, 0.4, 0.4])
    low, high = mean_change_interval(book(changes), "set", "top1", is_training=True)
    per_image = changes.mean(axis=0)[1::2]
    assert (low + high) / 2 == pytest.approx(100 * per_image.mean(), abs=1)
    assert high - low == pytest.approx(2 * 196 * per_image.std() / np.sqrt(IMAGES / 2), rel=0.1)


def test_objects_are_resampled_whole_where_they_repeat():
    objects = np.arange(IMAGES) // 10  # five training images of each
    change = np.random.default_rng(0).choice([-1, 0, 1], IMAGES // 10, p=[0.2, 0.4, 0.4])[objects]
    by_image = mean_change_interval(book([change] * 3), "set", "top1", is_training=True)
    by_object = mean_change_interval(book([change] * 3, object=objects), "set", "top1", is_training=True)
    expected = bootstrap_interval(np.mean, change[1::2], objects[1::2])
    assert by_object == pytest.approx(100 * np.array(expected))
    assert np.diff(by_object)[0] == pytest.approx(np.sqrt(5) * np.diff(by_image)[0], rel=0.15)
