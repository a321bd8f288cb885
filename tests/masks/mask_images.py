"""Local backbones and pictures for the tests of masks."""

from pathlib import Path

import numpy as np
from PIL import Image
from tiny_models import tiny_model
from transformers import ViTImageProcessorPil


def save_backbone(folder: Path, family: str = "vit", **settings) -> Path:
    """The headless model of a family, as facebook/dino-vitb16 is stored, with its image processor."""
    model = tiny_model(family, **settings)
    model.base_model.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def photograph(seed: int = 0, size: tuple[int, int] = (80, 60)) -> tuple[Image.Image, Image.Image]:
    """A bright square on a dark, noisy ground, and its mask."""
    rng = np.random.default_rng(seed)
    width, height = size
    image = rng.integers(0, 40, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), dtype=np.uint8)
    box = (slice(height // 4, 3 * height // 4), slice(width // 4, 3 * width // 4))
    image[box] += np.uint8([200, 140, 60])
    mask[box] = 255
    return Image.fromarray(image), Image.fromarray(mask)
