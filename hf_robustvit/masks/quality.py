"""The quality gate: which masks are good enough to train with, and why the others are not.

TokenCut always finds a foreground, even where there is no object. A few numbers, which need no annotation, tell the
two cases apart. A source of masks gives those that it has; the others are None and not judged.
"""

from dataclasses import dataclass

from hf_robustvit.flags.masks import QualityGate


__all__ = ["MaskScores", "QualityGate"]


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
