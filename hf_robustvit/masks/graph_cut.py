"""TokenCut: the object of an image as one side of a normalised cut of its patch features (paper section 4, [52])."""

import contextlib
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from scipy import ndimage
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from hf_robustvit.errors import UserError


SMALLEST_NORM = 1e-12  # of a feature; shorter ones count as this long
WEAK_EDGE = 1e-5  # weight between patches that are not alike: keeps the graph connected
DENSE_BELOW = 64  # patches; smaller graphs go straight to the dense eigensolver
MAX_RESTARTS = 100  # of the Lanczos iteration of one graph, before the dense solver takes over
MAX_LANCZOS_STEPS = 200  # of a batch; graphs that need more go through the solver for one graph
CHECK_EVERY = 8  # Lanczos steps between two looks at convergence
PRECISION = 1e-9  # residual over gap: the error of a batched eigenvector
SAME = 1e-8  # entries of an eigenvector closer than this, relative to the largest, count as equal
SMALLEST_GAP = 1e-6  # eigenvalues closer than this do not determine a batched eigenvector


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
    _check(features.shape[1], bool(np.isfinite(features).all()), grid)
    directions = features / np.maximum(np.linalg.norm(features, axis=0), SMALLEST_NORM)
    similarity = directions.T @ directions  # (patches, patches); numpy computes one half of a symmetric product
    return _cut(*_second_eigenvector(np.maximum(similarity > tau, WEAK_EDGE)), grid)


@torch.no_grad()
def normalized_cuts(features: torch.Tensor, grid: tuple[int, int], tau: float = 0.2) -> list[NormalizedCut]:
    """`normalized_cut` for a batch of images with one grid, on the device of the features.

    The eigenvectors come from a batched Lanczos iteration in float64. Images for which it does not converge, or whose
    second and third eigenvalue coincide, go through the exact solver.

    Args:
        features: (batch, dimensions, rows * cols) float.
        grid: (rows, cols).
        tau: Cosine similarity above which two patches are alike.

    Raises:
        UserError: As `normalized_cut`.
    """
    _check(features.shape[2], bool(torch.isfinite(features).all()), grid)
    directions = torch.nn.functional.normalize(features, dim=1, eps=SMALLEST_NORM)
    similarity = directions.transpose(1, 2) @ directions  # (batch, patches, patches)
    affinity = (similarity > tau).double().clamp(min=WEAK_EDGE)
    vectors, gaps, trusted = _second_eigenvectors(affinity)
    pairs = zip(vectors.cpu().numpy(), gaps.tolist(), strict=True)
    return [
        _cut(*(pair if good else _second_eigenvector(graph.cpu().numpy())), grid)
        for pair, good, graph in zip(pairs, trusted.tolist(), affinity, strict=True)
    ]


def _check(patches: int, finite: bool, grid: tuple[int, int]) -> None:
    rows, cols = grid
    if patches != rows * cols:
        raise UserError(f"normalized_cut: {patches} features do not fill a grid of {rows} x {cols} patches.")
    if patches < 3:
        raise UserError(f"normalized_cut: a grid of {rows} x {cols} patches is too small to be cut; 3 are needed.")
    if not finite:
        raise UserError("normalized_cut: the features hold NaN or infinite values; check the backbone's weights.")


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


def _second_eigenvectors(affinity: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same for (batch, patches, patches) graphs at once: vectors, gaps, and which of them may be trusted.

    Lanczos iteration with full reorthogonalisation, stopped when every second eigenvector has settled. The third
    eigenvalue, and with it the gap, is known to about two digits then.
    """
    batch, patches, _ = affinity.shape
    degree = affinity.sum(dim=2)  # (batch, patches)
    scale = degree.rsqrt()
    trivial = (degree / degree.sum(dim=1, keepdim=True)).sqrt()[:, None]  # (batch, 1, patches)
    steps = min(MAX_LANCZOS_STEPS, patches - 2)
    basis = affinity.new_zeros(batch, steps + 1, patches)  # rows: trivial-free orthonormal Krylov vectors
    diagonal, off_diagonal = affinity.new_zeros(2, batch, steps).unbind()

    start = torch.from_numpy(np.random.default_rng(0).standard_normal(patches)).to(affinity.device)
    basis[:, 0] = torch.nn.functional.normalize(_without(start.expand(batch, 1, patches), trivial)[:, 0], dim=1)
    for step in range(steps):
        image = scale * (affinity @ (scale * basis[:, step])[..., None])[..., 0]  # (batch, patches)
        diagonal[:, step] = (image * basis[:, step]).sum(dim=1)
        known = torch.cat([trivial, basis[:, : step + 1]], dim=1)
        image = _without(_without(image[:, None], known), known)[:, 0]  # twice is enough for orthogonality
        off_diagonal[:, step] = image.norm(dim=1)
        basis[:, step + 1] = image / off_diagonal[:, step, None].clamp(min=SMALLEST_GAP)
        if step % CHECK_EVERY == CHECK_EVERY - 1 or step == steps - 1:
            size = step + 1
            small = torch.diag_embed(diagonal[:, :size]) + sum(
                torch.diag_embed(off_diagonal[:, : size - 1], offset) for offset in (-1, 1)
            )
            values, coefficients = torch.linalg.eigh(small)  # (batch, size), (batch, size, size)
            gap = values[:, -1] - values[:, -2]
            settled = off_diagonal[:, step] * coefficients[:, -1, -1].abs() <= PRECISION * gap
            if settled.all():
                break
    vectors = (coefficients[:, None, :, -1] @ basis[:, :size])[:, 0]
    trusted = settled & (gap > SMALLEST_GAP) & (off_diagonal[:, :size].amin(dim=1) > SMALLEST_GAP)
    return scale * vectors, gap, trusted


def _without(vectors: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """(batch, n, patches) vectors minus their components along orthonormal (batch, m, patches) directions."""
    return vectors - (vectors @ directions.transpose(1, 2)) @ directions


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
