"""From the rows of a data set to the model's input, one image at a time, so that a broken file can be told by name."""

from collections.abc import Mapping
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
        self.with_masks = with_masks
        columns = ["image", "mask"] if with_masks else ["image"]
        read = dataset.column_names if render else [*columns, "image_id"]
        self.rows = undecoded(dataset.with_format(None).select_columns(read))
        self.image_ids: list[str] = dataset["image_id"][:]
        self.image_processor = image_processor
        self.crop_border = crop_border
        self.turned = turned
        self.reading = reading
        self.render = render
        resizes = image_processor.do_resize or image_processor.do_center_crop
        height, width = (256, 256) if resizes else processor_size(image_processor)
        self.size = tuple(self._pixel_values(Image.new("RGB", (width, height))).shape[-2:])  # of the input
        if resizes and tuple(self._pixel_values(Image.new("RGB", (2 * width, height))).shape[-2:]) != self.size:
            raise UserError(
                "--model: its preprocessor_config.json makes wide images of wide photos, which no batch can hold: "
                "switch do_center_crop on there, or give size a height and a width."
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            return {"index": index, "readable": True} | self.inputs(self.read(index), index)
        except UnreadableImage:
            return {"index": index, "readable": False} | self.blank()

    def reason_unreadable(self, index: int) -> str | None:
        """Why an image cannot be read; None if it can."""
        try:
            self.inputs(self.read(index), index)
        except UnreadableImage as error:
            return str(error)
        return None

    def inputs(self, pictures: Mapping[str, Image.Image], index: int) -> dict[str, torch.Tensor]:
        """What an item holds of pictures as `read` gives them.

        Raises:
            UnreadableImage: They are no input of the model.
        """
        pictures = self._changed(pictures, index)
        resizes = self.image_processor.do_resize or self.image_processor.do_center_crop
        if not resizes and pictures["image"].size != self.size[::-1]:
            width, height = (side + 2 * self.crop_border for side in pictures["image"].size)
            raise UnreadableImage(
                f"it is {width}x{height} pixels, the model takes {self.size[1]}x{self.size[0]}, and its image "
                "processor does not resize: do_resize is off"
            )
        inputs = {"pixel_values": self._pixel_values(pictures["image"])}
        if self.with_masks:
            inputs["mask"] = self._mask(pictures["mask"], pictures.get("ignored"))
        return inputs

    def blank(self) -> dict[str, torch.Tensor]:
        """What an item holds of an unreadable image."""
        inputs = {"pixel_values": torch.zeros(3, *self.size)}
        if self.with_masks:
            inputs["mask"] = self._mask(Image.new("L", self.size[::-1]))
        return inputs

    def read(self, index: int) -> dict[str, Image.Image]:
        """The pictures of a row by their names in `Pair`, without their borders.

        Raises:
            UnreadableImage: A file is broken, or the pictures do not fit.
        """
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
        return {name: picture.crop(box) for name, picture in pictures.items() if picture is not None}

    def _rendered(self, row: dict[str, Any]) -> dict[str, Image.Image]:
        try:
            pair = self.render(row, self.size)
        except PairError as error:
            raise UnreadableImage(str(error)) from error
        return {"image": pair.image, "mask": pair.mask}

    def _changed(self, pictures: Mapping[str, Image.Image], index: int) -> Mapping[str, Image.Image]:
        """The pictures that the model is shown in place of a row's own; here these."""
        return pictures

    def _mask(self, mask: Image.Image, ignored: Image.Image | None = None) -> torch.Tensor:
        height, width = self.size
        squashed = np.asarray(mask.resize((width, height), Image.Resampling.NEAREST))
        labels = (squashed > 127).astype(np.int8)
        if ignored is not None:
            labels[np.asarray(ignored.resize((width, height), Image.Resampling.NEAREST)) > 0] = -1
        return torch.from_numpy(labels)  # (H, W)

    def _pixel_values(self, image: Image.Image) -> torch.Tensor:
        return self.image_processor(image, return_tensors="pt")["pixel_values"][0].float()  # (3, H, W)


class JointImages(BenchmarkImages):
    """Several kinds of images made of the same rows, whose pictures are read once for all of them.

    An item is a dict of `index` and `readable`, and by the name of each kind a dict of its `pixel_values` and, where
    it has them, `mask`. An image is readable if all kinds can be made of it.

    Args:
        kinds: The kinds by their names.
    """

    def __init__(self, kinds: Mapping[str, BenchmarkImages]):
        self.kinds = kinds
        self.reader = max(kinds.values(), key=lambda images: images.with_masks)
        self.rows, self.image_ids = self.reader.rows, self.reader.image_ids

    def read(self, index: int) -> dict[str, Image.Image]:
        """As `BenchmarkImages`; with masks if any kind needs them."""
        return self.reader.read(index)

    def inputs(self, pictures: Mapping[str, Image.Image], index: int) -> dict[str, dict[str, torch.Tensor]]:
        """As `BenchmarkImages`, by the name of each kind."""
        return {name: images.inputs(pictures, index) for name, images in self.kinds.items()}

    def blank(self) -> dict[str, dict[str, torch.Tensor]]:
        """As `BenchmarkImages`, by the name of each kind."""
        return {name: images.blank() for name, images in self.kinds.items()}


def are_preprocessed_alike(first: BenchmarkImages, second: BenchmarkImages) -> bool:
    """Whether two kinds of images make the same `pixel_values` of a picture, to the bit; tried on one of noise."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, size=(600, 800, 3), dtype=np.uint8))
    return torch.equal(*(images._pixel_values(noise) for images in (first, second)))


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
