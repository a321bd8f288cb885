"""What a perfect map could gain: accuracy when what the head reads is forbidden to attend to the background."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from PIL import Image
from transformers import PreTrainedModel

from hf_robustvit.evaluation.images import BenchmarkImages
from hf_robustvit.evaluation.one_pass import Measurement, hits
from hf_robustvit.evaluation.run import BenchmarkRun
from hf_robustvit.models.families import backbone_of, head_reads
from hf_robustvit.models.patches import patch_layout


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
    from the mean of the patch tokens. Where the score is read from that mean alone no token may attend to the
    background, whose own patches stay in the mean. Where an attention pools the patches, it alone may not.

    Args:
        model: A classifier from `load_classifier`, in any attention; what runs inside is a forward pass on as many
            images as there are masks.
        patch_masks: (batch, rows, columns) bool, True where a patch belongs to the foreground.
    """
    allowed = patch_masks.flatten(1)  # (batch, patches)
    allowed = allowed | ~allowed.any(dim=1, keepdim=True)
    if head_reads(model) == "attention pooling":
        pooling, ignored = backbone_of(model).head.attention, {"key_padding_mask": ~allowed}
        with pooling.register_forward_pre_hook(lambda *call: (call[1], ignored), with_kwargs=True):
            yield
        return
    num_prefix = patch_layout(model.config).num_prefix_tokens
    visible = F.pad(allowed, (num_prefix, 0), value=True)  # (batch, tokens)
    mask = torch.zeros(len(visible), 1, visible.shape[1], visible.shape[1], device=visible.device, dtype=model.dtype)
    rows = slice(None) if head_reads(model) == "patches" else slice(0, 1)
    mask[:, 0, rows].masked_fill_(~visible[:, None], -torch.inf)  # added to the scores of the rows

    def add_mask(module, arguments, keywords):
        return arguments, keywords | {"attention_mask": mask}

    with model.register_forward_pre_hook(add_mask, with_kwargs=True):
        yield


def applies(run: BenchmarkRun) -> bool:
    """Whether the oracle is asked for, and the data set has masks and labels."""
    return run.oracle and run.data.has_masks and run.data.label_space is not None


def measurement(run: BenchmarkRun) -> Measurement:
    """Classify every image under `attend_to_foreground`, with its own mask.

    The bool column `top1_oracle`, over all the model's classes as `top1`.
    """
    patch_size = patch_layout(run.checkpoint.model.config).patch_size

    def forbid(inputs: Mapping[str, torch.Tensor]) -> contextlib.AbstractContextManager:
        return attend_to_foreground(run.checkpoint.model, foreground_patches(inputs["mask"], patch_size))

    return hits(run, {"top1_oracle": run.images(ForegroundImages, with_masks=True)}, forbid)
