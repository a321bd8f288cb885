"""The quality gate: which masks are good enough to train with, and why the others are not.

TokenCut always finds a foreground, even where there is no object. A few numbers, which need no annotation, tell the
two cases apart. A source of masks gives those that it has; the others are None and not judged.
"""

from dataclasses import dataclass, fields

from transformers.hf_argparser import HfArg

from hf_robustvit.errors import UserError


@dataclass(frozen=True)
class MaskScores:
    """The measurements of a mask.

    Attributes:
        area: Share of the image, in [0, 1].
        components: Number of connected regions of patches on the object's side of the cut, or of pixels in the
            saliency network's map. One object is in one piece.
        agreement: IoU of the mask after and before the bilateral solver, in [0, 1].
        eigen_gap: Third minus second eigenvalue of the cut, in [0, 2]. Near 0, another cut would be as good.
        unsure: Share of the pixels that a saliency network gives neither to the object nor to its background.
        score: Confidence of the best box that the class's name gave, in [0, 1].
        null_score: Confidence of the null prompt's best box in the same place; 0 where it has none.
        shared: IoU with the mask that another source made of the image; 0 where that was rejected.
    """

    area: float
    components: int
    agreement: float | None = None
    eigen_gap: float | None = None
    unsure: float | None = None
    score: float | None = None
    null_score: float | None = None
    shared: float | None = None


@dataclass(frozen=True)
class QualityGate:
    """The thresholds that a mask's scores must meet."""

    min_area: float = HfArg(default=0.02, help="Smallest mask, as a share of the image.")
    max_area: float = HfArg(default=0.5, help="Largest mask, as a share of the image.")
    max_components: int = HfArg(default=30, help="Most pieces of the object (TokenCut's on the patch grid).")
    min_agreement: float = HfArg(default=0.5, help="Smallest IoU between the mask before and after its refinement.")
    min_eigen_gap: float = HfArg(default=0.02, help="Smallest distance of the cut's eigenvalue to the next one.")
    max_unsure: float = HfArg(default=0.1, help="Largest share of pixels that a saliency network is unsure of.")

    min_score: float = HfArg(
        default=0.0, help="Smallest confidence of the best box of a class's name, where --box_threshold is lower."
    )
    max_null: float = HfArg(
        default=0.8, help="Largest confidence of the null prompt in the same place, as a share of the class's own."
    )
    min_shared: float = HfArg(default=0.5, help="Smallest IoU with the mask of another source (--agree_with).")

    def __post_init__(self):
        for threshold in fields(self):
            value = getattr(self, threshold.name)
            if value < 0:
                raise UserError(f"--{threshold.name} must not be negative, found {value}.")
        if not self.min_area <= self.max_area <= 1:
            raise UserError(
                f"--min_area and --max_area must be shares of the image with min_area <= max_area <= 1, found "
                f"{self.min_area} and {self.max_area}."
            )

    def reason(self, scores: MaskScores) -> str | None:
        """Why a mask is rejected, or None if it is accepted."""
        if scores.area < self.min_area:
            return f"mask covers {scores.area:.1%} of the image, less than {self.min_area:.1%}"
        if scores.area > self.max_area:
            return f"mask covers {scores.area:.1%} of the image, more than {self.max_area:.1%}"
        if scores.components > self.max_components:
            return f"foreground falls into {scores.components} pieces, more than {self.max_components}"
        if scores.agreement is not None and scores.agreement < self.min_agreement:
            return f"refined and unrefined mask have IoU {scores.agreement:.2f}, less than {self.min_agreement:.2f}"
        if scores.eigen_gap is not None and scores.eigen_gap < self.min_eigen_gap:
            return f"eigen-gap of the cut is {scores.eigen_gap:.4f}, less than {self.min_eigen_gap:.4f}"
        if scores.unsure is not None and scores.unsure > self.max_unsure:
            return f"network is unsure of {scores.unsure:.1%} of the pixels, more than {self.max_unsure:.1%}"
        if scores.score is not None and scores.score < self.min_score:
            return f"the name's best box has confidence {scores.score:.2f}, less than {self.min_score:.2f}"
        if scores.null_score is not None and scores.null_score > self.max_null * scores.score:
            return (
                f"the null prompt finds the same with confidence {scores.null_score:.2f}, more than "
                f"{self.max_null:.0%} of the name's {scores.score:.2f}"
            )
        if scores.shared is not None and scores.shared < self.min_shared:
            return f"IoU with the other source's mask is {scores.shared:.2f}, less than {self.min_shared:.2f}"
        return None
