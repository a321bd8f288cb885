"""Tiny random classifiers of every supported family, built in milliseconds.

Use them with `from tiny_models import FAMILIES, tiny_model`.
"""

import torch
from tiny_tokenizer import TEXT, tiny_tokenizer
from transformers import PreTrainedModel, TrainingArguments

from hf_robustvit.models import families


_CLASSES = {
    family.model_type
    + "_with_teacher" * (family.head_reads == "distillation")
    + "_zero_shot" * family.is_zero_shot: family.classifier
    for family in families.FAMILIES
}
FAMILIES = tuple(_CLASSES)
# The flag, and what begins the methods' names; transformers before 5.23 has but the older one.
CHECKPOINTING = (
    f"{'activation' if hasattr(TrainingArguments, 'activation_checkpointing') else 'gradient'}_checkpointing"
)
# Their classes in transformers take square images and patches only.
SQUARE = ("beit", "clip", "clip_zero_shot", "metaclip_2", "metaclip_2_zero_shot", "siglip", "siglip_zero_shot")


def rerun_layers(model: PreTrainedModel, **kwargs) -> None:
    """Switch on activation checkpointing."""
    getattr(model, f"{CHECKPOINTING}_enable")(kwargs or None)


def tiny_model(
    family: str,
    image_size: int | tuple[int, int] = 32,
    patch_size: int | tuple[int, int] = 8,
    seed: int = 0,
    **config_overrides,
) -> PreTrainedModel:
    """A classifier of a family with seeded random weights, in eval mode, with eager attention.

    No weight, bias or token is left at zero and the weights are large enough for attention maps far from uniform.

    Args:
        family: One of `FAMILIES`.
        image_size: Height and width in pixels, or one number for both. The DINOv2 families need a square grid here
            and take images of any other size at run time; the others take only this size, those of `SQUARE` a square.
        patch_size: Patch height and width in pixels, or one number for both.
        seed: The same seed gives the same weights; the global random state is left alone.
        **config_overrides: Any field of the family's configuration, for example `num_labels`.
    """
    model_class = _CLASSES[family]
    default = model_class.config_class()
    mlp = {"mlp_ratio": 2} if hasattr(default, "mlp_ratio") else {"intermediate_size": 64}
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, **mlp, "initializer_range": 0.2}
    settings = {**small, "image_size": image_size, "patch_size": patch_size}
    if family == "beit":
        settings |= {"use_relative_position_bias": True, "use_absolute_position_embeddings": True, "drop_path_rate": 0}
    settings |= config_overrides
    num_labels = settings.pop("num_labels", 5)
    if hasattr(default, "vision_config"):
        labels = {name: settings.pop(name) for name in ("id2label", "label2id") if name in settings}
        text = {**small, **TEXT, "projection_dim": 16}
        if family == "siglip_zero_shot":
            text["max_position_embeddings"] = 64  # transformers' pipeline pads to it
        settings = {"vision_config": settings, "text_config": text, "projection_dim": 16, **labels}
    config = model_class.config_class(num_labels=num_labels, **settings)
    config._attn_implementation = "eager"
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = model_class(config)
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    if family.endswith("zero_shot"):
        model.set_classes(["ant", "bee", "cow", "dog", "elk"][:num_labels], "a photo of a {}.", tiny_tokenizer())
    return model.eval()
