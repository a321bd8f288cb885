"""Cutouts: objects pasted on scenes, rendered offline, with exact masks.

A demonstration, not evidence about photographs.
"""

from hf_robustvit.cutouts.assets import ASSETS, CLASS_NAMES, STYLES, USUAL_SCENES
from hf_robustvit.cutouts.splits import BENCHMARK_SPLITS, SPLITS, VERSION, CutoutsImage, render
