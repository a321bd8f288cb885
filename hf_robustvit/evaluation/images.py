"""From the rows of a data set to the model's input, one image at a time, so that a broken file can be told by name."""

from typing import Any, Literal

import datasets
import numpy as np
import torch
from PIL import Image
from transformers import PretrainedConfig, ViTImageProcessorPil

from hf_robustvit.data import NO_FLAGS, MaskReading, PairError, read_row
from hf_robustvit.data.benchmark_rows import Render
from hf_robustvit.data.pairs import read_plausible_row, undecoded
from hf_robustvit.data.transforms import normalization, processor_size
from hf_robustvit.errors import UserError
from hf_robustvit.models.families import image_config


Preprocessing = Literal["checkpoint", "paper"]

#: Mean and standard deviation of every model in the paper's code, DeiT included.
PAPER_NORMALIZATION = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


class UnreadableImage(Exception):
    """An image file cannot be used; the message says why."""


class BenchmarkImages(torch.utils.data.Dataset):
    """The preprocessed images of a data set.

    An item is a dict of `index` (int), `pixel_values` (3, H, W) float32, `readable` (bool) and, where asked for,
    `mask` (H, W) int8 in {0, 1, -1 ignored}. An unreadable image is all zeros, so that batches keep their size in
    every process.

    Args:
        dataset: Rows with `image`, `image_id`, and `mask` where `with_masks`.
        image_processor: Turns a PIL image into `pixel_values`.
        crop_border: Pixels cut from each side before anything else. ObjectNet's images have a red border of 1 pixel;
            its authors' rule is 2, the paper's 0.
        with_masks: Also give the masks, squashed to the input's size without interpolation.
        turned: These are one's own photos: images and masks are turned by their EXIF orientation, and masks are read
            as for training. No benchmark's protocol does either.
        reading: How masks of one's own are read.
        render: Makes the pictures of a row at the input's size, without a border to cut; None where rows hold them.
    """

    def __init__(
        self,
        dataset: datasets.Dataset,
        image_processor,
        crop_border: int = 0,
        with_masks: bool = False,
        turned: bool = False,
        reading: MaskReading = NO_FLAGS,
        render: Render | None = None,
    ):
        self.columns = ["image", "mask"] if with_masks else ["image"]
        read = dataset.column_names if render else [*self.columns, "image_id"]
        self.rows = undecoded(dataset.with_format(None).select_columns(read))
        self.image_ids: list[str] = dataset["image_id"][:]
        self.image_processor = image_processor
        self.crop_border = crop_border
        self.turned = turned
        self.reading = reading
        self.render = render
        resizes = image_processor.do_resize or image_processor.do_center_crop
        height, width = (256, 256) if resizes else processor_size(image_processor)
        self.blank = torch.zeros_like(self._pixel_values(Image.new("RGB", (width, height))))
        if resizes and self._pixel_values(Image.new("RGB", (2 * width, height))).shape != self.blank.shape:
            raise UserError(
                "--model: its preprocessor_config.json makes wide images of wide photos, which no batch can hold: "
                "switch do_center_crop on there, or give size a height and a width."
            )

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
            item["mask"] = self._mask(**{name: pictures[name] for name in pictures if name != "image"})
        return item

    def reason_unreadable(self, index: int) -> str | None:
        """Why an image cannot be read; None if it can."""
        try:
            self._read(index)
        except UnreadableImage as error:
            return str(error)
        return None

    def _read(self, index: int) -> dict[str, Image.Image]:
        """The pictures of a row by their names in `Pair`, without their borders."""
        row, border = self.rows[index], self.crop_border
        if self.render:
            return self._rendered(row)
        try:
            pair = read_plausible_row(row, self.reading) if self.turned else read_row(row, None, turned=False)
        except PairError as error:
            subject = "it" if error.problem == "image" else "its mask"
            raise UnreadableImage(f"{subject}{error.fault}".removeprefix("it: ")) from error
        width, height = pair.image.size
        if min(width, height) <= 2 * border:
            raise UnreadableImage(f"its {width}x{height} pixels are nothing but a border of {border}")
        pictures = {name: getattr(pair, name) for name in ("image", "mask", "ignored")}
        box = (border, border, width - border, height - border)
        if not (self.image_processor.do_resize or self.image_processor.do_center_crop):
            expected = tuple(self.blank.shape[:0:-1])
            if (box[2] - border, box[3] - border) != expected:
                raise UnreadableImage(
                    f"it is {width}x{height} pixels, the model takes {expected[0]}x{expected[1]}, and its image "
                    "processor does not resize: do_resize is off"
                )
        return {name: picture.crop(box) for name, picture in pictures.items() if picture is not None}

    def _rendered(self, row: dict[str, Any]) -> dict[str, Image.Image]:
        try:
            pair = self.render(row, tuple(self.blank.shape[-2:]))
        except PairError as error:
            raise UnreadableImage(str(error)) from error
        return {name: getattr(pair, name) for name in self.columns}

    def _mask(self, mask: Image.Image, ignored: Image.Image | None = None) -> torch.Tensor:
        height, width = self.blank.shape[-2:]
        squashed = np.asarray(mask.resize((width, height), Image.Resampling.NEAREST))
        labels = (squashed > 127).astype(np.int8)
        if ignored is not None:
            labels[np.asarray(ignored.resize((width, height), Image.Resampling.NEAREST)) > 0] = -1
        return torch.from_numpy(labels)  # (H, W)

    def _pixel_values(self, image: Image.Image) -> torch.Tensor:
        return self.image_processor(image, return_tensors="pt")["pixel_values"][0].float()  # (3, H, W)


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
    colours = PAPER_NORMALIZATION
    if preprocessing == "checkpoint":
        mean, std = (values.flatten().tolist() for values in normalization(image_processor))
        colours = {"image_mean": mean, "image_std": std}
    return ViTImageProcessorPil(size={"height": height, "width": width}, **colours)


def input_size(config: PretrainedConfig) -> tuple[int, int]:
    """Height and width in pixels of a model's input."""
    size = image_config(config).image_size
    return (size, size) if isinstance(size, int) else tuple(size)
