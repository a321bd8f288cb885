"""A suite of a tiny model, a folder of photos to fine-tune on, and three folders of photos as benchmarks."""

import logging
from pathlib import Path

from accelerate import Accelerator
from mask_images import save_backbone
from photo_folder import save_model, save_photos
from tiny_onnx import save_saliency

from hf_robustvit.builders import load_benchmark_rows, load_training_pairs
from hf_robustvit.commands.experiment import finetune_with
from hf_robustvit.experiments.runs import Sources, Workshop
from hf_robustvit.experiments.suites import Suite


CLASSES = ("ant", "bee", "cow")


def save_suite(folder: Path) -> Suite:
    """Write the model and the photos, and describe them."""
    save_model(folder / "tiny", CLASSES)
    backbone, network = save_backbone(folder / "backbone"), save_saliency(folder / "network.onnx")
    for seed, name in enumerate(("train", "near", "far", "turned", "masked")):
        save_photos(folder / name, CLASSES, seed=seed)
    return Suite(
        dataset=str(folder / "train"),
        models={"Tiny": str(folder / "tiny")},
        natural={"near": "near", "far": "far"},
        synthetic={"SI-rot.": "turned"},
        segmentation="masked",
        with_masks=("near", "masked"),
        harmed_shown=("far",),
        settings={
            "num_classes": 3,
            "samples_per_class": 2,
            "num_train_epochs": 1,
            "learning_rate": 1e-2,
            "use_cpu": True,
            "disable_tqdm": True,
        },
        mask_settings={
            "tokencut": {
                "backbone": str(backbone),
                "image_size": 160,
                "sigma_spatial": 8.0,
                "min_eigen_gap": 0.0,
                "min_agreement": 0.0,
            },
            "saliency": {"saliency_model": str(network), "saliency_mean": [110.0]},
        },
        mask_sources=("tokencut", "saliency"),
        method_settings={"robustvit": {"classification_target": "label"}},
        half_settings={"num_classes": 2},
        sample_counts=(1, 2),
        class_counts=(2, 3),
        learning_rates=(1e-3, 1e-2),
        base_models=("Tiny",),
        ablation_models=("Tiny",),
        images_per_benchmark=9,
        start_layer=1,
        num_workers=0,
    )


def open_workshop(folder: Path, suite: Suite, out: Path) -> Workshop:
    """The suite's workshop in a folder OUT."""
    logging.getLogger("hf_robustvit").setLevel(logging.INFO)
    sources = Sources(
        training_pairs=lambda masks: load_training_pairs(suite.dataset, masks=masks),
        benchmark=lambda name: load_benchmark_rows(str(folder / name)),
        finetune=finetune_with,
    )
    return Workshop(out, suite, sources, Accelerator(cpu=True))
