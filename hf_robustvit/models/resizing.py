"""A classifier for images of another size than its checkpoint's."""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from hf_robustvit.errors import UserError
from hf_robustvit.models.families import backbone_of, image_config


def check_image_size(image_size: int, patch_size: tuple[int, int]) -> None:
    """Refuse a size that is no multiple of the patches'."""
    if image_size <= 0 or image_size % patch_size[0] or image_size % patch_size[1]:
        raise UserError(
            f"--input_size is {image_size}: give a multiple of the model's patch size, "
            f"{patch_size[0]}x{patch_size[1]} pixels."
        )


def resize_classifier(
    model: PreTrainedModel, image_processor: BaseImageProcessor, image_size: int, patch_size: tuple[int, int]
) -> BaseImageProcessor:
    """Make a model take square images of another size; saved, it is an ordinary checkpoint of that size.

    Its position embeddings are interpolated once, as transformers does it in every forward pass with
    `interpolate_pos_encoding=True`.

    Args:
        model: The classifier, changed in place.
        image_processor: Its preprocessing.
        image_size: Height and width in pixels, multiples of the patches'.
        patch_size: Height and width of a patch.

    Returns:
        The preprocessing for that size; where it crops the centre, it resizes in proportion before.

    Raises:
        UserError: The model has no position embeddings that can be interpolated, or its preprocessing does not resize.
    """
    if not image_processor.do_resize:
        raise UserError("--input_size: the model's image processor does not resize (do_resize is off): leave it out.")
    config, embeddings = image_config(model.config), backbone_of(model).embeddings
    # CLIP-type models keep theirs in an nn.Embedding.
    table = getattr(embeddings, "position_embedding", None)
    positions = table.weight[None] if table else getattr(embeddings, "position_embeddings", None)  # (1, tokens, width)
    relative = any(getattr(config, f"use_{kind}relative_position_bias", False) for kind in ("", "shared_"))
    if relative or not isinstance(positions, torch.Tensor):
        raise UserError(
            f"--input_size: a model of the type {model.config.model_type} has no position embeddings that could be "
            "interpolated: leave it out."
        )
    square = [{side} if isinstance(side, int) else set(side) for side in (config.image_size, patch_size)]
    if any(len(sides) > 1 for sides in square):
        raise UserError(
            "--input_size: position embeddings are interpolated for square images and patches alone, which this "
            "model's are not: leave it out."
        )
    patches = embeddings if table else embeddings.patch_embeddings
    num_others = positions.shape[1] - patches.num_patches  # the prefix tokens' that have one
    num_patches = (image_size // patch_size[0]) ** 2
    tokens = positions.new_empty(1, num_others + num_patches, positions.shape[2])
    with torch.no_grad():
        resized = embeddings.interpolate_pos_encoding(tokens, image_size, image_size)
    patches.num_patches = num_patches
    if table:
        embeddings.position_embedding = nn.Embedding.from_pretrained(resized[0], freeze=False)
        embeddings.position_ids = torch.arange(len(resized[0]), device=resized.device)[None]
        embeddings.num_positions = len(resized[0])
        embeddings.image_size = image_size
    else:
        embeddings.position_embeddings = nn.Parameter(resized)
        for module in (embeddings, patches):
            module.image_size = (image_size, image_size)
    config.image_size = image_size
    return _resized(image_processor, image_size)


def _resized(image_processor: BaseImageProcessor, image_size: int) -> BaseImageProcessor:
    square = {"height": image_size, "width": image_size}
    if not image_processor.do_center_crop:
        settings = {"size": square}
    else:
        settings = image_processor.to_dict()
        scale = image_size / settings["crop_size"]["height"]
        size = {side: round(scale * length) for side, length in settings["size"].items() if length}
        settings = {"size": size, "crop_size": square}
    return type(image_processor).from_dict(image_processor.to_dict() | settings)
