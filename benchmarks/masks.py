"""How fast TokenCut's masks are made, against a plain implementation of the published procedure.

    python -m benchmarks.masks [--images 8] [--rounds 5] [--size 480] [--model base | small | tiny]

The plain one takes one image at a time, solves the generalised eigenproblem of all patches densely in float64, and
finds the cells of the bilateral grid and their neighbours by sorting. Both take the features of one random ViT, in
turns in one process. Equal masks are checked. The backbone is timed
separately, and results are given with and without it.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import scipy.linalg
import scipy.sparse
import torch
from PIL import Image
from scipy import ndimage
from scipy.sparse.linalg import cg
from tqdm import tqdm
from transformers import ViTConfig, ViTModel

from benchmarks.common import machine, write_section
from hf_robustvit.data.regions import intersection_over_union
from hf_robustvit.masks.backbone import Backbone
from hf_robustvit.masks.bilateral import refine_mask
from hf_robustvit.masks.graph_cut import normalized_cut


SIZES = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}  # hidden size, heads
PATCH = 16
YUV = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


class Clock:
    """Seconds by name."""

    def __init__(self):
        self.seconds = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.seconds[name] += time.process_time() - start


def plain_cut(features: np.ndarray, grid: tuple[int, int], tau: float = 0.2) -> np.ndarray:
    """The object's patches (rows, cols), from the dense eigensolver in float64."""
    directions = features / np.linalg.norm(features, axis=0)
    affinity = np.where(directions.T @ directions > tau, 1.0, 1e-5)
    degree = np.diag(affinity.sum(axis=1))
    _, vectors = scipy.linalg.eigh(degree - affinity, degree, subset_by_index=[1, 2])
    second = vectors[:, 0]
    seed = np.argmax(np.abs(second))
    side = second > second.mean()
    side = side if side[seed] else ~side
    components, _ = ndimage.label(side.reshape(grid))
    return components == components.flat[seed]


def plain_solver(image: np.ndarray, target: np.ndarray, sigmas: tuple[float, float, float]) -> np.ndarray:
    """The bilateral solver's soft output (H, W) on a grid found by sorting."""
    height, width = target.shape
    rows, cols = np.mgrid[:height, :width]
    colours = image.reshape(-1, 3) @ YUV.T + [0, 128, 128]
    cells = np.column_stack(
        [rows.ravel() / sigmas[0], cols.ravel() / sigmas[0], colours / [sigmas[1], sigmas[2], sigmas[2]]]
    )
    cells = cells.astype(np.int64) + 1
    code = np.cumprod([1, *(cells.max(axis=0) + 2)[:-1]])
    known, of_pixel = np.unique(cells @ code, return_inverse=True)
    count = len(known)
    blur = scipy.sparse.diags_array(np.full(count, 10.0)).tocsr()
    for step in np.concatenate([code, -code]):
        place = np.searchsorted(known, known + step).clip(max=count - 1)
        hit = known[place] == known + step
        links = (np.ones(hit.sum()), (np.flatnonzero(hit), place[hit]))
        blur = blur + scipy.sparse.csr_array(links, shape=(count, count))
    splat = scipy.sparse.csr_array((np.ones(of_pixel.size), (of_pixel, np.arange(of_pixel.size))))
    mass = splat @ np.ones(of_pixel.size)
    balance = np.ones(count)
    for _ in range(10):
        balance = np.sqrt(balance * mass / (blur @ balance))
    mass = balance * (blur @ balance)
    around = scipy.sparse.diags_array(balance)
    weight = splat @ np.full(of_pixel.size, 0.999)
    system = 256 * (scipy.sparse.diags_array(mass) - around @ blur @ around) + scipy.sparse.diags_array(weight)
    wanted = splat @ (0.999 * target.ravel())
    preconditioner = scipy.sparse.diags_array(1 / np.maximum(system.diagonal(), 1e-5))
    solution, _ = cg(system.tocsr(), wanted, x0=wanted / weight, rtol=1e-5, maxiter=25, M=preconditioner)
    return (splat.T @ solution).reshape(height, width)


def plain_mask(image: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """The refined mask, or the coarse one where they disagree."""
    refined = ndimage.binary_fill_holes(plain_solver(image, coarse.astype(float), (16, 16, 8)) > 0.5)
    components, count = ndimage.label(refined)
    if count:
        refined = components == 1 + np.bincount(components.ravel())[1:].argmax()
    union = (refined | coarse).sum()
    return refined if union and (refined & coarse).sum() / union >= 0.5 else coarse


def enlarge(patches: np.ndarray) -> np.ndarray:
    return patches.repeat(PATCH, axis=0).repeat(PATCH, axis=1)


def make_photographs(count: int, size: int) -> list[Image.Image]:
    """Textured blobs on textured grounds, size x 3/4 size, with the noise of a camera."""
    rng = np.random.default_rng(0)
    width, height = size, size * 3 // 4 // PATCH * PATCH
    rows, cols = np.mgrid[:height, :width]
    images = []
    for _ in range(count):
        layers = [
            np.asarray(
                Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((width, height), 3), float
            )
            for _ in range(2)
        ]
        centre, radius = rng.uniform(0.35, 0.65, 2) * (height, width), rng.uniform(0.15, 0.3) * height
        inside = np.hypot(rows - centre[0], cols - centre[1]) < radius * (1 + 0.2 * np.sin(cols / 20))
        pixels = np.where(inside[..., None], 0.35 * layers[0] + 150, 0.45 * layers[1])
        images.append(Image.fromarray((pixels + rng.normal(0, 4, pixels.shape)).clip(0, 255).astype(np.uint8)))
    return images


def plain(features: np.ndarray, pictures: list[np.ndarray], grid: tuple[int, int], clock: Clock) -> list[np.ndarray]:
    masks = []
    for one, picture in zip(features, pictures, strict=True):
        with clock("cut"):
            coarse = enlarge(plain_cut(one, grid))
        with clock("bilateral solver"):
            masks.append(plain_mask(picture, coarse))
    return masks


def ours(features: np.ndarray, pictures: list[np.ndarray], grid: tuple[int, int], clock: Clock) -> list[np.ndarray]:
    with clock("cut"):
        cuts = [normalized_cut(one, grid) for one in features]
    with clock("bilateral solver"):
        return [refine_mask(picture, enlarge(cut.foreground))[0] for picture, cut in zip(pictures, cuts, strict=True)]


def median_seconds(clocks: list[list[Clock]]) -> dict[str, float]:
    """Seconds by name for all chunks: the sum of each chunk's median over the rounds, from clocks[round][chunk]."""
    return {
        part: sum(statistics.median(clock.seconds[part] for clock in chunk) for chunk in zip(*clocks, strict=True))
        for part in clocks[0][0].seconds
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=480)
    parser.add_argument("--model", choices=SIZES, default="base")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    hidden_size, heads = SIZES[arguments.model]
    torch.manual_seed(0)
    config = ViTConfig(hidden_size=hidden_size, num_attention_heads=heads, intermediate_size=4 * hidden_size)
    backbone = Backbone(ViTModel(config, add_pooling_layer=False).eval(), [0.5] * 3, [0.5] * 3, "random", None)
    images = make_photographs(arguments.images, arguments.size)
    pictures = [np.asarray(image) for image in images]
    grid = (images[0].height // PATCH, images[0].width // PATCH)

    clocks = {"plain": [], "hf_robustvit": [], "backbone": []}
    agreement = []
    for _ in tqdm(range(1 + arguments.rounds)):  # the first warms up
        for taken in clocks.values():
            taken.append([])
        for position in range(len(images)):
            chunk = slice(position, position + 1)
            clock = {name: Clock() for name in clocks}
            with clock["backbone"]("backbone"):
                features = torch.cat([backbone.key_features([image]) for image in images[chunk]]).numpy()
            # Keys of random weights point nearly one way; what they differ in is left when the mean is taken off.
            features = features - features.mean(axis=2, keepdims=True)
            wanted = plain(features, pictures[chunk], grid, clock["plain"])
            found = ours(features, pictures[chunk], grid, clock["hf_robustvit"])
            agreement += [intersection_over_union(*pair) for pair in zip(wanted, found, strict=True)]
            for name, taken in clocks.items():
                taken[-1].append(clock[name])

    times = {name: median_seconds(taken[1:]) for name, taken in clocks.items()}
    write_section("TokenCut's masks", report(arguments, grid, times, agreement))


def report(
    arguments: argparse.Namespace, grid: tuple[int, int], times: dict[str, dict[str, float]], agreement: list[float]
) -> list[str]:
    """The lines of the results' section."""
    count, backbone = arguments.images, times.pop("backbone")["backbone"]
    totals = {name: sum(parts.values()) for name, parts in times.items()}
    ratio = totals["plain"] / totals["hf_robustvit"]
    whole = (totals["plain"] + backbone) / (totals["hf_robustvit"] + backbone)
    return [
        f"{count} images of {arguments.size} pixels, {grid[0] * grid[1]} patches, features of a random "
        f"ViT-{arguments.model}; image by image in turns, medians of {arguments.rounds} rounds, process time on one "
        f"thread. {machine()}",
        "",
        "| procedure | cut, ms | bilateral solver, ms | images/s | images/s with the backbone |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {1000 * parts['cut'] / count:.0f} | {1000 * parts['bilateral solver'] / count:.0f} "
            f"| {count / totals[name]:.2f} | {count / (totals[name] + backbone):.2f} |"
            for name, parts in times.items()
        ),
        "",
        f"The plain procedure takes {ratio:.2f} times as long (wanted: at least 3), {whole:.2f} times with the "
        f"backbone's {1000 * backbone / count:.0f} ms, which both share. IoU of the masks with the plain ones: mean "
        f"{np.mean(agreement):.4f}, least {min(agreement):.4f}.",
    ]


if __name__ == "__main__":
    main()
