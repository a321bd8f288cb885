"""Make `cutouts-vit`, the embedded pretrained model: `python -m hf_robustvit.cutouts.pretrain`.

Two stages, which imitate a pretrained backbone that then meets a biased data set:

1. object features: all weights learn on random scenes. Every patch also has to tell which class, or which scene, it
   shows (token labelling), and random patches are left out, so that each patch keeps what it sees itself;
2. a biased read-out: only the last layer and the classifier learn, on images whose scene nearly always fits the class.

Everything is seeded. It takes about an hour on one core. Layers run in bfloat16, so another kind of processor rounds
differently and ends with a different but equally good model.
"""

import argparse
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from hf_robustvit.cutouts.assets import CLASS_NAMES
from hf_robustvit.cutouts.scenes import SCENES, SIZE
from hf_robustvit.cutouts.splits import render


logger = logging.getLogger(__name__)

BATCH_SIZE = 64
PATCH_SIZE = 8
NO_LABEL = -100


@dataclass
class Pool:
    """Rendered images that training draws its batches from.

    Attributes:
        images: (count, 64, 64, 3) uint8.
        masks: (count, 64, 64) uint8.
        labels: (count,) int64, classes.
        scenes: (count,) int64, positions in `SCENES`.
    """

    images: np.ndarray
    masks: np.ndarray
    labels: np.ndarray
    scenes: np.ndarray

    @classmethod
    def render(cls, split: str, count: int) -> "Pool":
        """The first images of a split."""
        pool = cls(
            np.empty((count, SIZE, SIZE, 3), np.uint8),
            np.empty((count, SIZE, SIZE), np.uint8),
            np.empty(count, np.int64),
            np.empty(count, np.int64),
        )
        scenes = list(SCENES)
        for index in range(count):
            rendered = render(split, index)
            pool.images[index], pool.masks[index] = np.asarray(rendered.image), np.asarray(rendered.mask)
            pool.labels[index], pool.scenes[index] = rendered.label, scenes.index(rendered.scene)
        return pool

    def batch(self, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """Random images, all mirrored or none.

        Returns:
            Pixels (batch, 3, 64, 64) in [-1, 1], the foreground's share of each patch (batch, patches), labels and
            scenes (batch,).
        """
        chosen = np.sort(rng.choice(len(self.labels), BATCH_SIZE, replace=False))
        direction = -1 if rng.random() < 0.5 else 1
        images, masks = self.images[chosen][:, :, ::direction], self.masks[chosen][:, :, ::direction]
        pixel_values = torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
        foreground = F.avg_pool2d(torch.from_numpy(masks.copy()).float()[:, None] / 255, PATCH_SIZE).flatten(1)
        return pixel_values, foreground, torch.from_numpy(self.labels[chosen]), torch.from_numpy(self.scenes[chosen])


def new_model() -> ViTForImageClassification:
    """A small ViT with random weights: 64 patches, 5 layers of width 128, about a million weights."""
    return ViTForImageClassification(
        ViTConfig(
            image_size=SIZE,
            patch_size=PATCH_SIZE,
            hidden_size=128,
            num_hidden_layers=5,
            num_attention_heads=4,
            intermediate_size=512,
            layer_norm_eps=1e-6,
            id2label=dict(enumerate(CLASS_NAMES)),
            label2id={name: label for label, name in enumerate(CLASS_NAMES)},
        )
    )


def token_features(
    model: ViTForImageClassification, pixel_values: torch.Tensor, num_kept: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Last features (batch, 1 + num_kept, width) of CLS and random patches, and which patches: (batch, num_kept)."""
    tokens = model.vit.embeddings(pixel_values)  # (batch, 1 + patches, width)
    kept = torch.rand(tokens.shape[0], tokens.shape[1] - 1).argsort(dim=1)[:, :num_kept]
    patches = tokens[:, 1:].gather(1, kept[..., None].expand(-1, -1, tokens.shape[2]))
    tokens = torch.cat([tokens[:, :1], patches], dim=1)
    for layer in model.vit.layers:
        tokens = layer(tokens)
    return model.vit.layernorm(tokens), kept


def patch_labels(
    foreground: torch.Tensor, labels: torch.Tensor, scenes: torch.Tensor, kept: torch.Tensor
) -> torch.Tensor:
    """What each kept patch shows (batch, num_kept): a class, 30 + a scene, or `NO_LABEL` at the object's rim."""
    foreground = foreground.gather(1, kept)
    shown = torch.where(foreground > 0.3, labels[:, None], len(CLASS_NAMES) + scenes[:, None])
    return shown.masked_fill((foreground > 0.03) & (foreground <= 0.3), NO_LABEL)


def optimize(
    parameters: Iterable[torch.nn.Parameter],
    batch_loss: Callable[[], torch.Tensor],
    num_steps: int,
    learning_rate: float,
    num_warmup_steps: int,
    **adamw: object,
) -> None:
    """AdamW with a linear warm-up, a cosine decay to 5 % and gradients clipped to a norm of 1."""
    parameters = list(parameters)
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, **adamw)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1, step / num_warmup_steps) * (0.5 + 0.5 * math.cos(0.85 * math.pi * step / num_steps)),
    )
    total = 0.0
    for step in range(1, num_steps + 1):
        with torch.autocast("cpu", torch.bfloat16):
            loss = batch_loss()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        scheduler.step()
        total += loss.item()
        if step % 250 == 0:
            logger.info("step %d of %d: loss %.3f", step, num_steps, total / 250)
            total = 0.0


def learn_objects(num_steps: int, pool_size: int) -> ViTForImageClassification:
    """Stage 1: class and patch labels on random scenes, from random patches."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = new_model()
    patch_classifier = torch.nn.Linear(model.config.hidden_size, len(CLASS_NAMES) + len(SCENES))
    pool = Pool.render("pretrain", pool_size)
    num_patches = (SIZE // PATCH_SIZE) ** 2

    def batch_loss() -> torch.Tensor:
        pixel_values, foreground, labels, scenes = pool.batch(rng)
        share = 0.15 + 0.85 * rng.random() if rng.random() < 0.8 else 1
        features, kept = token_features(model, pixel_values, int(share * num_patches))
        class_loss = F.cross_entropy(model.classifier(features[:, 0]).float(), labels, label_smoothing=0.05)
        shown = patch_labels(foreground, labels, scenes, kept)
        patch_loss = F.cross_entropy(
            patch_classifier(features[:, 1:]).float().flatten(0, 1), shown.flatten(), ignore_index=NO_LABEL
        )
        return class_loss + 0.5 * patch_loss

    parameters = [*model.parameters(), *patch_classifier.parameters()]
    optimize(parameters, batch_loss, num_steps, 1e-3, num_warmup_steps=500, weight_decay=0.05, betas=(0.9, 0.98))
    return model


def learn_biased_read_out(
    model: ViTForImageClassification, num_steps: int, pool_size: int, split: str = "train"
) -> None:
    """Stage 2: a new last layer and classifier on frozen layers below, on biased images, or on another split."""
    torch.manual_seed(1)
    rng = np.random.default_rng(5)
    pool = Pool.render(split, pool_size)
    model.requires_grad_(False)
    for module in (model.classifier, model.vit.layers[-1]):
        module.apply(start_anew)
    read_out = torch.nn.ModuleList([model.classifier, model.vit.layernorm, model.vit.layers[-1]]).requires_grad_(True)

    def batch_loss() -> torch.Tensor:
        pixel_values, _, labels, _ = pool.batch(rng)
        return F.cross_entropy(model(pixel_values).logits.float(), labels)

    optimize(read_out.parameters(), batch_loss, num_steps, 1e-3, num_warmup_steps=50, weight_decay=0.01)


def start_anew(module: torch.nn.Module) -> None:
    """Reset a layer to its weights before training."""
    if isinstance(module, torch.nn.Linear):
        torch.nn.init.trunc_normal_(module.weight, std=0.02)
        torch.nn.init.zeros_(module.bias)
    elif isinstance(module, torch.nn.LayerNorm):
        module.reset_parameters()


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the embedded pretrained model of Cutouts.")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/cutouts-vit"), help="Where the model goes.")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="Share of the steps and images, to try it out quickly."
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")

    logger.info("stage 1: object features")
    model = learn_objects(num_steps=int(8000 * arguments.scale), pool_size=int(80_000 * arguments.scale))
    logger.info("stage 2: biased read-out")
    learn_biased_read_out(model, num_steps=int(625 * arguments.scale), pool_size=int(20_000 * arguments.scale))
    model.save_pretrained(arguments.output_dir)
    ViTImageProcessor(
        size={"height": SIZE, "width": SIZE}, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_convert_rgb=True
    ).save_pretrained(arguments.output_dir)


if __name__ == "__main__":
    main()
