"""The loop over a data set's images that every evaluation shares: workers, processes, progress, broken files."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import concatenate, send_to_device
from torch.utils.data import DataLoader

from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.images import BenchmarkImages
from hf_robustvit.terminal import progress


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopOptions:
    """How images are fed and the model is run.

    Attributes:
        batch_size: Images in a batch, in each process.
        num_workers: Processes that read and preprocess images, for each process that runs the model.
        skip_unreadable: Go on without the images that cannot be read, instead of stopping at the first.
        bf16: Run the model in bfloat16 autocast.
    """

    batch_size: int = 64
    num_workers: int = 0
    skip_unreadable: bool = False
    bf16: bool = False


def run_over_images(
    step: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    images: BenchmarkImages,
    options: LoopOptions,
    accelerator: Accelerator,
    description: str,
) -> dict[str, np.ndarray]:
    """Apply a step to all images, each once, however many processes share them.

    Args:
        step: From a batch on the device to tensors with one row an image, all of them small.
        images: The images.
        options: How they are fed.
        accelerator: The processes and the device.
        description: What the progress bar says.

    Returns:
        The step's outputs for the readable images in the data set's order, with the `image_id` and `index` of each;
        the same in every process.

    Raises:
        UserError: An image cannot be read and `skip_unreadable` is off, or none can be read.
    """
    pinned = accelerator.device.type == "cuda"
    loader = DataLoader(images, batch_size=options.batch_size, num_workers=options.num_workers, pin_memory=pinned)
    # Batches stay on the CPU at first, where looking for unreadable images does not wait for the device.
    loader = accelerator.prepare_data_loader(loader, device_placement=False)
    outputs = []
    for batch in progress(loader, description, "batch", accelerator.is_main_process):
        for index in batch["index"][~batch["readable"]].tolist():
            _report_unreadable(images, index, options.skip_unreadable)
        batch = send_to_device(batch, accelerator.device, non_blocking=pinned)
        with torch.no_grad(), torch.autocast(accelerator.device.type, torch.bfloat16, enabled=options.bf16):
            # Copies: what a worker sent keeps a file open as long as it lives.
            outputs.append(step(batch) | {name: batch[name].clone() for name in ("index", "readable")})
    # Only here do all outputs leave the device: fetched after each batch, they would let it run out of work.
    gathered = accelerator.gather(concatenate(outputs))
    arrays = {name: values.cpu().numpy() for name, values in gathered.items()}
    # Sorted, and each once: to be given equally many images, processes repeat some.
    kept = np.unique(arrays["index"], return_index=True)[1]
    kept = kept[arrays.pop("readable")[kept]]
    if not len(kept):
        raise UserError(f"{description}: none of the {len(images)} images can be read.")
    arrays = {name: values[kept] for name, values in arrays.items()}
    return arrays | {"image_id": np.asarray(images.image_ids, dtype=object)[arrays["index"]]}


def _report_unreadable(images: BenchmarkImages, index: int, skip: bool) -> None:
    image_id, reason = images.image_ids[index], images.reason_unreadable(index)
    if not skip:
        raise UserError(
            f"image {image_id!r} cannot be read ({reason}); repair the file, or leave such images out "
            "with --skip_unreadable."
        )
    logger.warning("left out image %r, which cannot be read (%s)", image_id, reason)
