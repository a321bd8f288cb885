"""Loading a classifier whose relevance map can be trained."""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from PIL import Image
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoImageProcessor,
    AutoTokenizer,
    BaseImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    ViTImageProcessorPil,
)
from transformers.utils import ModelOutput

from hf_robustvit.errors import UserError, first_few, unknown_name
from hf_robustvit.lean.attention import LEAN, Attentions
from hf_robustvit.models.attention_choice import fastest_attention
from hf_robustvit.models.families import check_model_type, family_of, image_config
from hf_robustvit.models.files import KNOWN_MODELS, find_model_file, model_source, read_model_config, reading_model
from hf_robustvit.models.patches import pair_of, patch_layout
from hf_robustvit.models.resizing import check_image_size, resize_classifier
from hf_robustvit.models.timm_weights import is_timm_config, read_timm_model
from hf_robustvit.models.weights import load_model
from hf_robustvit.models.zero_shot import PROMPT_TEMPLATE, saved_class_names


logger = logging.getLogger(__name__)

ATTENTIONS = ("eager", LEAN, "auto")
_HEAD_NEEDED = "choose a checkpoint that was trained to classify, or fine-tune it on data with labels of your own"


def attentions_of(outputs: ModelOutput, config: PreTrainedConfig) -> Attentions:
    """The attention maps of a forward pass, guaranteed to be there.

    Under its default attention function (sdpa) a model answers `output_attentions=True` with an empty tuple.

    Args:
        outputs: What the model returned for `output_attentions=True`.
        config: The model's configuration.

    Returns:
        One tensor (batch, heads, tokens, tokens) per layer, first layer first; a `LeanAttention` under lean attention.

    Raises:
        UserError: If a map is missing.
    """
    attentions = tuple(attention for attention in outputs.attentions or () if attention is not None)
    num_layers = image_config(config).num_hidden_layers
    if len(attentions) != num_layers:
        raise UserError(
            f"The model returned {len(attentions)} attention maps for its {num_layers} layers under "
            f"{config._attn_implementation!r} attention: load it with load_classifier or call "
            "model.set_attn_implementation('eager'), and ask for output_attentions=True."
        )
    return attentions


def bare_classifier(model: nn.Module) -> PreTrainedModel:
    """The classifier inside what surrounds it: several processes, or a PeftModel, whose matrices are in its layers."""
    model = extract_model_from_parallel(model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def load_classifier(
    name_or_path: str | os.PathLike,
    revision: str | None = None,
    attention: str = "eager",
    dtype: torch.dtype | None = None,
    id2label: Mapping[int, str] | None = None,
    image_size: int | None = None,
    class_names: Sequence[str] | None = None,
    prompt_template: str | None = None,
) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Load an image classifier that its attention explains.

    Supported are the families of `families.FAMILIES`, and timm's plain ViT and DeiT. The relevance starts from the
    tokens that the class score is read from:

    - ViT, ViT-MSN, the DeiT with one head and zero-shot CLIP and MetaCLIP 2: the CLS token.
    - The DeiT with two heads averages the scores of the CLS token and of the distillation token: the CLS token, which
      explains the first half.
    - BEiT, I-JEPA, and CLIP, MetaCLIP 2 and SigLIP with a classification head: the mean of the patch tokens.
    - DINOv2: the CLS token and the mean of the patch tokens, each with its weight in the score.
    - Zero-shot SigLIP: the patch tokens, as the attention that pools them weighs them.

    Code from a repository is never run. Safetensors are preferred; a pytorch_model.bin is read as plain tensors only.

    Args:
        name_or_path: A folder, a Hub id, `timm/<name>` (converted, see `timm_weights`) or "cutouts-vit" (embedded).
        revision: Branch, tag or commit on the Hub; None is the main branch.
        attention: The attention function. "eager" computes the attention maps and can do everything. "lean" computes
            SDPA and recomputes the maps when they are explained, with less memory; it is first order only and takes
            no attention dropout. "auto" chooses, and the log says why: "eager" where the model has attention
            dropout, or weights in bfloat16 on a CPU; "lean_kept_maps", which is "lean" but for keeping what it
            recomputes between two backward passes, for many tokens where memory allows; else "lean".
        dtype: Type of the weights; None is float32, regardless of the file's.
        id2label: The label set that is wanted, class index to name; None keeps the checkpoint's. When it differs from
            the checkpoint's, or the checkpoint has no head, the head is a new random one, and the log says so. A
            CLIP-type model takes them for `class_names`.
        image_size: Height and width of the images in pixels; None is the checkpoint's. For another size its position
            embeddings are interpolated.
        class_names: The classes of a CLIP-type model (CLIPModel, MetaClip2Model, SiglipModel), which is given a
            frozen head of their text features; None keeps those it was saved with after fine-tuning.
        prompt_template: What its text tower reads, with {} for the class name; None is the one it was saved with, or
            "a photo of a {}."

    Returns:
        The model in eval mode, and its image processor.

    Raises:
        UserError: If the model is not found, cannot be read, is of a family that is not supported, has no head (and no
            `id2label` is given), has weights that do not fit its configuration, or does not fit `image_size`; or class
            names are missing for a CLIP-type model, or given for another.
    """
    name = os.fspath(name_or_path)
    if attention not in ATTENTIONS:
        raise unknown_name("attention", attention, ATTENTIONS)
    config, weights, image_processor = read_checkpoint(name, revision)
    _check_size(image_processor, config, name)
    layout = patch_layout(config)
    if image_size is not None:
        check_image_size(image_size, layout.patch_size)
    if attention == "auto":
        size = image_size or _made_size(image_processor) or image_config(config).image_size
        num_tokens = layout.num_prefix_tokens + math.prod(layout.grid(*pair_of(size)))
        attention, reason = fastest_attention(image_config(config), num_tokens, dtype)
        logger.info(f"{name} gets the attention {attention!r}: {reason}.")
    how = {"revision": revision, "attn_implementation": attention, "dtype": dtype or torch.float32}
    if family_of(config).is_zero_shot:
        class_names = class_names or (id2label and [id2label[index] for index in range(len(id2label))])
        model = _load_zero_shot(name, config, class_names, prompt_template, **how)
    elif class_names or prompt_template:
        flag = "class_names" if class_names else "prompt_template"
        raise UserError(
            f"--{flag}: {name!r} has a classification head of its own, and only CLIP-type models (CLIPModel, "
            "MetaClip2Model, SiglipModel) classify by class names: leave it out."
        )
    else:
        model = _load_weights(name, config, weights, id2label, **how)
    model.name_or_path = model.config.name_or_path = name
    if image_size is not None:
        image_processor = resize_classifier(model, image_processor, image_size, layout.patch_size)
    return model, image_processor


def classifier_config(name_or_path: str | os.PathLike, revision: str | None = None) -> PreTrainedConfig:
    """The configuration that `load_classifier` finds, without the model; of a backbone it has no labels.

    Args:
        name_or_path: As `load_classifier` takes it.
        revision: Branch, tag or commit on the Hub.

    Raises:
        UserError: The configuration is unusable, as for `load_classifier`.
    """
    config, _, image_processor = read_checkpoint(os.fspath(name_or_path), revision)
    _check_size(image_processor, config, os.fspath(name_or_path))
    if family_of(config).is_zero_shot:
        config.id2label = dict(enumerate(saved_class_names(config) or ()))
    elif config.architectures and not any("ForImageClassification" in model for model in config.architectures):
        config.id2label, config.label2id = {}, {}  # transformers gives every configuration some
    return config


def read_checkpoint(
    name: str, revision: str | None, known: Sequence[str] = KNOWN_MODELS
) -> tuple[PreTrainedConfig, dict[str, torch.Tensor] | None, BaseImageProcessor]:
    """A model's configuration, the weights that were converted on the way (timm's), and its image processor.

    Args:
        name: As for `load_classifier`.
        revision: Branch, tag or commit on the Hub.
        known: Names that are suggested where there is no such model.

    Raises:
        UserError: These files are unusable, as for `load_classifier`.
    """
    config_dict = read_model_config(name, revision, known)
    with reading_model(name):
        if is_timm_config(config_dict):
            config, weights, image_processor = read_timm_model(config_dict, name, revision)
        else:
            check_model_type(config_dict.get("model_type"), name, config_dict.get("architectures"))
            if config_dict.get("quantization_config"):
                raise UserError(
                    f"--model: {name!r} is quantised (its config.json has a quantization_config), and quantised "
                    "weights cannot be trained or explained: give the model that it was made from."
                )
            config, weights = CONFIG_MAPPING[config_dict["model_type"]].from_dict(config_dict), None
            image_processor = _image_processor(name, config, revision)
        _check_numbers(config, name)
        image_processor(Image.new("RGB", (64, 64)), return_tensors="pt")  # which shows values that do not fit
    num_channels = image_config(config).num_channels
    if num_channels != 3:
        raise UserError(
            f"--model: {name!r} takes images of {num_channels} channels (num_channels), and images are read in RGB "
            "here: give a model with num_channels 3."
        )
    return config, weights, image_processor


def _check_numbers(config: PreTrainedConfig, name: str) -> None:
    """Refuse sizes and counts that transformers would take for numbers until it computes with them."""
    for key in ("image_size", "patch_size"):
        if type(size := getattr(image_config(config), key)) is not int and [*map(type, size or ())] != [int, int]:
            raise UserError(f"--model: the config.json of {name!r} says {key} {size!r}: give one or two numbers.")
    for part in (image_config(config), getattr(config, "text_config", None)):
        for key in ("hidden_size", "num_attention_heads", "num_hidden_layers"):
            if part and getattr(part, key) < 1:
                raise UserError(
                    f"--model: the config.json of {name!r} says {key} {getattr(part, key)}: give a number above 0."
                )


def _check_size(image_processor: BaseImageProcessor, config: PreTrainedConfig, name: str) -> None:
    """Refuse an image processor whose images are not of the size that the position embeddings are for."""
    made, needed = _made_size(image_processor), pair_of(image_config(config).image_size)
    if made and made != needed and not (family_of(config).takes_any_size and min(made) > 0):
        raise UserError(
            f"--model: the preprocessor_config.json of {name!r} makes images of {made[0]}x{made[1]} pixels, but its "
            f"config.json says image_size {needed[0]}x{needed[1]}: correct the one that is wrong."
        )


def _made_size(image_processor: BaseImageProcessor) -> tuple[int, int] | None:
    """Height and width of what an image processor makes; None where these depend on the image."""
    made = None
    if getattr(image_processor, "do_center_crop", False):
        made = image_processor.crop_size
    elif image_processor.do_resize:
        made = image_processor.size
    return (made["height"], made["width"]) if made and None not in (made.get("height"), made.get("width")) else None


def _image_processor(name: str, config: PreTrainedConfig, revision: str | None) -> BaseImageProcessor:
    if find_model_file(name, "preprocessor_config.json", revision) is not None:
        # PIL on every machine: torchvision resizes slightly differently.
        return AutoImageProcessor.from_pretrained(
            model_source(name), revision=revision, config=config, backend="pil", trust_remote_code=False
        )
    height, width = pair_of(image_config(config).image_size)
    logger.warning(
        f"{name} holds no preprocessor_config.json: images are resized to {height}x{width} pixels and normalised with "
        "mean and standard deviation 0.5, which is right only for a model that was trained that way."
    )
    return ViTImageProcessorPil(size={"height": height, "width": width}, do_convert_rgb=True)


def _load_weights(
    name: str,
    config: PreTrainedConfig,
    weights: dict[str, torch.Tensor] | None,
    id2label: Mapping[int, str] | None,
    **from_pretrained: Any,
) -> PreTrainedModel:
    """The model with the given weights, or with those beside its config.json when `weights` is None."""
    own_labels = dict(config.id2label)
    if id2label is not None:
        config.id2label = {int(index): label for index, label in id2label.items()}
        config.label2id = {label: index for index, label in config.id2label.items()}
    if not config.id2label:
        raise UserError(f"--model: {name!r} has no classes (num_labels is 0): {_HEAD_NEEDED}.")
    model, report = load_model(family_of(config).classifier, name, weights, config=config, **from_pretrained)
    new_labels = id2label is not None and config.id2label != own_labels
    has_head = _check_loaded(name, report, new_labels, may_lack_head=id2label is not None)
    if new_labels or not has_head:
        same_number = len(own_labels) == len(config.id2label)
        found = f"a head for {len(own_labels)} {'other ' if same_number else ''}classes" if has_head else "no head"
        logger.warning(
            f"{name} has {found}: it gets a new one for {len(config.id2label)} classes, random until trained."
        )
        _reset_heads(model)
    return model


def _load_zero_shot(
    name: str,
    config: PreTrainedConfig,
    class_names: Sequence[str] | None,
    prompt_template: str | None,
    revision: str | None,
    **from_pretrained: Any,
) -> PreTrainedModel:
    """A CLIP-type model with a head of class names: those given, or those it was saved with."""
    class_names = class_names or saved_class_names(config)
    if not class_names:
        raise UserError(
            f"--model: {name!r} classifies by class names, and none are given: name a file of them with --class_names "
            "(load_classifier(..., class_names=[...]))."
        )
    prompt_template = prompt_template or getattr(config, "prompt_template", PROMPT_TEMPLATE)
    model, report = load_model(family_of(config).classifier, name, config=config, revision=revision, **from_pretrained)
    with reading_model(name):
        tokenizer = AutoTokenizer.from_pretrained(model_source(name), revision=revision, trust_remote_code=False)
        _check_loaded(name, report, new_labels=False, may_lack_head=True)
        model.set_classes(class_names, prompt_template, tokenizer)
    return model


def _check_loaded(name: str, report: dict[str, Any], new_labels: bool, may_lack_head: bool) -> bool:
    """Whether the checkpoint has a classification head; anything else missing or left over is an error.

    Args:
        name: What the user called the model.
        report: The loading info of `from_pretrained`.
        new_labels: Whether the user brings other labels, so that the checkpoint's head may be of any size.
        may_lack_head: Whether the user brings labels, so that a head can be made.
    """
    # A mask token and a pooler take no part in classification, and backbones are often saved with them. Position ids
    # only count, and CLIP was saved with them.
    missing = {key for key in report["missing_keys"] if not key.endswith("mask_token")}
    left_over = {
        key
        for key in report["unexpected_keys"]
        if not (key.endswith(("mask_token", "position_ids")) or "pooler.dense." in key)
    }
    misfits = {
        key: f"{key} {tuple(found)} instead of {tuple(wanted)}" for key, found, wanted in report["mismatched_keys"]
    }
    missing_head = {key for key in missing if is_head(key)}
    if new_labels:
        left_over = {key for key in left_over if not is_head(key)}
        misfits = {key: misfit for key, misfit in misfits.items() if not is_head(key)}
    problems = {"missing": missing - missing_head, "left over": left_over, "of another shape": misfits.values()}
    found = "; ".join(f"{problem}: {first_few(keys)}" for problem, keys in problems.items() if keys)
    if found:
        raise UserError(f"--model: the weights of {name!r} do not fit its config.json ({found}).")
    if missing_head and not may_lack_head:
        raise UserError(f"--model: {name!r} has no classification head: {_HEAD_NEEDED}.")
    return not missing_head


def is_head(key: str) -> bool:
    """Whether a weight or module of a classifier belongs to a classification head, by its name."""
    return key.split(".")[0].endswith("classifier")


def _reset_heads(model: PreTrainedModel) -> None:
    for child_name, head in model.named_children():
        if is_head(child_name):
            nn.init.normal_(head.weight, std=image_config(model.config).initializer_range)
            nn.init.zeros_(head.bias)
