"""Where the image patches sit among a model's tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedConfig

from hf_robustvit.errors import UserError
from hf_robustvit.models.families import family_of, image_config


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


def patch_layout(config: PreTrainedConfig) -> PatchLayout:
    """The patch layout of a supported model.

    Args:
        config: The configuration of a classifier of a supported family.

    Raises:
        UserError: If the model is of another type.
    """
    return PatchLayout(pair_of(image_config(config).patch_size), family_of(config).num_prefix_tokens(config))


def pair_of(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width of what may be given as one number for both."""
    return (size, size) if isinstance(size, int) else tuple(size)
