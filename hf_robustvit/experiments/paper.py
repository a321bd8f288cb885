"""The paper's list of experiments: for each table and figure, what is fine-tuned and how it is shown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_robustvit.config import PAPER_MODELS, PAPER_SETTINGS
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
        if PAPER_MODELS.get(model, "ViT-B") not in PAPER_SETTINGS[method]:
            return None
        settings = {"masks": "annotated", "method": method, **suite.settings, **suite.method_settings.get(method, {})}
        return Run.of(model, settings | self.settings, self.share)


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

# What tells an effect of the masks from one of fine-tuning, of augmentation or of any map.
CONTROLS = (
    ORIGINAL,
    Recipe("Plain fine-tuning", {"method": "finetune"}),
    Recipe("Confidence only", {"lambda_relevance": 0.0, "classification_target": "predicted"}),
    Recipe("Random mask", {"masks": "random"}),
    Recipe("Mask of the whole image", {"masks": "whole"}),
    Recipe("Another image's mask", {"masks": "other"}),
    Recipe("Backgrounds swapped, no mask loss", {"method": "finetune", "swap_backgrounds": True}),
    Recipe("Ours, half-way (WiSE-FT)", {}, share=0.5),
    OURS,
)

SEEDS = (0, 1, 2)


def table1(suite: Suite) -> Sequence[Recipe]:
    return ORIGINAL, GRADMASK, RRR, OURS, OURS_UNANNOTATED


def table3(suite: Suite) -> Sequence[Recipe]:
    return ORIGINAL, OURS


def table4(suite: Suite) -> Sequence[Recipe]:
    return ABLATIONS


def controls(suite: Suite) -> Sequence[Recipe]:
    return CONTROLS


def seeds(suite: Suite) -> Sequence[Recipe]:
    return ORIGINAL, *(Recipe(f"Ours, seed {seed}", {"class_seed": seed}) for seed in SEEDS)


def classes(suite: Suite) -> Sequence[Recipe]:
    return ORIGINAL, Recipe("Ours", suite.half_settings)


def sensitivity(suite: Suite) -> Sequence[Recipe]:
    samples = [Recipe(f"{n} samples per class", {"samples_per_class": n}) for n in suite.sample_counts]
    return ORIGINAL, *samples, *(Recipe(f"{n} classes", {"num_classes": n}) for n in suite.class_counts)


def learning_rate_search(suite: Suite) -> Sequence[Recipe]:
    return [Recipe(f"{rate:g}", {"learning_rate": rate}) for rate in suite.learning_rates]


@dataclass(frozen=True)
class Experiment:
    """One entry of the list.

    Attributes:
        title: What it shows, and where the paper shows it.
        recipes: What is done to each model.
        show: Name of the function of `pages` that writes what it shows.
        models: Which of the suite's models, by their short names; all if None.
        benchmarks: Which of the suite's benchmarks the runs are scored on.
    """

    title: str
    recipes: Callable[[Suite], Sequence[Recipe]]
    show: str
    models: Callable[[Suite], Sequence[str]] | None = None
    benchmarks: Callable[[Suite], Sequence[str]] = lambda suite: [*suite.benchmarks.values(), suite.segmentation]

    def rows(self, suite: Suite) -> list[tuple[str, Recipe, Run]]:
        """(short name of the model, recipe, run) for every row, models together."""
        names = self.models(suite) if self.models else suite.models
        made = [
            (name, recipe, recipe.run(suite, suite.models[name])) for name in names for recipe in self.recipes(suite)
        ]
        return [row for row in made if row[2] is not None]


def segmentation_only(suite: Suite) -> Sequence[str]:
    return [suite.segmentation]


def masked(suite: Suite) -> Sequence[str]:
    return suite.with_masks


def nothing(suite: Suite) -> Sequence[str]:
    return []


def base_models(suite: Suite) -> Sequence[str]:
    return suite.base_models


def ablation_models(suite: Suite) -> Sequence[str]:
    return suite.ablation_models


def first_model(suite: Suite) -> Sequence[str]:
    return list(suite.models)[:1]


EXPERIMENTS: dict[str, Experiment] = {
    "table1": Experiment("Robustness on natural images (Tab. 1)", table1, "natural_table"),
    "table2": Experiment("Robustness on SI-Score (Tab. 2)", table1, "synthetic_table"),
    "table3": Experiment(
        "Relevance maps against masks (Tab. 3)", table3, "segmentation_table", None, segmentation_only
    ),
    "table4": Experiment("Ablations (Tab. 4 and 12)", table4, "accuracy_tables", ablation_models),
    "controls": Experiment("Controls: is it the masks?", controls, "accuracy_tables", ablation_models),
    "seeds": Experiment("Random training classes and images (Tab. 8 and 9)", seeds, "seed_tables"),
    "classes": Experiment(
        "Training and held-out classes (Fig. 4, Tab. 10 and 11)", classes, "class_groups", base_models
    ),
    "sensitivity": Experiment(
        "Samples per class, number of classes (Fig. 7)", sensitivity, "sensitivity", first_model
    ),
    "lr-search": Experiment(
        "Search for the learning rate (section 4)", learning_rate_search, "learning_rates", None, nothing
    ),
    "per-class": Experiment("Change by class (Fig. 8-14)", table3, "per_class", first_model),
    "examples": Experiment("Examples (Fig. 1-3, 6 and 15)", table3, "examples"),
    "sis": Experiment("Sufficient input subsets (Fig. 5)", lambda suite: [ORIGINAL], "sis", first_model, nothing),
    "oracle": Experiment("Headroom, before any fine-tuning", lambda suite: [ORIGINAL], "oracle", None, masked),
}


def choose_learning_rate(
    rates: Sequence[float],
    before: Sequence[Mapping[str, float]],
    after: Sequence[Mapping[str, float]],
    tolerance: float = 2.0,
) -> float | None:
    """Section 4's rule of thumb: the highest rate at which little is lost on the validation images.

    Args:
        rates: The learning rates that were tried.
        before: For each, the validation figures before fine-tuning: `eval_accuracy` in [0, 1] and
            `eval_classification_loss`.
        after: The same after it.
        tolerance: Percentage points that the accuracy may fall by; the paper says 2 to 3.

    Returns:
        The highest rate whose accuracy falls by at most `tolerance` and whose classification loss does not rise; None
        if there is none.
    """
    kept = [
        rate
        for rate, first, last in zip(rates, before, after, strict=True)
        if 100 * (first["eval_accuracy"] - last["eval_accuracy"]) <= tolerance
        and last["eval_classification_loss"] <= first["eval_classification_loss"]
    ]
    return max(kept, default=None)
