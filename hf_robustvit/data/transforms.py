"""Joint transforms of an image and its foreground mask, which change both alike, and batches of them."""

from collections.abc import Callable, Mapping
from typing import Any

import datasets
import numpy as np
import PIL.Image
import torch
from transformers import BaseImageProcessor

from hf_robustvit.data.masks import NO_FLAGS, MaskReading
from hf_robustvit.data.pairs import Pair, PairError, read_row, undecoded
from hf_robustvit.errors import UserError


# The value of a mask where a pixel counts neither as object nor as background.
IGNORED = -1.0


class PairTransform:
    """Base of the two transforms: reads pairs, normalises them and leaves the geometry to `_resize_and_crop`.

    Called with a batch of columns (a dict of lists, as `datasets` gives it to `Dataset.with_transform`) it returns the
    columns `pixel_values` ((3, height, width) float32, normalised), `mask` (where the batch has masks: (1, height,
    width) float32 in [0, 1], or -1 where the pixel is to be ignored) and all others (`label`, `image_id`) unchanged.

    Args:
        image_processor: The model's. Its crop size (its size where it does not crop) and its `normalization` are used;
            the paper's mean and standard deviation are 0.5. Where it does not resize, nothing is resized.
        crop_size: (height, width) in pixels, or one number for both, where the processor's is not the model's.
        reading: How masks are read, as for `read_row`.

    Raises:
        UserError: The processor states no size; or, when called, a pair cannot be used (see `read_pair`).
    """

    def __init__(
        self,
        image_processor: BaseImageProcessor,
        crop_size: int | tuple[int, int] | None = None,
        reading: MaskReading | None = NO_FLAGS,
    ):
        if crop_size is None:
            crop_size = processor_size(image_processor)
        self.crop_size = (crop_size, crop_size) if isinstance(crop_size, int) else tuple(crop_size)
        # The paper resizes to 256 and crops 224 of it.
        self.resize_size = tuple(round(side * 256 / 224) for side in self.crop_size)
        self.resizes = image_processor.do_resize
        self.mean, self.std = normalization(image_processor)
        self.reading = reading

    def __call__(self, batch: dict[str, list]) -> dict[str, list]:
        return transform_rows(batch, lambda row: self.apply(row, self.read(row)))

    def read(self, row: Mapping[str, Any]) -> Pair:
        """The pictures of a row, read by `read_row`."""
        try:
            return read_row(row, self.reading)
        except PairError as error:
            raise UserError(
                f"{error}. Repair or remove it; hf_robustvit.data.check_pairs finds all such files."
            ) from error

    def apply(self, row: Mapping[str, Any], pair: Pair) -> dict[str, Any]:
        """The example made of a row with these pictures."""
        example = {column: value for column, value in row.items() if column not in ("image", "mask", "ignore")}
        (width, height), (crop_height, crop_width) = pair.image.size, self.crop_size
        if not self.resizes and (width < crop_width or height < crop_height):
            raise UserError(
                f"{row['image_id']} is {width}x{height} pixels, the model takes {crop_width}x{crop_height}, and its "
                "image processor does not resize (do_resize is off): enlarge the image, or switch do_resize on."
            )
        pictures = self._resize_and_crop([picture for picture in pair[:3] if picture is not None])
        example["pixel_values"] = (_to_tensor(pictures[0]) - self.mean) / self.std  # (3, height, width)
        if pair.mask is not None:
            example["mask"] = _to_tensor(pictures[1])  # (1, height, width)
        if pair.ignored is not None:
            # Where resizing has mixed in an ignored pixel, the result is unknown too.
            example["mask"][_to_tensor(pictures[2]) > 0] = IGNORED
        return example

    def _resize_and_crop(self, pictures: list[PIL.Image.Image]) -> list[PIL.Image.Image]:
        raise NotImplementedError


class TrainTransform(PairTransform):
    """The paper's augmentation: resize to 256/224 of the crop, random crop, horizontal flip with probability 1/2.

    Image and mask are resized bilinearly (so the mask's edges become soft) and without keeping their aspect ratio.
    """

    def _resize_and_crop(self, pictures: list[PIL.Image.Image]) -> list[PIL.Image.Image]:
        # torch's global generator, which `AugmentedPairs` seeds for each row.
        width, height = self.resize_size[::-1] if self.resizes else pictures[0].size
        crop_height, crop_width = self.crop_size
        top = int(torch.randint(height - crop_height + 1, ()))
        left = int(torch.randint(width - crop_width + 1, ()))
        flip = bool(torch.rand(()) < 0.5)
        box = (left, top, left + crop_width, top + crop_height)
        pictures = [picture.resize((width, height), PIL.Image.Resampling.BILINEAR).crop(box) for picture in pictures]
        return [picture.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT) for picture in pictures] if flip else pictures


class EvalTransform(PairTransform):
    """The paper's validation: resize the shorter side to 256/224 of the crop (bilinear), then crop the centre.

    For a crop that is not square the image becomes as small as it can be without falling short of the resized size.
    """

    def _resize_and_crop(self, pictures: list[PIL.Image.Image]) -> list[PIL.Image.Image]:
        width, height = pictures[0].size
        least_height, least_width = self.resize_size
        # Whole numbers, so that the side that fits is exact and the other never falls short of the crop.
        if self.resizes and least_height * width >= least_width * height:
            height, width = least_height, least_height * width // height
        elif self.resizes:
            height, width = least_width * height // width, least_width
        crop_height, crop_width = self.crop_size
        top, left = round((height - crop_height) / 2), round((width - crop_width) / 2)
        box = (left, top, left + crop_width, top + crop_height)
        return [picture.resize((width, height), PIL.Image.Resampling.BILINEAR).crop(box) for picture in pictures]


def transform_rows(batch: dict[str, list], transform: Callable[[dict], dict]) -> dict[str, list]:
    """A batch of columns whose every row went through a function."""
    examples = [transform(dict(zip(batch, row, strict=True))) for row in zip(*batch.values(), strict=True)]
    return {column: [example[column] for example in examples] for column in examples[0]}


def with_pair_transform(dataset: datasets.Dataset, transform: PairTransform) -> datasets.Dataset:
    """`dataset.with_transform(transform)`, except that the transform opens the files and so can name a broken one."""
    return undecoded(dataset).with_transform(transform)


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


class AugmentedPairs(torch.utils.data.Dataset):
    """A data set whose augmentation depends on the seed, the epoch and the row alone.

    So neither the number of data-loading workers and of training processes nor an interruption in the middle of an
    epoch changes what is trained on. (A data loader reads ahead: from one running generator, the images that were
    read but not yet trained on when a checkpoint was saved would be augmented differently after it.)

    Args:
        dataset: Rows that are transformed when they are read, with draws from torch's global generator.
        seed: The run's.
    """

    def __init__(self, dataset: datasets.Dataset, seed: int):
        self.dataset = dataset
        self.seed = seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # seen by workers that outlive an epoch

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> dict[str, Any]:
        (seed,) = np.random.SeedSequence((self.seed, int(self._epoch), row)).generate_state(1, np.uint64)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(seed))
            return self.dataset[row]

    def set_epoch(self, epoch: int) -> None:
        """Draw anew; called at the beginning of each epoch."""
        self._epoch.fill_(epoch)


def normalization(image_processor: BaseImageProcessor) -> tuple[torch.Tensor, torch.Tensor]:
    """How a processor transforms colours, allowing for steps that are switched off.

    Returns:
        Mean and standard deviation, (3, 1, 1) float32 each: `pixel_values` are (colours in [0, 1] - mean) / std.
    """
    scale = 255 * image_processor.rescale_factor if image_processor.do_rescale else 255
    normalises = image_processor.do_normalize
    mean, std = (image_processor.image_mean, image_processor.image_std) if normalises else ([0.0] * 3, [1.0] * 3)
    return torch.tensor(mean).view(3, 1, 1) / scale, torch.tensor(std).view(3, 1, 1) / scale


def processor_size(image_processor: BaseImageProcessor) -> tuple[int, int]:
    """Height and width of the pictures that a processor makes, or expects where it does not resize."""
    size = image_processor.crop_size if image_processor.do_center_crop else image_processor.size
    if size.height and size.width:
        return size.height, size.width
    if size.shortest_edge:
        return size.shortest_edge, size.shortest_edge
    raise UserError(f"The image processor's size {dict(size)} has neither height and width nor shortest_edge.")


def _to_tensor(picture: PIL.Image.Image) -> torch.Tensor:
    """A picture of mode RGB or L as (channels, height, width) float32 in [0, 1]."""
    values = np.array(picture, dtype=np.float32) / 255
    return torch.from_numpy(np.atleast_3d(values)).permute(2, 0, 1).contiguous()
