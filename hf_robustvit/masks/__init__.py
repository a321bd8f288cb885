"""Where foreground masks come from: TokenCut, class names, a saliency network, boxes; and the gate they pass."""

from hf_robustvit.flags.masks import OPTIONS, QualityGate, SaliencyOptions, TextOptions, TokenCutOptions
from hf_robustvit.masks.bilateral import bilateral_solver
from hf_robustvit.masks.boxes import BoxMasks
from hf_robustvit.masks.folder import MaskFolder
from hf_robustvit.masks.graph_cut import normalized_cut
from hf_robustvit.masks.quality import MaskScores
from hf_robustvit.masks.saliency import SaliencyMasks
from hf_robustvit.masks.sources import SOURCES, Source, options_of
from hf_robustvit.masks.text import TextMasker
from hf_robustvit.masks.tokencut import TokenCut
from hf_robustvit.masks.training import with_made_masks
