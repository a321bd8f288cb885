"""Local backbones and pictures for the tests of masks."""

from pathlib import Path

import numpy as np
import torch
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


def colour_features(backbone, images: list[Image.Image]) -> torch.Tensor:
    """Stands in for `Backbone.key_features`: a patch's mean colour around grey, so that bright and dark are unlike."""
    patch = backbone.patch_size
    pixels = np.stack([np.asarray(image, dtype=np.float32) for image in images])  # (batch, H, W, 3)
    batch, height, width, _ = pixels.shape
    means = pixels.reshape(batch, height // patch, patch, width // patch, patch, 3).mean(axis=(2, 4)) - 80
    return torch.from_numpy(means.reshape(batch, -1, 3)).transpose(1, 2)
