"""ViT and DeiT checkpoints of timm, converted to transformers.

A timm checkpoint is a folder or a Hub repository with `model.safetensors` and `config.json`, which holds the
`architecture`, `pretrained_cfg` (preprocessing) and, where the model was built with other settings than its
architecture's, `model_args`. timm's plain ViT and DeiT compute what transformers' ViT and DeiT compute: the paper's
AugReg S/B/L, ViT-B and DeiT S/B are of this kind. A ViT whose head reads the mean of the patch tokens (global_pool
'avg') computes what transformers' BEiT does without relative positions and LayerScale. Anything else a checkpoint
holds or asks for (LayerScale, registers, another activation) is refused by name.
"""

import math
import re
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import BaseImageProcessor, BeitConfig, DeiTConfig, PreTrainedConfig, ViTConfig, ViTImageProcessorPil

from hf_robustvit.errors import UserError, first_few
from hf_robustvit.imagenet_classes import NAMES as IMAGENET_NAMES
from hf_robustvit.models.files import find_model_file, reading_model


# timm's names of its plain models. A word between patch and image size (clip, gap, ...) means another computation.
_PLAIN_ARCHITECTURE = re.compile(r"(?:vit|deit)_([a-z]+)(?:_distilled)?_patch\d+_\d+|(test)_vit")
# Channels of an attention head, which no tensor shows: 64 (tiny 3 heads, small 6, base 12, large 16) except these.
_HEAD_CHANNELS = {"huge": 80, "giant": 88, "gigantic": 104, "test": 32}
# `model_args` that are used here, show in the tensors' shapes, or change nothing in evaluation at the trained size.
_KNOWN_MODEL_ARGS = frozenset(
    "img_size patch_size in_chans num_classes embed_dim depth num_heads mlp_ratio qkv_bias global_pool class_token "
    "fc_norm dynamic_img_size strict_img_size drop_rate drop_path_rate".split()
)
_BLOCK_MODULES = {
    "norm1": "layernorm_before",
    "attn.q": "attention.q_proj",
    "attn.k": "attention.k_proj",
    "attn.v": "attention.v_proj",
    "attn.proj": "attention.o_proj",
    "norm2": "layernorm_after",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def is_timm_config(config: dict[str, Any]) -> bool:
    """Whether a parsed config.json is timm's: it names an architecture and no transformers model type."""
    return "architecture" in config and "model_type" not in config


def read_timm_model(
    config: dict[str, Any], name: str, revision: str | None = None
) -> tuple[PreTrainedConfig, dict[str, torch.Tensor], BaseImageProcessor]:
    """A timm checkpoint's configuration, weights and image processor, as transformers has them.

    Args:
        config: The parsed config.json.
        name: What the user called the model.
        revision: Branch, tag or commit on the Hub.

    Raises:
        UserError: As `check_timm_config`, `timm_image_processor` and `convert_timm_weights`.
    """
    check_timm_config(config, name)
    image_processor = timm_image_processor(config, name)  # before the weights are downloaded
    weights_file = find_model_file(name, "model.safetensors", revision)
    return *convert_timm_weights(config, weights_file, name), image_processor


def check_timm_config(config: dict[str, Any], name: str) -> None:
    """Refuse, by its config.json, a timm model that is not a plain ViT or DeiT, or whose head pools in another way.

    Args:
        config: The parsed config.json.
        name: What the user called the model, for the message.

    Raises:
        UserError: Naming the architecture or setting that has no counterpart.
    """
    if not _PLAIN_ARCHITECTURE.fullmatch(config["architecture"]):
        raise UserError(
            f"--model: {name!r} is timm's {config['architecture']}, and only timm's plain ViT and DeiT are converted, "
            "for example timm/vit_base_patch16_224.augreg_in21k_ft_in1k."
        )
    model_args = config.get("model_args", {})
    pooling = _pooling(config)
    if pooling not in ("token", "avg"):
        raise UserError(
            f"--model: {name!r} pools its tokens by timm's global_pool {pooling!r}, which no classifier of "
            "transformers does: choose a model with global_pool 'token' or 'avg'."
        )
    if not model_args.get("class_token", True):
        raise UserError(
            f"--model: {name!r} has no CLS token (timm's class_token is off), and transformers' ViT and BEiT, to "
            "which timm's models are converted, have one: choose a model with a CLS token."
        )
    unknown = sorted(set(model_args) - _KNOWN_MODEL_ARGS)
    if unknown:
        raise UserError(
            f"--model: {name!r} was built with timm settings that have no counterpart: {', '.join(unknown)}."
        )


def _pooling(config: dict[str, Any]) -> str:
    return config.get("model_args", {}).get("global_pool", config.get("global_pool", "token"))


def convert_timm_weights(
    config: dict[str, Any], weights_file: Path | None, name: str
) -> tuple[PreTrainedConfig, dict[str, torch.Tensor]]:
    """The transformers configuration and weights of a timm checkpoint.

    A model with a distillation token becomes a `DeiTForImageClassificationWithTeacher`, one that is read from the mean
    of the patch tokens a `BeitForImageClassification`, any other a `ViTForImageClassification` (a DeiT without
    distillation token is a ViT). Without a head there is no classifier.

    Args:
        config: The parsed config.json, accepted by `check_timm_config`.
        weights_file: Its model.safetensors; None if it has none.
        name: What the user called the model, for messages.

    Returns:
        The configuration, and the tensors under transformers' names.

    Raises:
        UserError: If the file is missing or broken, or holds tensors without counterpart or shapes that do not fit.
    """
    if weights_file is None:
        raise UserError(f"--model: {name!r} holds no model.safetensors, the only format of timm that is converted.")
    with reading_model(name):
        tensors = load_file(weights_file)
    transformers_config = _transformers_config(config, tensors, name)
    for key in [key for key in tensors if ".attn.qkv." in key]:
        for letter, part in zip("qkv", tensors.pop(key).chunk(3), strict=True):
            tensors[key.replace("qkv", letter)] = part.contiguous()
    if transformers_config.model_type == "beit":  # its keys have no bias, which softmax does not see
        tensors = {key: tensor for key, tensor in tensors.items() if not key.endswith("attn.k.bias")}
    names = _transformers_names(transformers_config)
    unknown = set(tensors) - set(names)
    if unknown:
        raise UserError(
            f"--model: {name!r} is not a plain ViT or DeiT of timm: its weights hold {first_few(unknown)}, "
            "which transformers' model does not have."
        )
    return transformers_config, {names[key]: tensor for key, tensor in tensors.items()}


def timm_image_processor(config: dict[str, Any], name: str) -> BaseImageProcessor:
    """The evaluation preprocessing that timm's config.json describes.

    The shorter edge is resized to `floor(size / crop_pct)` pixels, the centre is cropped, mean and std are applied.
    Where an odd number of pixels is cropped away, transformers leaves the smaller half on the top or left; timm rounds
    the half to the even number, so that its crop can lie one pixel further.

    Args:
        config: The parsed config.json.
        name: What the user called the model, for messages.

    Raises:
        UserError: If a value is missing, or the resizing is one that has no counterpart.
    """
    preprocessing = _preprocessing(config, name)
    interpolation, crop_mode = preprocessing["interpolation"], preprocessing.get("crop_mode", "center")
    if interpolation not in _RESAMPLING or crop_mode != "center":
        raise UserError(
            f"--model: {name!r} asks for {interpolation} resizing with crop mode {crop_mode!r}; "
            "only bilinear and bicubic resizing with crop mode 'center' are converted."
        )
    _, height, width = preprocessing["input_size"]
    return ViTImageProcessorPil(
        size={"shortest_edge": math.floor(height / preprocessing["crop_pct"])},
        resample=_RESAMPLING[interpolation],
        do_center_crop=True,
        crop_size={"height": height, "width": width},
        image_mean=preprocessing["mean"],
        image_std=preprocessing["std"],
        do_convert_rgb=True,
    )


def _preprocessing(config: dict[str, Any], name: str) -> dict[str, Any]:
    preprocessing = config.get("pretrained_cfg", config)  # timm's first Hub format has everything on one level
    missing = {"input_size", "crop_pct", "interpolation", "mean", "std"} - set(preprocessing)
    if missing:
        raise UserError(f"--model: the pretrained_cfg of {name!r} lacks {', '.join(sorted(missing))}.")
    return preprocessing


def _transformers_config(config: dict[str, Any], tensors: dict[str, torch.Tensor], name: str) -> PreTrainedConfig:
    """The configuration, all of it read from the tensors' shapes except the number of heads and the class names."""
    distilled = "dist_token" in tensors
    try:
        width, channels, patch_size, _ = tensors["patch_embed.proj.weight"].shape  # (width, channels, patch, patch)
        num_positions = tensors["pos_embed"].shape[1]
        mlp_width = tensors["blocks.0.mlp.fc1.weight"].shape[0]
    except KeyError as error:
        raise UserError(f"--model: {name!r} is not a ViT of timm: its weights do not hold {error}.") from error
    _, image_height, image_width = _preprocessing(config, name)["input_size"]
    rows, num_prefix_tokens = image_height // patch_size, 1 + distilled
    if image_height != image_width or num_positions != num_prefix_tokens + rows**2:
        raise UserError(
            f"--model: {name!r} has {num_positions} position embeddings, which do not fit an image of {image_height}x"
            f"{image_width} pixels in patches of {patch_size} with {num_prefix_tokens} prefix tokens."
        )
    layers = {int(match[1]) for match in map(re.compile(r"blocks\.(\d+)\.").match, tensors) if match}
    config_class, architecture, settings = ViTConfig, "ViTForImageClassification", {}
    if distilled:
        config_class, architecture = DeiTConfig, "DeiTForImageClassificationWithTeacher"
    elif _pooling(config) == "avg":
        config_class, architecture = BeitConfig, "BeitForImageClassification"
        settings = {"use_absolute_position_embeddings": True, "layer_scale_init_value": 0.0, "drop_path_rate": 0.0}
    return config_class(
        architectures=[architecture],
        hidden_size=width,
        num_hidden_layers=1 + max(layers),
        num_attention_heads=_num_heads(config, width, name),
        intermediate_size=mlp_width,
        layer_norm_eps=1e-6,
        qkv_bias="blocks.0.attn.qkv.bias" in tensors,
        **settings,
        image_size=image_height,
        patch_size=patch_size,
        num_channels=channels,
        **_labels(config, tensors),
    )


def _num_heads(config: dict[str, Any], width: int, name: str) -> int:
    """The number of attention heads: `model_args.num_heads`, else the rule for the architecture's name."""
    size = _PLAIN_ARCHITECTURE.fullmatch(config["architecture"])
    head_channels = _HEAD_CHANNELS.get(size[1] or size[2], 64)
    num_heads = config.get("model_args", {}).get("num_heads")
    if num_heads is None and width % head_channels == 0:
        num_heads = width // head_channels
    if not num_heads or width % num_heads:
        raise UserError(
            f"--model: {name!r} has {width} channels, which heads of {head_channels} channels do not divide: "
            "put the number of attention heads into its config.json as model_args.num_heads."
        )
    return num_heads


def _labels(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The class names, as arguments of a configuration: the checkpoint's own, else ImageNet's for 1000 classes."""
    if "head.weight" not in tensors:
        return {}
    num_classes = tensors["head.weight"].shape[0]
    names = config.get("label_names") or (IMAGENET_NAMES if num_classes == len(IMAGENET_NAMES) else None)
    if names is None or len(names) != num_classes:
        return {"num_labels": num_classes}
    return {"id2label": dict(enumerate(names)), "label2id": {label: index for index, label in enumerate(names)}}


def _transformers_names(config: PreTrainedConfig) -> dict[str, str]:
    """The transformers name of every tensor of timm's model, the parts of qkv taken apart."""
    prefix = config.model_type
    tokens = {"cls_token": "cls_token", "pos_embed": "position_embeddings"}
    modules = {"patch_embed.proj": f"{prefix}.embeddings.patch_embeddings.projection"}
    modules |= {"fc_norm": "beit.pooler.layernorm"} if prefix == "beit" else {"norm": f"{prefix}.layernorm"}
    for layer in range(config.num_hidden_layers):
        modules |= {f"blocks.{layer}.{timm}": f"{prefix}.layers.{layer}.{hf}" for timm, hf in _BLOCK_MODULES.items()}
    if config.model_type == "deit":
        tokens["dist_token"] = "distillation_token"
        modules |= {"head": "cls_classifier", "head_dist": "distillation_classifier"}
    else:
        modules["head"] = "classifier"
    names = {timm: f"{prefix}.embeddings.{hf}" for timm, hf in tokens.items()}
    return names | {f"{timm}.{kind}": f"{hf}.{kind}" for timm, hf in modules.items() for kind in ("weight", "bias")}
