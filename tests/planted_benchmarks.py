"""Small benchmarks with labels planted from a tiny model's own ranking, and plain code to score them independently.

Use them with `from planted_benchmarks import ...`.
"""

import io
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import torch
from PIL import Image
from tiny_models import tiny_model
from torch.nn import functional
from transformers import PreTrainedModel, ViTImageProcessorPil


def photographs(folder: Path, count: int = 40, seed: int = 0) -> list[Path]:
    """Image files as data sets hold them: several sizes, JPEG and PNG, grey, CMYK, palette and EXIF-rotated."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        width, height = rng.integers(30, 90, size=2)
        coarse = Image.fromarray(rng.integers(0, 256, size=(4, 5, 3), dtype=np.uint8))
        image = coarse.resize((int(width), int(height)), Image.Resampling.BICUBIC)
        mode = ("RGB", "L", "CMYK", "P", "RGB")[number % 5]
        path = folder / f"{number:03d}.{'png' if mode == 'P' else 'jpg'}"
        exif = Image.Exif()
        exif[0x0112] = 6 if number % 5 == 4 else 1
        image.convert(mode).save(path, exif=exif)
        paths.append(path)
    return paths


def box_masks(paths: list[Path], folder: Path, seed: int = 0) -> list[Path]:
    """A mask of a random box for each image, half of them stored as 0 and 1 as some data sets do."""
    rng, masks = np.random.default_rng(seed), []
    folder.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        with Image.open(path) as image:
            width, height = image.size
        mask = np.zeros((height, width), dtype=np.uint8)
        top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
        mask[top : top + height // 3, left : left + width // 2] = 255 if number % 2 else 1
        masks.append(folder / f"{path.stem}.png")
        Image.fromarray(mask).save(masks[-1])
    return masks


def vit(num_labels: int, **overrides) -> tuple[PreTrainedModel, ViTImageProcessorPil]:
    """A tiny ViT of 32 x 32 pixels with the names c0, c1, ... and a processor that squashes."""
    model = tiny_model("vit", num_labels=num_labels, **overrides)
    # Without this the random model gives almost every image the same class.
    coarse = torch.rand(200, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        model.classifier.bias -= model(functional.interpolate(coarse, size=(32, 32), mode="bicubic")).logits.mean(
            dim=0
        )
    model.config.id2label = {index: f"c{index}" for index in range(num_labels)}
    model.config.label2id = {name: index for index, name in model.config.id2label.items()}
    processor = ViTImageProcessorPil(
        size={"height": 32, "width": 32}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25]
    )
    return model, processor


def dataset_of(paths: list[Path], labels: list[int], names: list[str], embed: bool = False) -> datasets.Dataset:
    """Rows of image, label and image_id; the images by path, or by their bytes where `embed`."""
    features = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=names),
        "image_id": datasets.Value("string"),
    }
    images = [{"bytes": path.read_bytes() if embed else None, "path": str(path)} for path in paths]
    columns = {"image": images, "label": labels, "image_id": [path.name for path in paths]}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


@torch.no_grad()
def plain_logits(model: PreTrainedModel, paths: list[Path], preprocessing: str, border: int = 0) -> np.ndarray:
    """The logits of the raw model, image by image, preprocessed with PIL and NumPy only."""
    logits = []
    for path in paths:
        image = Image.open(io.BytesIO(path.read_bytes())).convert("RGB")
        image = image.crop((border, border, image.width - border, image.height - border))
        if preprocessing == "checkpoint":
            image = image.resize((32, 32), Image.Resampling.BILINEAR)
            mean, deviation = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.25])
        else:
            short = 37  # 32 * 256 / 224 = 36.57
            width, height = image.size
            size = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
            image = image.resize(size, Image.Resampling.BILINEAR)
            left, top = (size[0] - 32) // 2, (size[1] - 32) // 2
            image, mean, deviation = image.crop((left, top, left + 32, top + 32)), 0.5, 0.5
        pixels = ((np.asarray(image) / 255 - mean) / deviation).astype(np.float32)
        logits.append(model(torch.from_numpy(pixels).permute(2, 0, 1)[None]).logits[0].numpy())
    return np.stack(logits)


def planted_answers(
    own: list[float], elsewhere: list[float], labels: list[int], usable: list[int] | None = None, right: bool = True
) -> pd.DataFrame:
    """What an audit was answered: nothing about backgrounds alone, and the label wherever its probability is a half.

    Args:
        own, elsewhere: Of each photo, the probability of its class on its own background and on all others.
        labels: Of each photo.
        usable: How many of its four other backgrounds are of another class; all if left out.
        right: Whether the photos as they are are taken for their class.
    """
    count = len(labels)
    frame = pd.DataFrame({"image_id": [f"{row}.jpg" for row in range(count)], "label": labels, "own_probability": own})
    frame["class_name"] = [f"c{label}" for label in labels]
    frame["top5_indices"] = [[label if right else 9] for label in labels]
    frame["top1_oracle"] = right
    frame = frame.assign(**dict.fromkeys(("grey_guess", "alone_guess"), 8))
    frame = frame.assign(**dict.fromkeys(("same_guess", "centred_guess", "moved_guess", "shrunk_guess")))
    frame["own_guess"] = np.where(frame["own_probability"] >= 0.5, labels, 9)
    for number in range(4):
        other = [f"{(row + 1) % count}.jpg" for row in range(count)]
        is_used = [number < count_usable for count_usable in usable or [4] * count]
        frame[f"other{number}_image"] = np.where(is_used, other, None)
        frame[f"other{number}_probability"] = elsewhere
        frame[f"other{number}_guess"] = np.where(np.array(elsewhere) >= 0.5, labels, 9)
    return frame
