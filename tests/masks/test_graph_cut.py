"""The cut of planted features, and what is no task for it."""

import numpy as np
import pytest
import scipy.linalg

from hf_robustvit.errors import UserError
from hf_robustvit.masks import normalized_cut


def planted(rows: int, cols: int, foreground: np.ndarray, noise: float = 0.3, seed: int = 0) -> np.ndarray:
    """Features (32, rows * cols): one direction on the object, another around it, and noise."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.standard_normal((32, 2)))[0]
    features = np.where(foreground.ravel(), directions[:, :1], directions[:, 1:])
    return (features + noise * rng.standard_normal(features.shape) / np.sqrt(32)).astype(np.float32)


@pytest.mark.parametrize("rows, cols", [(6, 9), (14, 14), (20, 11)])
def test_the_planted_object_is_found(rows, cols):
    truth = np.zeros((rows, cols), dtype=bool)
    truth[2:5, 3:6] = True
    found = normalized_cut(planted(rows, cols, truth), (rows, cols))
    np.testing.assert_array_equal(found.foreground, truth)
    assert found.foreground.dtype == bool and truth.flat[found.seed]
    assert found.num_components == 1 and found.eigen_gap > 0.1


def test_only_the_seeds_piece_is_kept():
    truth = np.zeros((12, 12), dtype=bool)
    truth[1:4, 1:4] = truth[7:11, 6:11] = True
    found = normalized_cut(planted(12, 12, truth), (12, 12))
    assert found.num_components == 2
    assert found.foreground.sum() in (9, 20) and (found.foreground <= truth).all()


def test_the_eigenvector_solves_the_papers_generalised_problem():
    rng = np.random.default_rng(1)
    features = rng.standard_normal((5, 90))
    found = normalized_cut(features, (9, 10))
    similarity = features.T @ features / np.outer(*[np.linalg.norm(features, axis=0)] * 2)
    affinity = np.where(similarity > 0.2, 1, 1e-5)
    degree = np.diag(affinity.sum(axis=1))
    values, vectors = scipy.linalg.eigh(degree - affinity, degree)
    wanted = vectors[:, 1] / np.linalg.norm(vectors[:, 1])
    ours = found.eigenvector.ravel() / np.linalg.norm(found.eigenvector)
    assert abs(ours @ wanted) == pytest.approx(1, abs=1e-10)
    assert found.eigen_gap == pytest.approx(values[2] - values[1], abs=1e-8)


@pytest.mark.parametrize("features", [np.ones((4, 100)), np.zeros((4, 100)), np.ones((4, 30))])
def test_patches_that_are_all_alike_have_no_gap(features):
    grid = (features.shape[1] // 10, 10)
    found = normalized_cut(features, grid)
    assert found.eigen_gap < 1e-6
    assert found.foreground.shape == grid and found.foreground.flat[found.seed]


def test_a_strip_of_patches_is_cut():
    truth = np.zeros((1, 30), dtype=bool)
    truth[0, 10:16] = True
    np.testing.assert_array_equal(normalized_cut(planted(1, 30, truth), (1, 30)).foreground, truth)


@pytest.mark.parametrize(
    "features, grid, sentence",
    [
        (np.ones((4, 9)), (2, 5), "9 features do not fill a grid of 2 x 5 patches"),
        (np.ones((4, 2)), (1, 2), "a grid of 1 x 2 patches is too small"),
        (np.full((4, 9), np.nan), (3, 3), "NaN or infinite"),
        (np.ones(9), (3, 3), "found shape"),
    ],
)
def test_features_that_do_not_fit(features, grid, sentence):
    with pytest.raises(UserError, match=sentence):
        normalized_cut(features, grid)
