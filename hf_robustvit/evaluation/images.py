"""From the rows of a data set to the model's input, one image at a time, so that a broken file can be told by name."""

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, Literal

import datasets
import numpy as np
import torch
from PIL import Image, ImageOps
from transformers import PretrainedConfig, ViTImageProcessorPil

from hf_robustvit.data import foreground_mask, open_picture


Preprocessing = Literal["checkpoint", "paper"]

#: Mean and standard deviation of every model in the paper's code, DeiT included.
PAPER_NORMALIZATION = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


# What pictures are converted to: colours as Pillow does it, masks to 0 and 255 whichever way they are stored.
CONVERT = {"image": lambda image: image.convert("RGB"), "mask": foreground_mask}


class UnreadableImage(Exception):
    """An image file cannot be used; the message says why."""


class BenchmarkImages(torch.utils.data.Dataset):
    """The preprocessed images of a data set.

    An item is a dict of `index` (int), `pixel_values` (3, H, W) float32, `readable` (bool) and, where asked for,
    `mask` (H, W) int8 in {0, 1}. An unreadable image is all zeros, so that batches keep their size in every process.

    Args:
        dataset: Rows with `image`, `image_id`, and `mask` (as `foreground_mask` reads it) where `with_masks`.
        image_processor: Turns a PIL image into `pixel_values`.
        crop_border: Pixels cut from each side before anything else. ObjectNet's images have a red border of 1 pixel;
            its authors' rule is 2, the paper's 0.
        with_masks: Also give the masks, squashed to the input's size without interpolation.
        turned: Turn images and masks by their EXIF orientation, as one's own photos want it. No benchmark's protocol
            does.
    """

    def __init__(
        self,
        dataset: datasets.Dataset,
        image_processor,
        crop_border: int = 0,
        with_masks: bool = False,
        turned: bool = False,
    ):
        self.columns = ["image", "mask"] if with_masks else ["image"]
        self.rows = dataset.with_format(None).select_columns(self.columns)
        for column in self.columns:
            self.rows = self.rows.cast_column(column, datasets.Image(decode=False))
        self.image_ids: list[str] = dataset["image_id"][:]
        self.image_processor = image_processor
        self.crop_border = crop_border
        self.turned = turned
        self.blank = torch.zeros_like(self._pixel_values(Image.new("RGB", (256, 256))))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        height, width = self.blank.shape[-2:]
        try:
            pictures = self._read(index)
        except UnreadableImage:
            item = {"index": index, "pixel_values": self.blank, "readable": False}
            return item | {column: self._mask(Image.new("L", (width, height))) for column in self.columns[1:]}
        item = {"index": index, "pixel_values": self._pixel_values(pictures["image"]), "readable": True}
        if "mask" in pictures:
            item["mask"] = self._mask(pictures["mask"])
        return item

    def reason_unreadable(self, index: int) -> str | None:
        """Why an image cannot be read; None if it can."""
        try:
            self._read(index)
        except UnreadableImage as error:
            return str(error)
        return None

    def _read(self, index: int) -> dict[str, Image.Image]:
        row = self.rows[index]
        pictures = {
            column: read_picture(row[column], CONVERT[column], self.crop_border, self.turned)
            for column in self.columns
        }
        if len({picture.size for picture in pictures.values()}) > 1:
            raise UnreadableImage("its mask has another size, {0.width}x{0.height}".format(pictures["mask"]))
        return pictures

    def _mask(self, mask: Image.Image) -> torch.Tensor:
        height, width = self.blank.shape[-2:]
        squashed = np.asarray(mask.resize((width, height), Image.Resampling.NEAREST))
        return torch.from_numpy((squashed > 127).astype(np.int8))  # (H, W)

    def _pixel_values(self, image: Image.Image) -> torch.Tensor:
        return self.image_processor(image, return_tensors="pt")["pixel_values"][0]  # (3, H, W)


def read_picture(
    stored: Mapping[str, Any],
    convert: Callable[[Image.Image], Image.Image],
    crop_border: int = 0,
    turned: bool = False,
) -> Image.Image:
    """Decode an image or a mask as stored in a data set.

    Args:
        stored: `bytes` of the file, or else its `path`.
        convert: Brings it to the mode that is wanted.
        crop_border: Pixels to cut from each side.
        turned: Turn it by its EXIF orientation.

    Raises:
        UnreadableImage: The file is missing, broken, too large (see `open_picture`), or nothing but borders.
    """
    try:
        with open_picture(BytesIO(stored["bytes"]) if stored["bytes"] is not None else stored["path"]) as file:
            image = convert(ImageOps.exif_transpose(file) if turned else file)
    # Pillow's decoders raise almost anything on broken files: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        raise UnreadableImage(f"{type(error).__name__}: {error}") from error
    if min(image.size) <= 2 * crop_border:
        raise UnreadableImage(f"its {image.width}x{image.height} pixels are nothing but borders of {crop_border}")
    return image.crop((crop_border, crop_border, image.width - crop_border, image.height - crop_border))


def benchmark_image_processor(preprocessing: Preprocessing, image_processor, config: PretrainedConfig):
    """The preprocessing of an accuracy run.

    Args:
        preprocessing: "checkpoint" is the model's own. "paper" is what the paper's code does for every model: shorter
            edge to 256 (bilinear), centre crop of 224, mean and deviation 0.5; in proportion for other input sizes.
        image_processor: The checkpoint's own.
        config: The model's configuration, for its input size.
    """
    if preprocessing == "checkpoint":
        return image_processor
    height, width = input_size(config)
    return ViTImageProcessorPil(
        size={"shortest_edge": round(max(height, width) * 256 / 224)},
        do_center_crop=True,
        crop_size={"height": height, "width": width},
        **PAPER_NORMALIZATION,
    )


def segmentation_image_processor(preprocessing: Preprocessing, image_processor, config: PretrainedConfig):
    """The preprocessing of the segmentation test: image and mask are squashed to the input size, nothing is cropped.

    Args:
        preprocessing: Whose mean and deviation: the "checkpoint"'s own, or 0.5 of the "paper".
        image_processor: The checkpoint's own.
        config: The model's configuration, for its input size.
    """
    height, width = input_size(config)
    normalization = PAPER_NORMALIZATION
    if preprocessing == "checkpoint":
        normalization = {"image_mean": image_processor.image_mean, "image_std": image_processor.image_std}
    return ViTImageProcessorPil(size={"height": height, "width": width}, **normalization)


def input_size(config: PretrainedConfig) -> tuple[int, int]:
    """Height and width in pixels of a model's input."""
    size = config.image_size
    return (size, size) if isinstance(size, int) else tuple(size)
