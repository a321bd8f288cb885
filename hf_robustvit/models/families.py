"""The families of classifiers that are supported, one row each, and the reasons why others are not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn
from transformers import (
    BeitForImageClassification,
    CLIPForImageClassification,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    Dinov2ForImageClassification,
    Dinov2WithRegistersForImageClassification,
    IJepaForImageClassification,
    MetaClip2ForImageClassification,
    PreTrainedConfig,
    PreTrainedModel,
    SiglipForImageClassification,
    ViTForImageClassification,
    ViTMSNForImageClassification,
)

from hf_robustvit.errors import UserError
from hf_robustvit.models import zero_shot


@dataclass(frozen=True)
class Family:
    """What this project needs to know about a family of classifiers.

    Attributes:
        classifier: The class of its models.
        title: What people call it.
        head_reads: What the class score is read from: the "cls" token alone, also a "distillation" token, the mean of
            the "patches" alone, "cls and patches", or the patches by "attention pooling".
        layers: Where the backbone keeps its layers.
        num_prefix_tokens: Number of tokens before the first patch.
        backbone_arguments: Arguments of `from_pretrained` that load the bare backbone as it is inside the classifier.
        resizing_arguments: Arguments of the backbone's forward pass that let it take images of any size.
    """

    classifier: type[PreTrainedModel]
    title: str
    head_reads: Literal["cls", "distillation", "patches", "cls and patches", "attention pooling"] = "cls"
    layers: str = "layers"
    num_prefix_tokens: Callable[[PreTrainedConfig], int] = lambda config: 1
    backbone_arguments: Mapping[str, Any] = field(default_factory=dict)
    resizing_arguments: Mapping[str, Any] = field(default_factory=lambda: {"interpolate_pos_encoding": True})

    @property
    def model_type(self) -> str:
        """What transformers calls it in config.json."""
        return self.classifier.config_class.model_type

    @property
    def takes_any_size(self) -> bool:
        """Whether its models always fit their position embeddings to the image, and so have no argument for it."""
        return not self.resizing_arguments

    @property
    def is_zero_shot(self) -> bool:
        """Whether its models classify by class names, whose text features are the head."""
        return issubclass(self.classifier, zero_shot.ZeroShotHead)


FAMILIES = (
    Family(ViTForImageClassification, "ViT", backbone_arguments={"add_pooling_layer": False}),
    # A DeiT without distillation token is of the model type "vit": every "deit" has one.
    Family(
        DeiTForImageClassification,
        "DeiT",
        num_prefix_tokens=lambda config: 2,
        backbone_arguments={"add_pooling_layer": False},
    ),
    Family(
        DeiTForImageClassificationWithTeacher,
        "DeiT",
        head_reads="distillation",
        num_prefix_tokens=lambda config: 2,
        backbone_arguments={"add_pooling_layer": False},
    ),
    Family(ViTMSNForImageClassification, "ViT-MSN"),
    Family(
        Dinov2ForImageClassification,
        "DINOv2",
        head_reads="cls and patches",
        layers="encoder.layer",
        resizing_arguments={},
    ),
    Family(
        Dinov2WithRegistersForImageClassification,
        "DINOv2 with registers",
        head_reads="cls and patches",
        layers="encoder.layer",
        num_prefix_tokens=lambda config: 1 + config.num_register_tokens,
        resizing_arguments={},
    ),
    Family(BeitForImageClassification, "BEiT", head_reads="patches", backbone_arguments={"add_pooling_layer": False}),
    Family(
        IJepaForImageClassification,
        "I-JEPA",
        head_reads="patches",
        num_prefix_tokens=lambda config: 0,
        backbone_arguments={"add_pooling_layer": False},
    ),
    # Of two families of a model type the first is meant where a config.json names no architecture.
    Family(zero_shot.CLIPModel, "CLIP", layers="encoder.layers"),
    Family(CLIPForImageClassification, "CLIP", head_reads="patches", layers="encoder.layers"),
    Family(zero_shot.MetaClip2Model, "MetaCLIP 2", layers="encoder.layers"),
    Family(MetaClip2ForImageClassification, "MetaCLIP 2", head_reads="patches", layers="encoder.layers"),
    Family(
        zero_shot.SiglipModel,
        "SigLIP",
        head_reads="attention pooling",
        layers="encoder.layers",
        num_prefix_tokens=lambda config: 0,
    ),
    Family(
        SiglipForImageClassification,
        "SigLIP",
        head_reads="patches",
        layers="encoder.layers",
        num_prefix_tokens=lambda config: 0,
    ),
)
MODEL_TYPES = tuple(dict.fromkeys(family.model_type for family in FAMILIES))

# Why attention does not explain the other image classifiers in transformers.
_REFUSALS = {
    "its attention stays inside windows or shrinks from stage to stage, so that no map covers the whole image": (
        *("swin", "swinv2", "donut-swin", "hiera", "dinat", "pvt", "pvt_v2", "segformer", "cvt", "levit"),
        *("mobilevit", "mobilevitv2", "swiftformer"),
    ),
    "it attends from tokens that stand for no part of the image (latents)": ("perceiver",),
    "it reads an image as a row of colours, one token for each pixel": ("imagegpt",),
    "it takes patches of any number and a mask of them instead of an image": ("siglip2",),
    "transformers builds its attention in fixed classes, in which no attention function can be chosen": (
        "data2vec-vision",
    ),
    "transformers has its backbone, but no class of it that classifies images": (
        *("dinov3_vit", "clip_vision_model", "siglip_vision_model", "metaclip_2_vision_model"),
    ),
    "it has no self-attention": (
        *("bit", "convnext", "convnextv2", "efficientnet", "focalnet", "hgnet_v2", "mobilenet_v1", "mobilenet_v2"),
        *("poolformer", "pp_lcnet", "regnet", "resnet", "textnet"),
    ),
    "transformers' wrapper of timm models gives no attentions (use timm/<name>, which is converted)": (
        "timm_wrapper",
    ),
}


def check_model_type(model_type: str | None, name: str, architectures: Sequence[str] | None = None) -> None:
    """Check that a model type is supported.

    Args:
        model_type: As given in config.json.
        name: What the user calls the model.
        architectures: As given in config.json.

    Raises:
        UserError: It is not; the message says why, and what is.
    """
    called = {model_type, *(architectures or ())}
    reasons = [reason for reason, refused in _REFUSALS.items() if called.intersection(refused)]
    if model_type in MODEL_TYPES and not reasons:
        return
    *titles, last = dict.fromkeys(family.title for family in FAMILIES)
    reason = reasons[0] if reasons else "it is not known how it reads its class score from the attended tokens"
    raise UserError(
        f"--model: there is no support for {name!r} (model type {model_type}): {reason}. Supported are "
        f"{', '.join(titles)} and {last} (model types {', '.join(MODEL_TYPES)}) and timm's plain ViT and DeiT."
    )


def family_of(config: PreTrainedConfig) -> Family:
    """The family of a configuration; of several with its model type the one that its `architectures` name.

    Raises:
        UserError: It is not supported.
    """
    check_model_type(config.model_type, config.name_or_path or type(config).__name__, config.architectures)
    families = [family for family in FAMILIES if family.model_type == config.model_type]
    return next(
        (family for family in families if family.classifier.__name__ in (config.architectures or ())), families[0]
    )


def image_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """The part of a configuration that describes the image tower; all of it where there is no other tower."""
    return getattr(config, "vision_config", config)


def backbone_of(model: PreTrainedModel) -> PreTrainedModel:
    """The backbone of a classifier: what makes its tokens and gives their attentions."""
    return getattr(model, "vision_model", model.base_model)


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """The layers of a classifier, first one first."""
    return backbone_of(model).get_submodule(family_of(model.config).layers)


def attention_of(layer: nn.Module) -> nn.Module:
    """The attention of a layer: queries, keys, values and output projection."""
    return layer.self_attn if hasattr(layer, "self_attn") else layer.attention


def head_reads(model: PreTrainedModel) -> str:
    """What a classifier's score is read from, as `Family.head_reads`."""
    if not getattr(model.config, "use_mean_pooling", True):  # BEiT's other pooling
        return "cls"
    family = next((family for family in FAMILIES if isinstance(model, family.classifier)), None)
    return (family or family_of(model.config)).head_reads
