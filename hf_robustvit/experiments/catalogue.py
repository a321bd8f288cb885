"""The paper's list of experiments: for each table and figure, what is fine-tuned and how it is shown."""

from functools import partial
from operator import attrgetter

from hf_robustvit.experiments.book import Experiment
from hf_robustvit.experiments.contest import contest
from hf_robustvit.experiments.figures import examples, per_class, sis
from hf_robustvit.experiments.frontier import frontier, frontier_recipes
from hf_robustvit.experiments.learning_rate import learning_rates
from hf_robustvit.experiments.masks import mask_tables
from hf_robustvit.experiments.recipes import (
    ABLATIONS,
    CONTESTANTS,
    CONTROLS,
    GRADMASK,
    LATE_MAP,
    LIBRA_MAP,
    ORIGINAL,
    OURS,
    OURS_UNANNOTATED,
    RECIPE,
    RRR,
    Recipe,
    contest_recipes,
    map_recipes,
    mask_recipes,
    seed_recipes,
)
from hf_robustvit.experiments.tables import (
    accuracy_tables,
    class_groups,
    natural_table,
    oracle,
    seed_tables,
    segmentation_table,
    sensitivity,
    synthetic_table,
)


EXPERIMENTS: dict[str, Experiment] = {
    "table1": Experiment(
        title="Robustness on natural images (Tab. 1)",
        recipes=lambda suite: [ORIGINAL, GRADMASK, RRR, OURS, OURS_UNANNOTATED],
        show=natural_table,
    ),
    "table2": Experiment(
        title="Robustness to place, rotation and size (Tab. 2)",
        recipes=lambda suite: [ORIGINAL, GRADMASK, RRR, OURS, OURS_UNANNOTATED],
        show=synthetic_table,
    ),
    "table3": Experiment(
        title="Relevance maps against masks (Tab. 3)",
        recipes=lambda suite: [ORIGINAL, OURS],
        benchmarks=lambda suite: [suite.segmentation],
        show=segmentation_table,
    ),
    "table4": Experiment(
        title="Ablations (Tab. 4 and 12)",
        recipes=lambda suite: ABLATIONS,
        models=attrgetter("ablation_models"),
        show=accuracy_tables,
    ),
    "controls": Experiment(
        title="Controls: the same images without the right masks",
        recipes=lambda suite: CONTROLS,
        models=attrgetter("ablation_models"),
        show=accuracy_tables,
    ),
    "masks": Experiment(
        title="Where the masks come from",
        recipes=mask_recipes,
        models=attrgetter("first_model"),
        show=mask_tables,
    ),
    "seeds": Experiment(
        title="Training classes and images drawn at random (Tab. 8 and 9)",
        recipes=seed_recipes,
        show=seed_tables,
    ),
    "classes": Experiment(
        title="Training and held-out classes (Fig. 4, Tab. 10 and 11)",
        recipes=lambda suite: [ORIGINAL, Recipe(OURS.label, suite.half_settings)],
        models=attrgetter("base_models"),
        show=class_groups,
    ),
    "frontier": Experiment(
        title="What robustness costs on natural images",
        recipes=lambda suite: [ORIGINAL, *frontier_recipes()],
        models=attrgetter("first_model"),
        benchmarks=lambda suite: [*suite.benchmarks.values()],
        show=frontier,
    ),
    "recipe": Experiment(
        title="The recipe, its rivals and wrong masks",
        recipes=lambda suite: contest_recipes(),
        models=attrgetter("first_model"),
        benchmarks=lambda suite: [*suite.benchmarks.values()],
        show=partial(contest, comparisons=[(RECIPE.label, each.label) for each in CONTESTANTS if each is not RECIPE]),
    ),
    "maps": Experiment(
        title="Which map to train by",
        recipes=map_recipes,
        models=attrgetter("first_model"),
        benchmarks=lambda suite: [*suite.benchmarks.values()],
        show=partial(contest, comparisons=[(label, OURS.label) for label in (LIBRA_MAP, LATE_MAP)]),
    ),
    "sensitivity": Experiment(
        title="Samples per class and number of classes (Fig. 7)",
        recipes=lambda suite: [
            ORIGINAL,
            *(Recipe(f"{count} samples per class", {"samples_per_class": count}) for count in suite.sample_counts),
            *(Recipe(f"{count} classes", {"num_classes": count}) for count in suite.class_counts),
        ],
        models=attrgetter("first_model"),
        show=sensitivity,
    ),
    "lr-search": Experiment(
        title="Search for the learning rate (section 4)",
        recipes=lambda suite: [Recipe(f"{rate:g}", {"learning_rate": rate}) for rate in suite.learning_rates],
        benchmarks=lambda suite: [],  # the validation images decide, no benchmark is looked at
        show=learning_rates,
    ),
    "per-class": Experiment(
        title="Change by class (Fig. 8-14)",
        recipes=lambda suite: [ORIGINAL, OURS],
        models=attrgetter("first_model"),
        show=per_class,
    ),
    "examples": Experiment(
        title="Examples (Fig. 1-3, 6 and 15)",
        recipes=lambda suite: [ORIGINAL, OURS],
        show=examples,
    ),
    "sis": Experiment(
        title="Sufficient input subsets (Fig. 5)",
        recipes=lambda suite: [ORIGINAL],
        models=attrgetter("first_model"),
        benchmarks=lambda suite: [],
        show=sis,
    ),
    "oracle": Experiment(
        title="Headroom, before any fine-tuning",
        recipes=lambda suite: [ORIGINAL],
        benchmarks=attrgetter("with_masks"),
        show=oracle,
    ),
}
