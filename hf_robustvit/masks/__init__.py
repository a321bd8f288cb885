"""Where foreground masks come from: TokenCut, the bilateral solver, the quality gate, boxes."""

from hf_robustvit.masks.bilateral import bilateral_solver
from hf_robustvit.masks.tokencut import normalized_cut


__all__ = ["bilateral_solver", "normalized_cut"]
