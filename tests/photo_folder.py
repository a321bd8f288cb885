"""A folder of photos with masks, and a tiny model to fine-tune on it, as a user of the scripts has them."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tiny_models import tiny_model
from transformers import ViTImageProcessorPil

import run_finetune


def save_photos(folder: Path, classes: Sequence[str] = ("ant", "bee", "cow"), count: int = 5, seed: int = 0) -> Path:
    """A bright square on a dark ground, and its mask, for each class."""
    rng = np.random.default_rng(seed)
    for class_name in classes:
        for kind in ("images", "masks"):
            (folder / kind / class_name).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(0, 120, (40, 40, 3), dtype=np.uint8)
            image[10:25, 12:30] += 120
            mask = np.zeros((40, 40), dtype=np.uint8)
            mask[10:25, 12:30] = 255
            Image.fromarray(image).save(folder / "images" / class_name / f"{number}.png")
            Image.fromarray(mask).save(folder / "masks" / class_name / f"{number}.png")
    return folder


def save_model(folder: Path, classes: Sequence[str] | None = None, **settings) -> Path:
    """A classifier and its image processor; of five classes that are none of the photos' unless they are given."""
    labels = {"num_labels": len(classes)} if classes else {}
    model = tiny_model("vit", **labels, **settings)
    if classes:
        model.config.id2label = dict(enumerate(classes))
        model.config.label2id = {name: index for index, name in enumerate(classes)}
    model.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def finetune(monkeypatch, *arguments) -> None:
    """run_finetune.py in this process, for two steps."""
    flags = ("--max_steps", 2, "--use_cpu", "--disable_tqdm", "true", *arguments)
    monkeypatch.setattr(sys, "argv", ["run_finetune.py", *map(str, flags)])
    run_finetune.main()
