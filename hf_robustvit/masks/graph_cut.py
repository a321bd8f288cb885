"""TokenCut: the object of an image as one side of a normalised cut of its patch features (paper section 4, [52])."""

import contextlib
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from scipy import ndimage
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from hf_robustvit.errors import UserError


SMALLEST_NORM = 1e-12  # of a feature; shorter ones count as this long
WEAK_EDGE = 1e-5  # weight between patches that are not alike: keeps the graph connected
DENSE_BELOW = 64  # patches; smaller graphs go straight to the dense eigensolver
MAX_RESTARTS = 100  # of the Lanczos iteration of one graph, before the dense solver takes over
SAME = 1e-8  # entries of an eigenvector closer than this, relative to the largest, count as equal


@dataclass(frozen=True)
class NormalizedCut:
    """One side of the normalised cut of a patch grid.

    Attributes:
        foreground: (rows, cols) bool, the connected component (4 neighbours) of the seed on the seed's side.
        eigenvector: (rows, cols) float64, second generalised eigenvector; above its mean on the seed's side.
        seed: Flat index of the patch with the largest absolute entry, the first of equals.
        eigen_gap: Third minus second eigenvalue, in [0, 2]. Near 0 the cut is one of several equally good ones.
        num_components: Number of connected components on the seed's side, before the seed's one is kept.
    """

    foreground: np.ndarray
    eigenvector: np.ndarray
    seed: int
    eigen_gap: float
    num_components: int


def normalized_cut(features: np.ndarray, grid: tuple[int, int], tau: float = 0.2) -> NormalizedCut:
    """Split a patch grid into object and surroundings by the second eigenvector of its similarity graph.

    Two patches are joined by an edge of weight 1 where the cosine similarity of their features exceeds `tau`, of
    weight 1e-5 elsewhere. The second generalised eigenvector of (D - A) y = lambda D y is cut at its mean; the side
    that holds its largest absolute entry, the seed, is the object's.

    Args:
        features: (dimensions, rows * cols) float, one column per patch, row by row.
        grid: (rows, cols).
        tau: Cosine similarity, in [-1, 1], above which two patches are alike.

    Raises:
        UserError: If the features do not fit the grid, are not finite, or are fewer than 3 patches.
    """
    features = np.asarray(features)
    if features.ndim != 2:
        raise UserError(f"normalized_cut: features must be (dimensions, rows * cols), found shape {features.shape}.")
    rows, cols = grid
    if features.shape[1] != rows * cols:
        raise UserError(f"normalized_cut: {features.shape[1]} features do not fill a grid of {rows} x {cols} patches.")
    if features.shape[1] < 3:
        raise UserError(f"normalized_cut: a grid of {rows} x {cols} patches is too small to be cut; 3 are needed.")
    if not np.isfinite(features).all():
        raise UserError("normalized_cut: the features hold NaN or infinite values; check the backbone's weights.")
    directions = features / np.maximum(np.linalg.norm(features, axis=0), SMALLEST_NORM)
    similarity = directions.T @ directions  # (patches, patches); numpy computes one half of a symmetric product
    return _cut(*_second_eigenvector(np.maximum(similarity > tau, WEAK_EDGE)), grid)


def _second_eigenvector(affinity: np.ndarray) -> tuple[np.ndarray, float]:
    """Second generalised eigenvector (patches,) of one graph to rounding precision, and the gap to the third.

    Solved as the symmetric problem of D^-1/2 A D^-1/2, whose largest eigenvalue, 1, has the known eigenvector
    D^1/2 1: moved to -1, it leaves the wanted pair on top for a Lanczos iteration.
    """
    patches = len(affinity)
    degree = affinity.sum(axis=1)
    scale = degree**-0.5
    trivial = np.sqrt(degree / degree.sum())

    def multiply(vector: np.ndarray) -> np.ndarray:
        vector = vector.ravel()
        return scale * (affinity @ (scale * vector)) - 2 * trivial * (trivial @ vector)

    if patches >= DENSE_BELOW:
        # tol=0 asks for rounding precision. A graph without a gap may not converge: the dense solver always does.
        with contextlib.suppress(ArpackError):
            operator = LinearOperator(affinity.shape, matvec=multiply, dtype=np.float64)
            start = np.random.default_rng(0).standard_normal(patches)
            values, vectors = eigsh(operator, k=2, which="LA", tol=0, v0=start, maxiter=MAX_RESTARTS)
            return scale * vectors[:, 1], float(values[1] - values[0])
    symmetric = affinity * scale[:, None] * scale
    values, vectors = scipy.linalg.eigh(symmetric, subset_by_index=[patches - 3, patches - 2])
    return scale * vectors[:, 1], float(values[1] - values[0])


def _cut(eigenvector: np.ndarray, eigen_gap: float, grid: tuple[int, int]) -> NormalizedCut:
    """The bipartition of an eigenvector (patches,) at its mean, and the seed's component."""
    size = np.abs(eigenvector)
    seed = int((size >= (1 - SAME) * size.max()).argmax())  # patches with the same neighbours differ by rounding only
    side = eigenvector > eigenvector.mean()
    if not side[seed]:
        side, eigenvector = ~side, -eigenvector
    components, num_components = ndimage.label(side.reshape(grid))
    return NormalizedCut(
        foreground=components == components.flat[seed],
        eigenvector=eigenvector.reshape(grid),
        seed=seed,
        eigen_gap=eigen_gap,
        num_components=num_components,
    )
