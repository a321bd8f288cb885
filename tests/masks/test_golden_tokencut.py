"""TokenCut and the bilateral solver against the authors' numbers (tests/golden/README.md)."""

from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import binary_fill_holes

from hf_robustvit.data.regions import largest_component
from hf_robustvit.errors import UserError
from hf_robustvit.masks import bilateral_solver, normalized_cut
from hf_robustvit.masks.bilateral import refine_mask


CASES = range(4)


@cache
def golden(case: int) -> SimpleNamespace:
    with np.load(Path(__file__).parent.parent / "golden" / "tokencut.npz") as file:
        names = [name.split(".", 1)[1] for name in file.files if name.startswith(f"{case}.")]
        return SimpleNamespace(**{name: file[f"{case}.{name}"] for name in names})


def cut(case: int):
    numbers = golden(case)
    return normalized_cut(numbers.feat, tuple(map(int, numbers.grid)), float(numbers.tau))


def enlarged(patches: np.ndarray, case: int) -> np.ndarray:
    height, width = golden(case).bipartition.shape
    rows, cols = patches.shape
    return patches.repeat(height // rows, axis=0).repeat(width // cols, axis=1)


@pytest.mark.parametrize("case", CASES)
def test_bipartition_and_seed_are_exactly_theirs(case):
    found, wanted = cut(case), golden(case)
    assert found.seed == int(wanted.seed)
    np.testing.assert_array_equal(enlarged(found.foreground, case), wanted.bipartition.astype(bool))


@pytest.mark.parametrize("case", CASES)
def test_eigenvector_is_theirs_up_to_sign(case):
    found, wanted = enlarged(cut(case).eigenvector, case), golden(case).eig
    sign = np.sign((found * wanted).sum())
    assert np.abs(sign * found - wanted).max() < 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("case", CASES)
def test_soft_output_of_the_bilateral_solver(case):
    numbers = golden(case)
    soft = bilateral_solver(numbers.image, numbers.bipartition, sigma_spatial=16, sigma_luma=16, sigma_chroma=8)
    assert np.abs(soft - numbers.soft).max() < 1e-3


@pytest.mark.parametrize("case", CASES)
def test_refined_mask_and_the_rule_that_refuses_it(case):
    numbers = golden(case)
    coarse = numbers.bipartition.astype(bool)
    mask, agreement = refine_mask(numbers.image, coarse)
    soft = bilateral_solver(numbers.image, coarse)
    refined = largest_component(binary_fill_holes(soft > 0.5))
    assert (refined == numbers.hard.astype(bool)).mean() >= 0.995
    assert agreement == pytest.approx(float(numbers.iou), abs=0.01)
    np.testing.assert_array_equal(mask, coarse if numbers.iou < 0.5 else refined)


def test_a_refinement_that_lost_the_object_is_refused():
    """A small patch in the middle of one colour is smoothed away; the unrefined mask stays."""
    image = np.full((96, 96, 3), 90, dtype=np.uint8)
    coarse = np.zeros((96, 96), dtype=bool)
    coarse[40:48, 40:48] = True
    mask, agreement = refine_mask(image, coarse)
    assert agreement < 0.5
    np.testing.assert_array_equal(mask, coarse)


def test_the_mask_moves_to_the_edge_of_the_image():
    image = np.full((96, 96, 3), 30, dtype=np.uint8)
    image[28:70, 24:75] = (200, 120, 40)
    truth = image[..., 0] > 100
    coarse = np.zeros((96, 96), dtype=bool)
    coarse[32:64, 32:80] = True
    mask, agreement = refine_mask(image, coarse)
    assert 0.5 < agreement < 1
    np.testing.assert_array_equal(mask, truth)


def test_image_and_target_must_fit():
    with pytest.raises(UserError, match=r"image must be \(H, W, 3\) uint8"):
        bilateral_solver(np.zeros((8, 8, 3)), np.zeros((8, 8)))
    with pytest.raises(UserError, match="sigmas must be positive"):
        bilateral_solver(np.zeros((8, 8, 3), dtype=np.uint8), np.zeros((8, 8)), sigma_luma=0)
