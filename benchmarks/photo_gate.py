"""Whether the quality gate tells good masks of photographs from bad ones, and which thresholds do so best.

    python run_masks.py --images PHOTOS --annotated MASKS --backbone M --output_dir OUT
    python -m benchmarks.photo_gate --judged masks.csv OUT [OUT ...]

masks.csv judges the annotated masks: `image` (as in masks.json), `foreground_share`, `components` and `kept` (1 where
it can be trusted). Only photos with a trusted mask count; TokenCut's mask is good where their IoU is at least 0.5. The
thresholds with the best balanced accuracy are chosen on the photos whose names have an even CRC and on the images of
`benchmarks.quality_gate`, both with the same weight; what they do is told of the other photos, of 400 further images
and of 200 other scenes.
"""

import argparse
import itertools
import json
import zlib
from dataclasses import asdict, astuple
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from benchmarks.common import write_section
from benchmarks.quality_gate import masks_of_cutouts
from hf_robustvit.masks.quality import MaskScores, QualityGate


BEFORE = QualityGate(0.01, 0.9, 20, 0.2, 0.1)  # found on Cutouts alone
SHARES = QualityGate(0.02, 0.75, 10**6, 0, 0)  # the rule of masks.csv, as far as it is about shares of the image
# No gap of 0: a cut that another one equals is not even found again in another run.
GRID = ((0.01, 0.02, 0.05), (0.5, 0.6, 0.75, 0.9), (10, 20, 30, 50), (0.2, 0.3, 0.5, 0.7), (0.02, 0.05, 0.1, 0.2))
SCORES = ("area", "components", "agreement", "eigen_gap")
CUTOUTS = "Cutouts"


def read_photos(folder: Path, trusted: set[str]) -> tuple[str, pd.DataFrame]:
    """The title of a folder of run_masks.py, and the scores and the IoU of its masks."""
    report = json.loads((folder / "masks.json").read_text(encoding="utf-8"))
    settings = report["settings"]
    title = f"{Path(settings['backbone']).name}, {settings['image_size']} pixels, tau {settings['tau']}"
    images = report["images"].items()
    masks = [{**mask, "image": image} for image, mask in images if image in trusted and "area" in mask]
    return title, pd.DataFrame(masks).assign(
        report=lambda masks: [zlib.crc32(name.encode()) % 2 for name in masks.image]
    )


def read_cutouts() -> pd.DataFrame:
    """The same of Cutouts."""
    parts = []
    for half in (0, 1):
        masks, found = masks_of_cutouts(range(400 * half, 400 * half + 400), empty_scenes=200, seed=half)
        scored = zip(masks, found, strict=True)
        parts += [{**asdict(mask.scores), "iou": iou, "report": half} for mask, iou in scored if mask.scores]
    return pd.DataFrame(parts)


def accepted(masks: pd.DataFrame, gate: QualityGate) -> np.ndarray:
    return np.array(
        [gate.reason(scores) is None for scores in itertools.starmap(MaskScores, masks[list(SCORES)].values)]
    )


def balanced_accuracy(kept: np.ndarray, good: np.ndarray) -> float:
    """The mean of the shares of good masks that are kept and of bad ones that are not."""
    return (kept[good].mean() + 1 - kept[~good].mean()) / 2


def choose(sets: dict[str, pd.DataFrame]) -> QualityGate:
    """The thresholds of the grid with the best balanced accuracy: photos' mean and Cutouts weigh the same."""
    halves = {name: masks[masks.report == 0] for name, masks in sets.items()}

    def value(gate: QualityGate) -> float:
        values = {name: balanced_accuracy(accepted(half, gate), half.iou >= 0.5) for name, half in halves.items()}
        return values.pop(CUTOUTS) + np.mean(list(values.values()))

    return max(itertools.starmap(QualityGate, itertools.product(*GRID)), key=value)


def gain(kept: np.ndarray, before: np.ndarray, good: np.ndarray) -> str:
    """The difference of two balanced accuracies in points, with its paired bootstrap interval of 95 %."""
    rng, differences = np.random.default_rng(0), []
    for rows in rng.integers(len(good), size=(2000, len(good))):
        differences.append(balanced_accuracy(kept[rows], good[rows]) - balanced_accuracy(before[rows], good[rows]))
    difference = balanced_accuracy(kept, good) - balanced_accuracy(before, good)
    low, high = np.quantile(differences, [0.025, 0.975])
    return f"{100 * difference:+.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def gate_lines(sets: dict[str, pd.DataFrame], gates: dict[str, QualityGate]) -> list[str]:
    """What each gate keeps of what was not used for the choice."""
    lines = [
        "| masks | gate | kept | mean IoU: kept, others | precision | recall | balanced accuracy | difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, masks in sets.items():
        masks = masks[masks.report == 1]
        iou = masks.iou.to_numpy()
        good, before = iou >= 0.5, accepted(masks, BEFORE)
        for title, gate in gates.items():
            kept = accepted(masks, gate)
            lines.append(
                f"| {name} | {title} | {kept.sum()} of {len(kept)} | {iou[kept].mean():.2f}, {iou[~kept].mean():.2f} "
                f"| {good[kept].mean():.2f} | {kept[good].mean():.2f} | {100 * balanced_accuracy(kept, good):.1f} "
                f"| {'' if gate == BEFORE else gain(kept, before, good)} |"
            )
    return lines


def judged_lines(judged: pd.DataFrame, gates: dict[str, QualityGate]) -> list[str]:
    """The other way round: what shares and pieces of the gate say of the annotated masks themselves."""
    lines = ["| gate, area and pieces only | kept of the trusted | kept of the others |", "|---|---|---|"]
    trusted = judged.kept == 1
    for title, gate in gates.items():
        scores = zip(judged.foreground_share, judged.components, strict=True)
        kept = np.array([gate.reason(MaskScores(*score, agreement=1, eigen_gap=2)) is None for score in scores])
        lines.append(
            f"| {title} | {kept[trusted].sum()} of {trusted.sum()} | {kept[~trusted].sum()} of {(~trusted).sum()} |"
        )
    areas = [roc_auc_score(trusted, -judged[name]) for name in ("foreground_share", "components")]
    return [*lines, "", f"AUC for `kept` of a small area {areas[0]:.2f}, of few pieces {areas[1]:.2f}."]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+", help="Output folders of run_masks.py with --annotated.")
    parser.add_argument("--judged", type=Path, required=True, help="The table of the annotated masks.")
    arguments = parser.parse_args()
    judged = pd.read_csv(arguments.judged)
    trusted = set(judged.image[judged.kept == 1])
    sets = dict(read_photos(folder, trusted) for folder in arguments.folders) | {CUTOUTS: read_cutouts()}
    chosen = choose(sets)
    gates = {"before": BEFORE, "shares of masks.csv": SHARES, "chosen": chosen}
    lines = [
        "| masks | good (IoU of 0.5 or more) | mean IoU | AUC: area | components | agreement | eigen_gap |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, masks in sets.items():
        good = masks.iou >= 0.5
        areas = " | ".join(f"{roc_auc_score(good, masks[score]):.2f}" for score in SCORES)
        lines.append(f"| {name} | {good.sum()} of {len(good)} | {masks.iou.mean():.2f} | {areas} |")
    terms = ", ".join(f"{name} {value}" for name, value in asdict(chosen).items())
    half = "On what took no part in the choice:"
    beside = "" if astuple(chosen) == astuple(QualityGate()) else " They are not the defaults."
    lines += ["", f"Chosen: {terms}.{beside} {half}", "", *gate_lines(sets, gates), "", *judged_lines(judged, gates)]
    write_section("The quality gate on photographs", lines)


if __name__ == "__main__":
    main()
