"""What the paper's experiments are made on: ImageNet as in the paper, Cutouts on a laptop, or a folder of photos."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hf_robustvit.data.benchmark_rows import DEVELOPMENT, MASKED_PHOTOS, PHOTOS
from hf_robustvit.errors import UserError, unknown_name
from hf_robustvit.paper import MODELS, SETTINGS


@dataclass(frozen=True)
class Suite:
    """Models, data and settings.

    Attributes:
        dataset: What is fine-tuned on.
        models: The paper's short name -> the model.
        natural, synthetic: Column title -> benchmark: those of Tab. 1, and those of Tab. 2.
        segmentation: The benchmark of the segmentation test.
        with_masks: Benchmarks with masks, for the oracle.
        harmed_shown: Columns whose most harmed classes are shown (Fig. 15).
        settings: Flags of run_finetune.py for every run.
        method_settings: Further flags, by method.
        mask_settings: Further flags where masks are made, by what makes them.
        mask_sources: What makes masks in the experiment on masks, by the names of `data.MADE_MASKS`.
        half_settings: Flags that train on half of the classes, where `settings` trains on all.
        sample_counts, class_counts: What Fig. 7 varies.
        learning_rates: What the search of section 4 looks at, rising.
        base_models, ablation_models: The models of Tab. 10 and of Tab. 4, by their short names.
        images_per_benchmark: How many images of a benchmark are used; None is all.
        start_layer: Where the map of the last layers begins, in the experiment on maps.
        eval_batch_size, num_workers: How the benchmarks' images are fed.
        seeds_controls: Whether the experiment on seeds repeats plain fine-tuning and swapped backgrounds too.
    """

    dataset: str
    models: Mapping[str, str]
    natural: Mapping[str, str]
    synthetic: Mapping[str, str]
    segmentation: str
    with_masks: tuple[str, ...]
    harmed_shown: tuple[str, ...]
    settings: Mapping[str, Any]
    sample_counts: tuple[int, ...]
    class_counts: tuple[int, ...]
    learning_rates: tuple[float, ...]
    base_models: tuple[str, ...]
    ablation_models: tuple[str, ...]
    method_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    mask_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    mask_sources: tuple[str, ...] = ("tokencut",)
    half_settings: Mapping[str, Any] = field(default_factory=dict)
    images_per_benchmark: int | None = None
    start_layer: int = 6
    eval_batch_size: int = 64
    num_workers: int = 4
    seeds_controls: bool = False

    @property
    def benchmarks(self) -> dict[str, str]:
        """All columns of the paper's tables but the segmentation test."""
        return {**self.natural, **self.synthetic}

    @property
    def first_model(self) -> list[str]:
        """The short name of the model of the paper's Fig. 7 to 14."""
        return list(self.models)[:1]

    def with_models(self, names: list[str] | None) -> "Suite":
        """The suite with other models: short names of the paper, or anything `load_classifier` takes."""
        if not names:
            return self
        paths = [self.models.get(name, name) for name in names]
        papers = {model: name for name, model in self.models.items()}
        models = {papers.get(model, name): model for name, model in short_names(paths).items()}
        chosen = tuple(models)
        return replace(self, models=models, base_models=chosen, ablation_models=chosen)


IMAGENET = Suite(
    dataset="imagenet-s",
    models={short_name: names[0] for short_name, names in MODELS.items()},
    natural={
        "INet val": "imagenet-val",
        "INet-A": "imagenet-a",
        "INet-R": "imagenet-r",
        "Sketch": "imagenet-sketch",
        "INet-v2": "imagenet-v2",
        "ObjNet": "objectnet",
    },
    synthetic={
        "SI-loc.": "si-score-location",
        "SI-rot.": "si-score-rotation",
        "SI-size": "si-score-size",
    },
    segmentation="imagenet-segmentation",
    with_masks=("imagenet-s",),
    harmed_shown=("INet-A", "INet-v2"),
    settings={"num_classes": 500, "samples_per_class": 3, "dataloader_num_workers": 4},
    method_settings={"robustvit": {"classification_target": "predicted"}},
    sample_counts=(1, 2, 3, 5),
    class_counts=(125, 250, 500, 750),
    learning_rates=(5e-7, 7e-7, 9e-7, 1e-6, 2e-6, 3e-6, 4e-6, 5e-6),
    base_models=("ViT-B", "AR-B", "DeiT-B"),
    ablation_models=("ViT-B", "DeiT-B"),
)

# The demo's setting (examples/cutouts.yaml) on a third of the images; docs/cutouts.md tells how it was found.
CUTOUTS = Suite(
    dataset="cutouts",
    models={"cutouts-vit": "cutouts-vit"},
    natural={name: f"cutouts-{name}" for name in ("val", "a", "r", "sketch", "v2", "viewpoint")},
    synthetic={name: f"cutouts-{name}" for name in ("location", "rotation", "size")},
    segmentation="cutouts-segmentation",
    with_masks=tuple(f"cutouts-{name}" for name in ("val", "a", "v2", "viewpoint", "size")),
    harmed_shown=("a", "v2"),
    settings={
        "num_classes": 30,
        "samples_per_class": 30,
        "trainable_layers": 1,
        "learning_rate": 2e-4,
        "num_train_epochs": 4,
        "per_device_train_batch_size": 16,
    },
    method_settings={
        "robustvit": {"classification_target": "label", "lambda_foreground": 10.0},
        "gradmask": {"lambda_classification": 1.0, "lambda_background": 1000.0},
    },
    mask_settings={"tokencut": {"backbone": "cutouts-vit", "image_size": 128}},
    half_settings={"num_classes": 15, "samples_per_class": 60},
    sample_counts=(3, 10, 30, 60),
    class_counts=(10, 15, 20, 30),
    learning_rates=(2e-5, 5e-5, 1e-4, 2e-4, 4e-4),
    base_models=("cutouts-vit",),
    ablation_models=("cutouts-vit",),
    images_per_benchmark=600,
    start_layer=4,
    eval_batch_size=100,
    num_workers=0,
)

# The same on so few images that everything is done in minutes: it shows that things run, not how good they are.
QUICK = {
    "settings": {"samples_per_class": 10, "num_train_epochs": 4},
    "half_settings": {"num_classes": 15, "samples_per_class": 20},
    "sample_counts": (3, 10, 20),
    "class_counts": (10, 20, 30),
    "images_per_benchmark": 300,
}


def short_names(models: Sequence[str]) -> dict[str, str]:
    """What tables call models: local ones by the name of their folder, unless two share it."""
    names = [os.path.basename(os.path.abspath(model)) if os.path.isdir(model) else model for model in models]
    return {name if names.count(name) == 1 else model: model for name, model in zip(names, models, strict=True)}


COMPOSITES = {name: f"composites-{name}" for name in ("location", "rotation", "size", "background")}


def folder_suite(
    folder: str,
    models: Sequence[str],
    labels: Sequence[int],
    learning_rate: float | None = None,
    development: bool = False,
) -> Suite:
    """The suite of a folder with `train`, `test` and, perhaps, `backgrounds`.

    A model is trained on half of the classes, drawn at random, with at most 3 photos of each, for 12 epochs with a
    decay after each. Everything else is the paper's, with the weights of ViT-B for RRR.

    Args:
        folder: The folder.
        models: As `load_classifier` takes them. TokenCut takes the first one's features.
        labels: The class of each photo to train on.
        learning_rate: Of every run; the paper's for its own models if left out.
        development: Score on the development photos instead of the test photos.

    Raises:
        UserError: There is no model, or no class is left to be held out.
    """
    if not models:
        raise UserError("--suite with a folder needs --models: give one or more.")
    counts = Counter(labels)
    if len(counts) < 2:
        raise UserError(
            f"--suite {folder}: train has usable photos of {len(counts)} class(es), and half of the classes are held "
            "out: give it two or more."
        )
    named = short_names(models)
    half, fewest = len(counts) // 2, min(counts.values())
    ending = DEVELOPMENT if development else ""
    return Suite(
        dataset=os.path.join(os.path.abspath(folder), "train"),
        models=named,
        natural={"photos": PHOTOS + ending},
        synthetic={title: name + ending for title, name in COMPOSITES.items()},
        segmentation=MASKED_PHOTOS + ending,
        with_masks=(MASKED_PHOTOS + ending,),
        harmed_shown=("photos",),
        settings={
            "num_classes": half,
            "samples_per_class": min(3, fewest),
            "class_seed": 0,
            "num_train_epochs": 12,
            "lr_decay_epochs": 1,
            "skip_unreadable": True,
        }
        | ({"learning_rate": learning_rate} if learning_rate else {}),
        method_settings={
            "robustvit": {"classification_target": "predicted"},
            "rrr": {name: SETTINGS["rrr"]["ViT-B"][name] for name in ("lambda_classification", "lambda_background")},
        },
        mask_settings={"tokencut": {"backbone": models[0], "tau": 0.6}},  # a classifier's features: docs/masks.md
        sample_counts=tuple(range(1, min(3, fewest) + 1)),
        class_counts=tuple(sorted({max(1, half // 2), half, half + half // 2})),
        learning_rates=(5e-6, 1e-5, 2e-5, 4e-5),
        base_models=tuple(named),
        ablation_models=tuple(named),
        num_workers=0,
        seeds_controls=True,
    )


def choose_suite(name: str, quick: bool) -> Suite:
    """The suite of a name.

    Raises:
        UserError: There is no such suite, or `quick` is asked of one that has no quick form.
    """
    suites = {"imagenet": IMAGENET, "cutouts": CUTOUTS}
    if name not in suites:
        raise unknown_name("--suite", name, [*suites, "the path of a folder"])
    if not quick:
        return suites[name]
    if name != "cutouts":
        raise UserError("--quick is for --suite cutouts; a smaller ImageNet run has --models and fewer experiments.")
    return replace(CUTOUTS, **QUICK | {"settings": {**CUTOUTS.settings, **QUICK["settings"]}})
