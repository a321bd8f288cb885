"""From transformed examples to the batch that the losses take."""

from typing import Any

import torch


def collate_pairs(examples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack examples of `TrainTransform` or `EvalTransform` into a batch.

    Args:
        examples: Dicts of `pixel_values`, `label`, `image_id` and, where the set has masks, `mask`.

    Returns:
        `pixel_values` (batch, 3, height, width) float32, `labels` (batch,) int64, `image_ids` (list of str) and, where
        the examples have one, `masks` (batch, 1, height, width) float32 in [0, 1].
    """
    batch = {
        "pixel_values": torch.stack([example["pixel_values"] for example in examples]),
        "labels": torch.tensor([example["label"] for example in examples], dtype=torch.int64),
        "image_ids": [example["image_id"] for example in examples],
    }
    if "mask" in examples[0]:
        batch["masks"] = torch.stack([example["mask"] for example in examples])
    return batch
