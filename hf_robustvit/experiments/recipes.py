"""Ways to treat a model: the rows of the paper's tables, and the controls it does not have."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hf_robustvit import paper
from hf_robustvit.experiments.runs import Run
from hf_robustvit.experiments.suites import Suite


@dataclass(frozen=True)
class Recipe:
    """One row of a table: a way to treat a model.

    Attributes:
        label: The row's name.
        settings: Flags of run_finetune.py beyond the suite's; None leaves the model as it is.
        share: Share of the fine-tuned weights (WiSE-FT).
    """

    label: str
    settings: Mapping[str, Any] | None
    share: float = 1.0

    def run(self, suite: Suite, model: str) -> Run | None:
        """The run on a model; None where the paper has no settings of the method for it."""
        if self.settings is None:
            return Run.of(model, None)
        method = self.settings.get("method", "robustvit")
        if paper.SHORT_NAMES.get(model, "ViT-B") not in paper.SETTINGS[method]:
            return None
        settings = {"masks": "annotated", "method": method, **suite.settings, **suite.method_settings.get(method, {})}
        settings |= self.settings
        settings |= suite.mask_settings.get(settings["masks"], {})
        return Run.of(model, settings, self.share)


ORIGINAL = Recipe("Original", None)
GRADMASK = Recipe("GradMask", {"method": "gradmask"})
RRR = Recipe("RRR", {"method": "rrr"})
OURS = Recipe("Ours", {})
OURS_UNANNOTATED = Recipe("Ours, TokenCut's masks", {"masks": "tokencut"})

# Tab. 4 and 12, and what nobody has published: the gradients inside the map differentiated too.
ABLATIONS = (
    ORIGINAL,
    OURS,
    Recipe("w/o classification loss (Eq. 4)", {"lambda_classification": 0.0}),
    Recipe("w/o background loss (Eq. 1)", {"lambda_background": 0.0}),
    Recipe("w/o foreground loss (Eq. 2)", {"lambda_foreground": 0.0}),
    Recipe("w/ confidence (Eq. 4)", {"classification_target": "predicted"}),
    Recipe("w/ ground-truth", {"classification_target": "label"}),
    Recipe("w/ second order", {"second_order": True}),
)

PLAIN = Recipe("Plain fine-tuning", {"method": "finetune"})
PLAIN_SWAPPED = Recipe("Backgrounds swapped, no mask loss", {"method": "finetune", "swap_backgrounds": True})
OURS_SWAPPED = Recipe("Ours, backgrounds swapped", {"swap_backgrounds": True})

# What tells an effect of the masks from one of fine-tuning, of augmentation or of any map.
CONTROLS = (
    ORIGINAL,
    PLAIN,
    Recipe("Confidence only", {"lambda_relevance": 0.0, "classification_target": "predicted"}),
    Recipe("Random mask", {"masks": "random"}),
    Recipe("Mask of the whole image", {"masks": "whole"}),
    Recipe("Another image's mask", {"masks": "other"}),
    PLAIN_SWAPPED,
    OURS_SWAPPED,
    Recipe("Ours, half-way (WiSE-FT)", {}, share=0.5),
    OURS,
)

RECOMBINED = Recipe("Objects recombined, no mask loss", {"method": "finetune", "recombine_objects": True})
# examples/photos.yaml; docs/photos.md tells how it was found.
RECIPE = Recipe(
    "Recipe",
    {
        "method": "finetune",
        "recombine_objects": True,
        "attention_only": True,
        "learning_rate": 1e-4,
        "load_best_model_at_end": False,
    },
    share=0.4,
)

# What robustness costs is looked at for each with several shares of its weights.
FRONTIER = (RECIPE, OURS, PLAIN_SWAPPED, RECOMBINED, OURS_SWAPPED)

# The labels of the rows that train by another map than the paper's.
LIBRA_MAP, LATE_MAP = "Ours, libra's map", "Ours, map of the last layers"

SEEDS = (0, 1, 2)
CONTESTANTS = (OURS, PLAIN_SWAPPED, RECIPE)


def over_seeds(recipes: Sequence[Recipe]) -> list[Recipe]:
    """Each recipe with other classes and images, seed by seed."""
    return [
        replace(recipe, label=f"{recipe.label}, seed {seed}", settings={**recipe.settings, "class_seed": seed})
        for recipe in recipes
        for seed in SEEDS
    ]


def without_seed(label: str) -> str:
    """What the labels of one recipe's seeds have in common."""
    return re.sub(r", seed \d+$", "", label)


def map_recipes(suite: Suite) -> list[Recipe]:
    """The original; the loss on the paper's map, on LibraGrad's and on that of the last layers, over the seeds."""
    libra = Recipe(LIBRA_MAP, {"relevance_method": "libra"})
    late = Recipe(LATE_MAP, {"start_layer": suite.start_layer})
    return [ORIGINAL, *over_seeds((OURS, libra, late))]


def mask_recipes(suite: Suite) -> list[Recipe]:
    """The method with annotated masks, with their bounding boxes, and with masks from each source of the suite."""
    made = [Recipe(f"Ours, masks from {source}", {"masks": source}) for source in suite.mask_sources]
    return [ORIGINAL, OURS, Recipe("Ours, bounding boxes", {"masks": "box"}), *made]


def seed_recipes(suite: Suite) -> list[Recipe]:
    """The original, and what the suite repeats with other classes and images."""
    return [ORIGINAL, *over_seeds((OURS, PLAIN, PLAIN_SWAPPED, OURS_SWAPPED) if suite.seeds_controls else (OURS,))]


def contest_recipes() -> list[Recipe]:
    """The contestants over the seeds; then the recipe with wrong masks, and with all that was learned."""
    wrong = [
        Recipe(f"{RECIPE.label}, {masks} masks", {**RECIPE.settings, "masks": masks}, RECIPE.share)
        for masks in ("random", "other", "box")
    ]
    return [ORIGINAL, *over_seeds(CONTESTANTS), *wrong, Recipe("Recipe, not interpolated", RECIPE.settings)]
