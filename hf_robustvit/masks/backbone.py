"""The self-supervised ViT whose key features tell an object's patches from its surroundings' (paper section 4)."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import MODEL_MAPPING, PreTrainedModel

from hf_robustvit.data.transforms import normalization
from hf_robustvit.errors import UserError
from hf_robustvit.flags.masks import TokenCutOptions
from hf_robustvit.models.families import family_of, image_config
from hf_robustvit.models.files import commit_of
from hf_robustvit.models.loading import is_head, read_checkpoint
from hf_robustvit.models.weights import check_whole, load_model


logger = logging.getLogger(__name__)

# Suggested where there is no such backbone.
BACKBONES = (TokenCutOptions.backbone, "facebook/dinov2-base", "facebook/vit-msn-base", "cutouts-vit")


@dataclass(frozen=True)
class Backbone:
    """A ViT, and the normalisation that its input needs.

    Attributes:
        model: In eval mode, on its device.
        image_mean: (3,) mean of the input's channels, pixel values in [0, 1].
        image_std: (3,) their standard deviation.
        name: What was loaded.
        revision: The commit on the Hub; None for a local folder.
        resizing_arguments: Of the model's forward pass, so that it takes images of any size.
    """

    model: PreTrainedModel
    image_mean: list[float]
    image_std: list[float]
    name: str
    revision: str | None
    resizing_arguments: Mapping[str, Any] = field(default_factory=lambda: {"interpolate_pos_encoding": True})

    @property
    def patch_size(self) -> int:
        return self.model.config.patch_size

    @torch.no_grad()  # not inference mode: BEiT keeps a tensor of its first forward pass, for training too
    def key_features(self, images: list[Image.Image]) -> torch.Tensor:
        """Keys of the last layer, heads side by side, of the patch tokens.

        Args:
            images: RGB, all of one size, which is a whole number of patches high and wide.

        Returns:
            (batch, hidden size, rows * cols) on the model's device, patches row by row.
        """
        pixels = np.stack([np.asarray(image, dtype=np.float32) for image in images]) / 255
        pixels = (pixels - np.float32(self.image_mean)) / np.float32(self.image_std)  # (batch, H, W, 3)
        patches = pixels.shape[1] * pixels.shape[2] // self.patch_size**2
        keys = []
        projection = [module for name, module in self.model.named_modules() if name.endswith("k_proj")][-1]
        hook = projection.register_forward_hook(lambda module, args, output: keys.append(output))
        try:
            self.model(torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.model.device), **self.resizing_arguments)
        finally:
            hook.remove()
        return keys[0][:, -patches:].transpose(1, 2)  # the prefix tokens come first


def load_backbone(name: str, revision: str | None = None, device: torch.device | str = "cpu") -> Backbone:
    """Load a ViT without its head. If it has one, the log warns that TokenCut will find little.

    Args:
        name: Hub id or folder, in transformers' format or timm's (converted), or "cutouts-vit" (embedded).
        revision: Branch, tag or commit on the Hub.
        device: Where the model is put.

    Raises:
        UserError: If it cannot be loaded, is not a plain ViT, or lacks weights.
    """
    try:
        config, weights, processor = read_checkpoint(name, revision, BACKBONES)
        family, image_tower = family_of(config), image_config(config)
        if type(image_tower) not in MODEL_MAPPING:
            raise UserError(
                f"--model: {name!r} is of the model type {config.model_type}, whose image tower transformers does not "
                "load without the text tower: give a ViT, for example facebook/dino-vitb16."
            )
        model, report = load_model(
            MODEL_MAPPING[type(image_tower)],
            name,
            weights,
            config=image_tower,
            revision=revision,
            dtype=torch.float32,
            **family.backbone_arguments,
        )
    except UserError as error:
        raise UserError(str(error).replace("--model:", "--backbone:", 1)) from error
    if any(map(is_head, report["unexpected_keys"])):
        logger.warning(
            "--backbone: %r is a classifier. TokenCut is made for features learnt without labels "
            "(facebook/dino-vitb16, for example); with a model trained on labels it mostly finds nothing.",
            name,
        )
    check_whole("backbone", name, report)
    mean, std = (values.flatten().tolist() for values in normalization(processor))
    return Backbone(
        model=model.eval().to(device),
        image_mean=mean,
        image_std=std,
        name=name,
        revision=commit_of(name, revision),
        resizing_arguments=family.resizing_arguments,
    )
