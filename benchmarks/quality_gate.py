"""What the quality gate keeps on Cutouts, by its thresholds: `python -m benchmarks.quality_gate`.

Masks of development images, good where their IoU with the exact mask is at least 0.5, and of scenes without an
object, which have no good mask. TokenCut runs on the embedded model's features.
"""

import argparse

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.common import write_section
from hf_robustvit.cutouts.scenes import SCENES, draw_scene
from hf_robustvit.cutouts.splits import render
from hf_robustvit.data.regions import intersection_over_union
from hf_robustvit.masks.quality import QualityGate
from hf_robustvit.masks.tokencut import ObjectMask, TokenCut, TokenCutOptions


THRESHOLDS = [(0.0, 0.0), (0.02, 0.0), (0.02, 0.2), (0.02, 0.5), (0.05, 0.5), (0.1, 0.5), (0.2, 0.5)]
BATCH_SIZE = 50


def masks_of_cutouts(indices: range, empty_scenes: int, seed: int = 0) -> tuple[list[ObjectMask], list[float]]:
    """TokenCut's masks of development images and then of scenes without an object, and their IoU (0 without one)."""
    torch.set_num_threads(1)
    tokencut = TokenCut(TokenCutOptions(backbone="cutouts-vit", image_size=128, sigma_spatial=8))
    images = [render("dev", index) for index in indices]
    rng, kinds = np.random.default_rng(seed), list(SCENES)
    scenes = [draw_scene(kinds[index % len(kinds)], rng) for index in range(empty_scenes)]
    pictures, masks = [image.image for image in images] + scenes, []
    for start in tqdm(range(0, len(pictures), BATCH_SIZE)):
        batch = pictures[start : start + BATCH_SIZE]
        masks += tokencut([tokencut.prepare(picture) for picture in batch], [""] * len(batch))
    found = [
        intersection_over_union(np.asarray(mask.image) > 0, np.asarray(image.mask) > 127)
        for mask, image in zip(masks, images, strict=False)
    ]
    return masks, found + [0.0] * len(scenes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--empty_scenes", type=int, default=200)
    arguments = parser.parse_args()
    masks, found = masks_of_cutouts(range(arguments.images), arguments.empty_scenes)
    good = np.array(found[: arguments.images]) >= 0.5
    lines = [
        f"{arguments.images} development images, {good.sum()} with a good mask (IoU of 0.5 or more), and "
        f"{arguments.empty_scenes} scenes without an object. Kept by the gate:",
        "",
        "| min_eigen_gap | min_agreement | good masks | other masks | empty scenes |",
        "|---|---|---|---|---|",
    ]
    for eigen_gap, agreement in THRESHOLDS:
        gate = QualityGate(min_eigen_gap=eigen_gap, min_agreement=agreement)
        kept = np.array([mask.scores is not None and gate.reason(mask.scores) is None for mask in masks])
        of_images, of_scenes = kept[: arguments.images], kept[arguments.images :]
        counts = [
            f"{(of_images & good).sum()} of {good.sum()}",
            f"{(of_images & ~good).sum()} of {(~good).sum()}",
            f"{of_scenes.sum()} of {arguments.empty_scenes}",
        ]
        lines.append(f"| {eigen_gap} | {agreement} | {' | '.join(counts)} |")
    write_section("The quality gate's thresholds", lines)


if __name__ == "__main__":
    main()
