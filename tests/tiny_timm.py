"""Tiny checkpoints as timm writes them: its names, its config.json, its files."""

import json

import torch
from safetensors.torch import save_file


PREPROCESSING = {
    "input_size": [3, 32, 32],
    "interpolation": "bicubic",
    "crop_pct": 0.9,
    "crop_mode": "center",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "num_classes": 5,
    "first_conv": "patch_embed.proj",
    "classifier": "head",
}


def timm_tensors(width=128, layers=2, patch=8, classes=5, distilled=False, pool="token") -> dict[str, torch.Tensor]:
    """Random weights under timm's names, for images of 32x32 pixels."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 1 + distilled + (32 // patch) ** 2, width)}
    norm = "fc_norm" if pool == "avg" else "norm"
    linears = {"patch_embed.proj": (width, 3, patch, patch), norm: (width,), "head": (classes, width)}
    if distilled:
        shapes["dist_token"] = (1, 1, width)
        linears["head_dist"] = (classes, width)
    for block in (f"blocks.{layer}" for layer in range(layers)):
        linears |= {f"{block}.norm1": (width,), f"{block}.norm2": (width,)}
        linears |= {f"{block}.attn.qkv": (3 * width, width), f"{block}.attn.proj": (width, width)}
        linears |= {f"{block}.mlp.fc1": (2 * width, width), f"{block}.mlp.fc2": (width, 2 * width)}
    for name, shape in linears.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def save_timm(folder, tensors, architecture="vit_tiny_patch8_32", preprocessing=None, **config):
    """A folder as timm pushes it to the Hub."""
    folder.mkdir(exist_ok=True)
    config = {
        "architecture": architecture,
        "num_classes": 5,
        "num_features": 128,
        "global_pool": "token",
        "pretrained_cfg": PREPROCESSING | (preprocessing or {}),
    } | config
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder
