"""The fast bilateral solver (Barron and Poole, ECCV 2016): a coarse mask is pulled to the edges of its image.

A pixel becomes a vertex of a five-dimensional grid of position and colour, shared with the pixels near and like it. On
the few vertices one sparse linear system is solved: stay close to the target, and to the neighbouring vertices. The
constants are those TokenCut runs it with; the conjugate gradient is stopped early there, so the number of its
iterations is part of the result.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_fill_holes
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import cg

from hf_robustvit.data.regions import intersection_over_union, largest_component
from hf_robustvit.errors import UserError


SMOOTHNESS = 256.0  # lambda of the paper: weight of the neighbours against the target
CONFIDENCE = 0.999  # of every pixel's target
MAX_ITERATIONS = 25
TOLERANCE = 1e-5
SMALLEST_DIAGONAL = 1e-5
BALANCING_ITERATIONS = 10
MIN_AGREEMENT = 0.5  # IoU with the coarse mask under which TokenCut rejects the refined one
# JPEG's YUV in millionths. Whole numbers put grey exactly on its bin; the offset keeps U and V positive.
YUV_MILLIONTHS = ((299000, 587000, 114000), (-168736, -331264, 500000), (500000, -418688, -81312))
YUV_OFFSETS = (0, 128_000_000, 128_000_000)


@dataclass(frozen=True)
class Grid:
    """The occupied vertices of an image's bilateral grid.

    Attributes:
        vertex: (pixels,) the vertex of each pixel.
        blur: Sparse (vertices, vertices), 10 on the diagonal, which comes first in every row, and 1 for each of up to
            10 neighbours.
    """

    vertex: np.ndarray
    blur: csr_array


def bilateral_solver(
    image: np.ndarray,
    target: np.ndarray,
    sigma_spatial: float = 16,
    sigma_luma: float = 16,
    sigma_chroma: float = 8,
) -> np.ndarray:
    """Smooth a target where the image is smooth, and let it jump where the image has an edge.

    Args:
        image: (H, W, 3) uint8, RGB.
        target: (H, W), values in [0, 1].
        sigma_spatial: Width of a grid cell in pixels.
        sigma_luma: Width of a grid cell in grey levels.
        sigma_chroma: Width of a grid cell in levels of U and V.

    Returns:
        (H, W) float64, in [0, 1] up to the solver's tolerance.

    Raises:
        UserError: If image and target do not fit together or a sigma is not positive.
    """
    image, target = np.asarray(image), np.asarray(target, dtype=np.float64)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.shape[:2] != target.shape:
        raise UserError(
            f"bilateral_solver: image must be (H, W, 3) uint8 and target (H, W), found {image.shape} {image.dtype} "
            f"and {target.shape}."
        )
    if min(sigma_spatial, sigma_luma, sigma_chroma) <= 0:
        raise UserError(
            f"bilateral_solver: sigmas must be positive, found {sigma_spatial}, {sigma_luma} and {sigma_chroma}."
        )
    grid = _bilateral_grid(image, sigma_spatial, sigma_luma, sigma_chroma)
    vertices = grid.blur.shape[0]
    count = np.bincount(grid.vertex, minlength=vertices).astype(np.float64)
    weight = CONFIDENCE * count
    weighted_target = CONFIDENCE * np.bincount(grid.vertex, weights=target.ravel(), minlength=vertices)

    system = _system(grid.blur, count, weight)
    preconditioner = diags_array(1 / np.maximum(system.diagonal(), SMALLEST_DIAGONAL))
    solution, _ = cg(
        system,
        weighted_target,
        x0=weighted_target / weight,
        rtol=TOLERANCE,
        maxiter=MAX_ITERATIONS,
        M=preconditioner,
    )
    return solution[grid.vertex].reshape(target.shape)


def _system(blur: csr_array, count: np.ndarray, weight: np.ndarray) -> csr_array:
    """The matrix of the paper's Eq. 4: SMOOTHNESS (D_m - D_n B D_n) + diag(weight), with B made doubly stochastic."""
    balance = np.ones_like(count)  # D_n
    for _ in range(BALANCING_ITERATIONS):
        balance = np.sqrt(balance * count / (blur @ balance))
    mass = balance * (blur @ balance)  # D_m
    rows = np.repeat(balance, np.diff(blur.indptr))
    data = -SMOOTHNESS * rows * balance[blur.indices] * blur.data
    data[blur.indptr[:-1]] += SMOOTHNESS * mass + weight
    return csr_array((data, blur.indices, blur.indptr), shape=blur.shape)


def _bilateral_grid(image: np.ndarray, sigma_spatial: float, sigma_luma: float, sigma_chroma: float) -> Grid:
    """Sort the pixels into cells of position and colour, and link the occupied cells that touch.

    Cells are found through tables instead of by sorting: every occupied colour gets a number, a vertex is the pair of
    position and colour number, and a table over these pairs, 0 where empty, says which vertex it is.
    """
    height, width, _ = image.shape
    colours, next_colours = _colours(image, sigma_luma, sigma_chroma)  # (pixels,), (6, colours)
    empty = next_colours.shape[1]  # the number of no colour
    position_rows = (np.arange(height) / sigma_spatial).astype(np.int64) + 1  # a rim of empty positions
    position_cols = (np.arange(width) / sigma_spatial).astype(np.int64) + 1
    row_step = (position_cols[-1] + 2) * (empty + 1)
    col_step = empty + 1
    pairs = (position_rows[:, None] * row_step + position_cols * col_step).ravel() + colours  # (pixels,)

    table = np.zeros((position_rows[-1] + 2) * row_step, dtype=np.int32)
    pixels = np.arange(1, len(pairs) + 1, dtype=np.int32)
    table[pairs] = pixels  # the last pixel of a vertex stays and stands for it
    occupied = np.sort(pairs[table[pairs] == pixels])  # (vertices,); sorted, neighbours lie close in memory
    table[occupied] = np.arange(1, len(occupied) + 1)

    colour = occupied % col_step
    neighbours = np.stack(
        [occupied]
        + [occupied + step for step in (row_step, -row_step, col_step, -col_step)]
        + [occupied - colour + next_colour[colour] for next_colour in next_colours],
        axis=1,
    )  # (vertices, 11)
    linked = table[neighbours]
    present = linked > 0
    indptr = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
    data = np.where(np.arange(11) == 0, 10.0, 1.0)
    data = np.broadcast_to(data, present.shape)[present]
    blur = csr_array((data, linked[present] - 1, indptr), shape=(len(occupied), len(occupied)))
    return Grid(vertex=table[pairs] - 1, blur=blur)


def _colours(image: np.ndarray, sigma_luma: float, sigma_chroma: float) -> tuple[np.ndarray, np.ndarray]:
    """Number the occupied colour cells of an image.

    Returns:
        (pixels,) the number of each pixel's colour cell, and (6, colours) the numbers of the cells before and after it
        in Y, U and V; `colours`, which no cell has, where that cell is empty.
    """
    red, green, blue = np.ascontiguousarray(image.reshape(-1, 3).T, dtype=np.int32)
    cell = np.zeros(len(red), dtype=np.int64)
    steps, size = [], 1
    for weights, offset, sigma in zip(
        YUV_MILLIONTHS, YUV_OFFSETS, (sigma_luma, sigma_chroma, sigma_chroma), strict=True
    ):
        level = (weights[0] * red + weights[1] * green + weights[2] * blue + offset) // round(sigma * 1_000_000)
        level -= level.min() - 1  # a rim of empty cells
        cell += level * size
        steps.append(size)
        size *= int(level.max()) + 2
    is_occupied = np.bincount(cell, minlength=size) > 0
    occupied = np.flatnonzero(is_occupied)
    number = np.where(is_occupied, np.cumsum(is_occupied) - 1, len(occupied))
    return number[cell], np.stack([number[occupied + sign * step] for step in steps for sign in (1, -1)])


def refine_mask(image: np.ndarray, coarse: np.ndarray, *sigmas: float) -> tuple[np.ndarray, float]:
    """The solver's output at 0.5, holes filled, largest component; or the coarse mask where the two disagree.

    Args:
        image: (H, W, 3) uint8, RGB.
        coarse: (H, W) bool.
        *sigmas: Those of `bilateral_solver`, in its order.

    Returns:
        (H, W) bool, and the IoU of the refined with the coarse mask. Where that is under 0.5 the coarse one is kept.
    """
    soft = bilateral_solver(image, coarse, *sigmas)
    refined = largest_component(binary_fill_holes(soft > 0.5))
    agreement = intersection_over_union(refined, coarse)
    return (refined if agreement >= MIN_AGREEMENT else coarse), agreement
