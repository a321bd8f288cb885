"""ImageNet-S (919, 300 or 50 classes): photographs of ImageNet with the object's mask, as its authors ship it."""

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import datasets
import numpy as np
from PIL import ExifTags, Image, ImageOps

from hf_robustvit.builders.listing import (
    File,
    class_root,
    content_id,
    file_at,
    find_folder,
    list_class_folders,
    refuse_escape,
    stem,
)
from hf_robustvit.errors import UserError
from hf_robustvit.imagenet_classes import WNIDS


EXPECTED = "ImageNetS919/train-semi-segmentation/<wnid>/*.png"
IMAGES_FROM = {
    "train-semi": "name ImageNet's train folder with --images_dir, or make train-semi with the authors' script",
    "validation": "make ImageNetS919/validation with the authors' script",
}
NUM_CLASSES = (919, 300, 50)
OTHER, IGNORE = 0, 1000

# ImageNet-S puts the images of five classes with those of five others. The paper's code uses none of the ten.
MERGED_INTO = {
    "n03642806": "n03832673",
    "n03887697": "n15075141",
    "n04008634": "n03773504",
    "n04356056": "n04355933",
    "n04493381": "n02808440",
}


class MaskedImage(NamedTuple):
    """One row; `own_id` is the number of its class in the masks, where all classes are there to count it."""

    image_id: str
    wnid: str
    image: File
    mask: File
    own_id: int | None


@dataclass
class ImageNetSConfig(datasets.BuilderConfig):
    """A split (`train-semi` or `validation`) and how it is read.

    Args:
        images_dir: Where the images are when not in data_dir/<split>: ImageNet's train (or val) folder, or one that
            holds it.
        masks_dir: A folder of <wnid>/<stem of the image>.png to take, as they are, instead of the annotated masks.
        merged_classes: Keep the five classes that hold the images of two. Their label is that of their folder.
        ignore: Also give `ignore`, 255 where the annotators left a pixel undecided (id 1000). In `mask` these
            pixels are background, as in the paper's code.
    """

    images_dir: str | None = None
    masks_dir: str | None = None
    merged_classes: bool = False
    ignore: bool = False

    @functools.cached_property
    def root(self) -> str:
        """The folder of the data set; the largest where data_dir holds several."""
        names = [f"ImageNetS{number}" for number in NUM_CLASSES]
        return find_folder(self.data_dir, "imagenet-s", names, EXPECTED)

    @functools.cached_property
    def masks_root(self) -> str:
        """The folder of the masks' class folders."""
        if self.masks_dir is not None:
            return class_root(self.masks_dir, None, "masks")
        folder = os.path.join(self.root, f"{self.name}-segmentation")
        if not os.path.isdir(folder):
            raise UserError(
                f"--dataset imagenet-s: {self.root} has no folder {self.name}-segmentation. Expected {EXPECTED}; "
                "--data_dir names the folder ImageNetS919 (or 300, 50) or the one that holds it."
            )
        return folder

    @functools.cached_property
    def images_root(self) -> str:
        """The folder of the images' class folders."""
        folder = os.path.abspath(self.images_dir) if self.images_dir else os.path.join(self.root, self.name)
        if not os.path.isdir(folder):
            raise UserError(
                f"--dataset imagenet-s: the folder {folder}, which should hold the images, does not exist. Its "
                f"authors ship masks only: {IMAGES_FROM[self.name]}."
            )
        inner = os.path.join(folder, "val" if self.name == "validation" else "train")
        return inner if os.path.isdir(inner) else folder

    @functools.cached_property
    def rows(self) -> list[MaskedImage]:
        """The rows, by class and then by file name."""
        listed = list_class_folders(self.masks_root, (".png",))
        folders = {name: files for name, files in listed.items() if files}
        unknown = sorted(set(folders) - set(WNIDS))
        if unknown or not folders:
            found = f"folders that are not ImageNet classes (first: {unknown[0]})" if unknown else "no masks"
            raise UserError(f"--dataset imagenet-s: {self.masks_root} has {found}. Expected <wnid>/*.png.")
        rows, missing = [], []
        for own_id, (wnid, masks) in enumerate(folders.items(), start=1):
            if not self.merged_classes and wnid in {*MERGED_INTO, *MERGED_INTO.values()}:
                continue
            for mask in masks:
                image, image_id = self._find_image(wnid, stem(mask)), f"{wnid}/{stem(mask)}.JPEG"
                missing += [] if image else [image_id]
                rows.append(MaskedImage(image_id, wnid, image, mask, own_id if len(folders) in NUM_CLASSES else None))
        if missing:
            raise UserError(
                f"--dataset imagenet-s: {len(missing)} of {len(rows)} masks have no image in {self.images_root} "
                f"(first: {missing[0]}): {IMAGES_FROM[self.name]}."
            )
        return rows

    def _find_image(self, wnid: str, name: str) -> File | None:
        # Twenty masks lie in the class theirs was merged into; ImageNet has the image under the class in its name.
        for folder in (name.split("_")[0], wnid):
            path = os.path.join(self.images_root, folder, f"{name}.JPEG")
            if folder in WNIDS and os.path.exists(path):
                refuse_escape(path, self.images_root)
                return file_at(path)
        return None

    @functools.cached_property
    def wnids(self) -> list[str]:
        """The classes that have rows, ascending."""
        return sorted({row.wnid for row in self.rows})

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        """Name the cache after every file's path, size and time, so that a changed folder is read again."""
        content = content_id(self.ignore, self.masks_dir, *self.rows)
        return super().create_config_id({"content": content}, custom_features)


class ImageNetS(datasets.GeneratorBasedBuilder):
    """Builder of ImageNet-S; configuration `train-semi` has the split `train`, `validation` the split `test`.

    Rows: `image` (points to the file), `mask` (8-bit grey, 255 is the object), `label` (the names are the wnids of the
    classes that have images), `image_id` (<wnid>/<file>), and `ignore` where asked for. Arguments: `config_name`,
    `data_dir`, `cache_dir` and the fields of `ImageNetSConfig`.

    In the annotated masks a pixel's id is R + 256 G: 0 is no class, 1000 is undecided. A training mask has one
    further id, its class's; a validation mask may have several, of which the class's own is taken.

    Raises:
        UserError: A folder, an image or a mask is missing or broken, or a mask does not have the ids it should.
    """

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIG_CLASS = ImageNetSConfig
    BUILDER_CONFIGS = [ImageNetSConfig(name=name) for name in ("train-semi", "validation")]
    DEFAULT_CONFIG_NAME = "train-semi"

    def _info(self) -> datasets.DatasetInfo:
        features = {
            "image": datasets.Image(),
            "mask": datasets.Image(),
            "label": datasets.ClassLabel(names=self.config.wnids),
            "image_id": datasets.Value("string"),
        }
        if self.config.ignore:
            features["ignore"] = datasets.Image()
        return datasets.DatasetInfo(features=datasets.Features(features))

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        split = datasets.Split.TEST if self.config.name == "validation" else datasets.Split.TRAIN
        return [datasets.SplitGenerator(split, gen_kwargs={"rows": self.config.rows})]

    def _generate_examples(self, rows: list[MaskedImage]) -> Iterator[tuple[str, dict]]:
        for row in rows:
            columns = {"image": row.image.path, "label": row.wnid, "image_id": row.image_id}
            yield row.image_id, columns | self._masks(row)

    def _masks(self, row: MaskedImage) -> dict[str, Any]:
        if self.config.masks_dir is not None:
            return {"mask": row.mask.path}
        ids = read_ids(row.mask.path)
        found = np.unique(ids).tolist()
        classes = set(found) - {OTHER, IGNORE}
        if self.config.name == "validation" and len(classes) > 1:
            classes &= {row.own_id}
        if len(classes) != 1:
            raise UserError(
                f"--dataset imagenet-s: the mask {row.mask.path} has the ids {found}; expected exactly one, its "
                f"class's, besides {OTHER} (no class) and {IGNORE} (left open): download it again."
            )
        masks = {"mask": ids == classes.pop()} | ({"ignore": ids == IGNORE} if self.config.ignore else {})
        return {name: as_displayed(mask, row.image.path) for name, mask in masks.items()}


def read_ids(path: str) -> np.ndarray:
    """The ids of an annotated mask's pixels: (height, width) int64, R + 256 G of the file."""
    try:
        with Image.open(path) as file:
            red, green, _ = np.moveaxis(np.asarray(file.convert("RGB"), dtype=np.int64), -1, 0)
    # Pillow's decoders raise almost anything on broken files.
    except Exception as error:
        raise UserError(f"--dataset imagenet-s: the mask {path} cannot be read ({error}): repair it.") from error
    return red + 256 * green


def as_displayed(mask: np.ndarray, image: str) -> Image.Image:
    """A mask (height, width) bool as 8-bit grey, turned as the EXIF orientation of its image says.

    ImageNet-S marks the pixels as they are stored; training reads the image, and so must find the mask, as displayed.
    """
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    try:
        with Image.open(image) as file:
            orientation, size = file.getexif().get(ExifTags.Base.Orientation, 1), file.size
    except Exception:  # a broken image is named when its pair is checked
        return picture
    if size == picture.size:
        picture.getexif()[ExifTags.Base.Orientation] = orientation
    return ImageOps.exif_transpose(picture)
