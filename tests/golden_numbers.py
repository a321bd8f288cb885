"""The authors' numbers (tests/golden/README.md), read once and shared by the tests that hold ours against them."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from transformers import ViTForImageClassification


FOLDER = Path(__file__).parent / "golden"


@cache
def arrays() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "golden.npz") as file:
        return dict(file)


@cache
def expected() -> dict:
    return json.loads((FOLDER / "expected.json").read_text())


def model(dtype: torch.dtype = torch.float32) -> ViTForImageClassification:
    return ViTForImageClassification.from_pretrained(FOLDER, attn_implementation="eager", dtype=dtype).eval()


def batch(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """pixel_values (4, 3, 224, 224), masks (4, 1, 224, 224) and labels (4,)."""
    numbers = arrays()
    pixel_values = (torch.from_numpy(numbers["image_u8"]).to(dtype) / 255 - 0.5) / 0.5
    masks = torch.from_numpy(numbers["mask_quarters_u8"]).to(dtype) / 4
    return pixel_values, masks, torch.from_numpy(numbers["labels"])


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())
