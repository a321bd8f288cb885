"""What a perfect map could gain: accuracy when the CLS token is forbidden to attend to the background."""

import contextlib
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from transformers import PreTrainedModel

from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.images import BenchmarkImages
from hf_robustvit.evaluation.label_spaces import LabelSpace
from hf_robustvit.evaluation.loop import LoopOptions, run_over_images
from hf_robustvit.models.loading import patch_layout


ORACLE_FIGURE = "top1_oracle"
FOREGROUND_SHARE = 0.03
"""A patch with less foreground than this belongs to the background."""


class ForegroundImages(BenchmarkImages):
    """Images whose `mask`, (H, W) float32 in [0, 1], went through the same resizing and cropping as they did.

    Ignored pixels are background here.
    """

    def _mask(self, mask: Image.Image, ignored: Image.Image | None = None) -> torch.Tensor:
        as_shares = {"do_normalize": False, "do_rescale": True, "rescale_factor": 1 / 255}
        processed = self.image_processor(mask.convert("RGB"), return_tensors="pt", **as_shares)
        return processed["pixel_values"][0, 0]


def foreground_patches(
    masks: torch.Tensor, patch_size: tuple[int, int], least_share: float = FOREGROUND_SHARE
) -> torch.Tensor:
    """Which patches belong to the foreground.

    Args:
        masks: (batch, height, width) in [0, 1].
        patch_size: Height and width of a patch in pixels.
        least_share: Of foreground in a patch that counts as such.

    Returns:
        (batch, rows, columns) bool.
    """
    return F.avg_pool2d(masks[:, None].float(), patch_size)[:, 0] >= least_share


@contextlib.contextmanager
def attend_to_foreground(model: PreTrainedModel, patch_masks: torch.Tensor) -> Iterator[None]:
    """Forbid the CLS token, in every layer, to attend to background patches.

    It still sees itself and the other prefix tokens, and all other tokens attend to everything, so what they carry of
    the background stays. An image without a foreground patch is left alone. Two families read their score from more
    than the CLS token, which the oracle does not restrict: DeiT's second head from the distillation token, DINOv2 also
    from the mean of the patch tokens.

    Args:
        model: A classifier from `load_classifier`, in any attention; what runs inside is a forward pass on as many
            images as there are masks. Maps by `explain` are not for lean attention here: it forgets the mask.
        patch_masks: (batch, rows, columns) bool, True where a patch belongs to the foreground.
    """
    allowed = patch_masks.flatten(1)  # (batch, patches)
    allowed = allowed | ~allowed.any(dim=1, keepdim=True)
    num_prefix = patch_layout(model.config).num_prefix_tokens
    visible = F.pad(allowed, (num_prefix, 0), value=True)  # (batch, tokens)
    mask = torch.zeros(len(visible), 1, visible.shape[1], visible.shape[1], device=visible.device, dtype=model.dtype)
    mask[:, 0, 0].masked_fill_(~visible, -torch.inf)  # added to the scores of the CLS token's row

    def add_mask(module, arguments, keywords):
        return arguments, keywords | {"attention_mask": mask}

    with model.register_forward_pre_hook(add_mask, with_kwargs=True):
        yield


def oracle_accuracy(
    checkpoint: Checkpoint,
    images: ForegroundImages,
    labels: np.ndarray,
    label_space: LabelSpace,
    options: LoopOptions,
    accelerator: Accelerator,
    description: str,
    least_share: float = FOREGROUND_SHARE,
) -> pd.DataFrame:
    """Classify every image under `attend_to_foreground`, with its own mask.

    Args:
        checkpoint: The model.
        images: The benchmark's images with their masks, in the preprocessing of the accuracy run.
        labels: (images,) int64, the data set's own labels.
        label_space: How the data set's classes meet the model's.
        options: How images are fed, and the precision.
        accelerator: The processes and the device.
        description: What the progress bar says.
        least_share: Of foreground in a patch that the CLS token may attend to.

    Returns:
        `image_id` and the bool column `top1_oracle`, over all the model's classes as `top1`; one row for each readable
        image.

    Raises:
        UserError: An image or mask cannot be read, and `options.skip_unreadable` is off.
    """
    patch_size = patch_layout(checkpoint.model.config).patch_size

    def step(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        patch_masks = foreground_patches(batch["mask"], patch_size, least_share)
        with attend_to_foreground(checkpoint.model, patch_masks):
            return {"guess": checkpoint.model(pixel_values=batch["pixel_values"]).logits.argmax(dim=1)}  # (batch,)

    columns = run_over_images(step, images, options, accelerator, description)
    expected = np.asarray(label_space.first_indices)[labels[columns["index"]]]
    return pd.DataFrame({"image_id": columns["image_id"], ORACLE_FIGURE: columns["guess"] == expected})
