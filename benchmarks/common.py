"""What the benchmarks share: the model, the batch, the training steps that are compared, and RESULTS.md."""

import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch.nn import functional as F
from transformers import (
    Dinov2Config,
    Dinov2ForImageClassification,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
)

import hf_robustvit.lean.attention  # noqa: F401 (registers "lean")
from hf_robustvit.lean.last_layer import last_layer_for_cls
from hf_robustvit.losses import FinetuneLoss, RobustViTLoss
from hf_robustvit.models.families import layers_of
from hf_robustvit.relevance import min_max_normalize, upscale


RESULTS = Path(__file__).with_name("RESULTS.md")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = {  # hidden size, layers, heads of ViT's sizes; "test" is for trying a benchmark out
    "test": (64, 4, 4),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "dinov2-base": (768, 12, 12),
}

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # pixel_values, masks, labels


def make_model(size: str, image_size: int = 224, num_layers: int | None = None) -> PreTrainedModel:
    """A ViT with patches of 16 pixels (a DINOv2 with 14), 1000 classes and random weights, in train mode."""
    hidden_size, layers, heads = SIZES[size]
    config = {
        "hidden_size": hidden_size,
        "num_hidden_layers": num_layers or layers,
        "num_attention_heads": heads,
        "image_size": image_size,
        "num_labels": 1000,
    }
    torch.manual_seed(0)
    if size.startswith("dinov2"):
        model = Dinov2ForImageClassification(Dinov2Config(patch_size=14, **config))
    else:
        model = ViTForImageClassification(ViTConfig(intermediate_size=4 * hidden_size, **config))
    return model.to(DEVICE).train()


def model_name(size: str) -> str:
    """What a size is called in the results."""
    return "DINOv2-base/14" if size == "dinov2-base" else f"ViT-{size}/16"


def make_batch(batch_size: int, image_size: int = 224) -> Batch:
    generator = torch.Generator().manual_seed(0)
    pixel_values = torch.randn(batch_size, 3, image_size, image_size, generator=generator)
    masks = (torch.rand(batch_size, 1, image_size, image_size, generator=generator) > 0.5).float()
    labels = torch.randint(1000, (batch_size,), generator=generator)
    return pixel_values.to(DEVICE), masks.to(DEVICE), labels.to(DEVICE)


def authors_loss(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The loss as the authors' procedure computes it, rewritten from the paper and tests/golden/README.md, point 9.

    One gradient call for each layer, the whole matrix R, a second forward pass for the classification loss and a pass
    of the original model for the log (here of the same model, which costs the same).
    """
    pixel_values, masks, labels = batch
    outputs = model(pixel_values, output_attentions=True)
    score = outputs.logits.gather(1, labels[:, None]).sum()
    relevance = torch.eye(outputs.attentions[0].shape[-1], device=DEVICE).expand(len(labels), -1, -1)
    for attention in outputs.attentions:
        (gradient,) = torch.autograd.grad(score, attention, retain_graph=True)
        relevance = relevance + (gradient * attention).clamp(min=0).mean(dim=1) @ relevance  # Eq. 6-7
    size = masks.shape[-2:]
    patches = relevance[:, 0, 1:].unflatten(1, (size[0] // 16, size[1] // 16))
    maps = min_max_normalize(upscale(patches, size))
    logits = model(pixel_values).logits
    with torch.no_grad():
        model(pixel_values)
    background, foreground = (maps * (1 - masks)).square().mean(), F.mse_loss(maps * masks, masks)
    classification = F.cross_entropy(logits, logits.argmax(dim=-1))
    return 0.8 * (2 * background + 0.3 * foreground) + 0.2 * classification


@dataclass(frozen=True)
class Step:
    """One way to compute a loss and its gradients."""

    label: str
    attention: str
    loss: Callable[[PreTrainedModel, Batch], torch.Tensor]
    dtype: torch.dtype = torch.float32  # of autocast
    checkpointing: bool = False

    def __call__(self, model: PreTrainedModel, batch: Batch) -> None:
        model.set_attn_implementation(self.attention)
        # Before transformers 5.23 it has but the older name.
        name = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
        getattr(model, f"{name}_checkpointing_{'enable' if self.checkpointing else 'disable'}")()
        model.zero_grad()
        with torch.autocast(DEVICE, self.dtype, enabled=self.dtype != torch.float32):
            loss = self.loss(model, batch)
        loss.backward()


def _plain(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    return FinetuneLoss()(model, *batch).loss


def _plain_for_cls(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    with last_layer_for_cls(layers_of(model)[-1]):
        return _plain(model, batch)


def _ours(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    return RobustViTLoss()(model, *batch).loss


def _last_layer(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    return RobustViTLoss(start_layer=model.config.num_hidden_layers - 1)(model, *batch).loss


def _second_order(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    return RobustViTLoss(second_order=True)(model, *batch).loss


def _libra(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    return RobustViTLoss(method="libra")(model, *batch).loss


STEPS = {
    "plain": Step("cross-entropy, eager", "eager", _plain),
    "plain-sdpa": Step("cross-entropy, SDPA", "sdpa", _plain),
    "plain-sdpa-cls": Step("cross-entropy, SDPA, last layer for CLS alone", "sdpa", _plain_for_cls),
    "eager": Step("RobustViT, eager", "eager", _ours),
    "lean": Step("RobustViT, lean", "lean", _ours),
    "lean-kept": Step("RobustViT, lean, maps kept", "lean_kept_maps", _ours),
    "lean-last-layer": Step("RobustViT, lean, the last layer's map", "lean", _last_layer),
    "lean-checkpointing": Step("RobustViT, lean, activation checkpointing", "lean", _ours, checkpointing=True),
    "eager-libra": Step("RobustViT, eager, libra", "eager", _libra),
    "lean-libra": Step("RobustViT, lean, libra", "lean", _libra),
    "second-order": Step("RobustViT, eager, second order", "eager", _second_order),
    "authors": Step("RobustViT, the authors' procedure", "eager", authors_loss),
    "plain-sdpa-bf16": Step("cross-entropy, SDPA, bf16 autocast", "sdpa", _plain, dtype=torch.bfloat16),
    "eager-bf16": Step("RobustViT, eager, bf16 autocast", "eager", _ours, dtype=torch.bfloat16),
    "lean-bf16": Step("RobustViT, lean, bf16 autocast", "lean", _ours, dtype=torch.bfloat16),
    "lean-libra-bf16": Step("RobustViT, lean, libra, bf16 autocast", "lean", _libra, dtype=torch.bfloat16),
    "eager-fp16": Step("RobustViT, eager, fp16 autocast", "eager", _ours, dtype=torch.float16),
    "lean-fp16": Step("RobustViT, lean, fp16 autocast", "lean", _ours, dtype=torch.float16),
}


def ratio_lines(values: dict[str, float], targets: list[tuple[str, str, str]]) -> list[str]:
    """A table of the ratios that the project promises: (numerator, denominator, the promise)."""
    lines = ["", "| ratio | measured | wanted |", "|---|---|---|"]
    return lines + [
        f"| {STEPS[above].label} / {STEPS[below].label} | {values[above] / values[below]:.2f} | {wanted} |"
        for above, below, wanted in targets
        if above in values and below in values
    ]


def machine() -> str:
    """Processor, cores and versions in one line."""
    if DEVICE == "cuda":
        processor = torch.cuda.get_device_name()
    else:
        cpu_info = Path("/proc/cpuinfo")
        found = re.search(r"model name\s*: (.*)", cpu_info.read_text()) if cpu_info.exists() else None
        processor = f"{found[1] if found else platform.processor()}, {os.cpu_count()} cores"
        processor += f", {torch.backends.cpu.get_cpu_capability()}"
    return (
        f"{processor}; Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}."
    )


def write_section(title: str, lines: list[str]) -> None:
    """Print a section and put it in RESULTS.md in the place of its last version."""
    section = "\n".join([f"## {title}", "", *lines, ""])
    print(section)
    text = RESULTS.read_text() if RESULTS.exists() else "# Results of the benchmarks\n\n"
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    if pattern.search(text):
        text = pattern.sub(lambda match: section + "\n", text)
    else:
        text = f"{text.rstrip()}\n\n{section}"
    RESULTS.write_text(text.rstrip() + "\n")
