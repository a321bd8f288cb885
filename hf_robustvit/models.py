"""Loading a classifier, and where the image patches sit among its tokens."""

from dataclasses import dataclass

from transformers import PretrainedConfig

from hf_robustvit.errors import UserError


@dataclass(frozen=True)
class PatchLayout:
    """Where a model's image patches are among its tokens.

    Tokens are ordered: prefix tokens (CLS first, then distillation or register tokens), then the patches row by row.

    Attributes:
        patch_size: Height and width of a patch in pixels.
        num_prefix_tokens: Number of tokens before the first patch, CLS included.
    """

    patch_size: tuple[int, int]
    num_prefix_tokens: int

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """The number of patch rows and columns of an image.

        Args:
            height: Image height in pixels.
            width: Image width in pixels.

        Raises:
            UserError: If the image is not a whole number of patches high and wide.
        """
        patch_height, patch_width = self.patch_size
        if height % patch_height or width % patch_width or not height or not width:
            raise UserError(
                f"An image of {height}x{width} pixels cannot be cut into patches of {patch_height}x{patch_width}: "
                "resize or crop it to a multiple of the patch size."
            )
        return height // patch_height, width // patch_width


def patch_layout(config: PretrainedConfig) -> PatchLayout:
    """The patch layout of a supported model.

    Args:
        config: The configuration of a ViT, DeiT, ViT-MSN, DINOv2 or DINOv2-with-registers classifier.
    """
    size = config.patch_size
    patch_height, patch_width = (size, size) if isinstance(size, int) else size
    # A DeiT without distillation token is of the model type "vit", so every "deit" has one.
    num_prefix_tokens = 1 + (config.model_type == "deit") + getattr(config, "num_register_tokens", 0)
    return PatchLayout((patch_height, patch_width), num_prefix_tokens)


def attentions_of(outputs, config):
    if len(outputs.attentions or ()) != config.num_hidden_layers:
        raise UserError("attentions are empty: load with eager")
    return outputs.attentions
