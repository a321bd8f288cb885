"""Benchmarks from the Hugging Face Hub, where there is a copy that `datasets` can read."""

import logging
import os
from dataclasses import dataclass

import datasets
from huggingface_hub import HfApi

from hf_robustvit.builders.cue_conflict import CueConflict
from hf_robustvit.builders.imagenet import ImageNet
from hf_robustvit.builders.imagenet_9 import ImageNet9
from hf_robustvit.builders.imagenet_c import ImageNetC
from hf_robustvit.builders.imagenet_d import ImageNetD
from hf_robustvit.builders.si_score import SIScore
from hf_robustvit.errors import UserError, first_line


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HubCopy:
    """A copy of a benchmark on the Hub.

    Attributes:
        repository: Its name.
        split: The split that holds the benchmark.
        licence: As its card or, where that is silent, the benchmark's authors state it.
        label_column: Where a row's class is: `label` (numbers, whose names are wnids), `wnid` (text), or `cls`, the
            position among the benchmark's sorted wnids that webdataset archives have.
    """

    repository: str
    split: str
    licence: str
    label_column: str


COPIES = {
    "imagenet-a": HubCopy("barkermrl/imagenet-a", "train", "MIT", "label"),
    "imagenet-r": HubCopy("axiong/imagenet-r", "test", "MIT", "wnid"),
    "imagenet-sketch": HubCopy("clip-benchmark/wds_imagenet_sketch", "test", "MIT (by its authors)", "cls"),
    "imagenet-v2": HubCopy("clip-benchmark/wds_imagenetv2", "test", "MIT (by its authors)", "cls"),
}

# For all the configurations of a builder.
WHY_NONE_OF = {
    SIScore: "there is no copy on the Hub; unpack the authors' zip and name the folder that holds <class name>/*.jpg.",
    ImageNet9: "no copy on the Hub is read; unpack backgrounds_challenge_data.tar.gz of the authors' release and "
    "name the folder that holds original, mixed_same and the others.",
    CueConflict: "no copy on the Hub is read; clone github.com/rgeirhos/texture-vs-shape and name its folder stimuli.",
    ImageNetC: "no copy on the Hub is read; unpack the archives of zenodo.org/records/2235448 and name their folder.",
    ImageNetD: "the Hub's copy, zcs15/ImageNet-D, has no labels that `datasets` can read; download it whole, unpack "
    "ImageNet-D.tar if it holds one, and name the folder ImageNet-D.",
}
WHY_NOT = {
    "imagenet-val": "the Hub's copy, ILSVRC/imagenet-1k, is gated; accept its terms, sort the validation images into "
    "val/<wnid>/*.JPEG and name that folder.",
    "objectnet": "the Hub's copies are gated (timm/objectnet) or lack its tables (clip-benchmark/wds_objectnet); "
    "unpack objectnet-1.0.zip of objectnet.dev and name the folder objectnet-1.0.",
    "imagenet-s": "there is no copy on the Hub; unpack the authors' zip of masks and name the folder ImageNetS919.",
    "imagenet-segmentation": "there is no copy on the Hub; download gtsegs_ijcv.mat and name its folder.",
    "hard-imagenet": "there is no copy on the Hub; unpack the authors' hardImageNet.zip beside ImageNet's val and "
    "name the folder that holds both.",
    "spurious-imagenet": "no copy on the Hub is read; unpack the authors' images_100_classes.zip and name the folder "
    "that holds its folder images.",
    "waterbirds": "copies on the Hub are not its authors'; unpack waterbird_complete95_forest2water2.tar.gz and name "
    "that folder.",
    **{config.name: why for builder, why in WHY_NONE_OF.items() for config in builder.BUILDER_CONFIGS},
}


def load_from_hub(name: str, cache_dir: str | None = None) -> datasets.Dataset:
    """Load a benchmark from the Hub, and log its repository, revision, licence and label space.

    Args:
        name: As in --dataset.
        cache_dir: Where it is kept; the default is that of `datasets`.

    Returns:
        Rows as the benchmark's own builder gives them: `image`, `label` (the same wnids in the same order) and
        `image_id`, here the number of the row.

    Raises:
        UserError: There is no readable copy, the Hub cannot be reached, or the copy's labels are not the benchmark's.
    """
    if name not in COPIES:
        raise UserError(f"--dataset {name} needs --data_dir: {WHY_NOT.get(name, 'no copy on the Hub is known.')}")
    copy = COPIES[name]
    try:
        revision = latest_revision(copy.repository)
        rows = read_copy(copy, revision, cache_dir)
    # No connection, no access, a broken download: errors of the HTTP client, of huggingface_hub and of datasets.
    except Exception as error:
        raise UserError(
            f"--dataset {name} without --data_dir is read from the Hub ({copy.repository}), and that failed: "
            f"{first_line(error)}. Try again, or download the data set and name its folder with --data_dir."
        ) from error
    (wnids,) = [config.wnids for config in ImageNet.BUILDER_CONFIGS if config.name == name]
    logger.info(
        "%s: taken from the Hub, %s at revision %s; licence %s; label space: %d wnids of ImageNet, from its column %s",
        name,
        copy.repository,
        revision,
        copy.licence,
        len(wnids),
        copy.label_column,
    )
    return convert(rows, copy, wnids)


def latest_revision(repository: str) -> str:
    """The latest commit of a data set on the Hub."""
    return HfApi().dataset_info(repository).sha


def read_copy(copy: HubCopy, revision: str, cache_dir: str | None = None) -> datasets.Dataset:
    """The rows as they are stored; the repository may be a local folder of the same files."""
    if copy.label_column != "cls":
        return datasets.load_dataset(copy.repository, split=copy.split, revision=revision, cache_dir=cache_dir)
    # Named one by one: text files lie beside the archives, and `datasets` might take them for the data.
    is_local = os.path.isdir(copy.repository)
    folder = copy.repository if is_local else f"hf://datasets/{copy.repository}@{revision}"
    archives = {copy.split: f"{folder}/{copy.split}/*.tar"}
    return datasets.load_dataset("webdataset", data_files=archives, split=copy.split, cache_dir=cache_dir)


def convert(rows: datasets.Dataset, copy: HubCopy, wnids: tuple[str, ...]) -> datasets.Dataset:
    """Bring a copy's columns and labels to those of the benchmark's builder.

    Raises:
        UserError: The classes of the images are not exactly the benchmark's.
    """
    images = [column for column, feature in rows.features.items() if isinstance(feature, datasets.Image)]
    label_feature = rows.features.get(copy.label_column)
    has_names = isinstance(label_feature, datasets.ClassLabel) or copy.label_column != "label"
    if label_feature is None or not has_names or len(images) != 1:
        wanted = "label (with named classes)" if copy.label_column == "label" else copy.label_column
        raise UserError(
            f"{copy.repository} has the columns {', '.join(rows.column_names)}; expected one of images and {wanted}: "
            "it was changed, so download the data set and name its folder with --data_dir."
        )
    labels = rows[copy.label_column][:]
    if copy.label_column != "wnid":
        names = label_feature.names if copy.label_column == "label" else wnids
        labels = [names[label] if 0 <= label < len(names) else str(label) for label in labels]
    strange, absent = sorted(set(labels) - set(wnids)), sorted(set(wnids) - set(labels))
    if strange or absent:
        found = f"{len(strange)} labels unknown to it (first: {strange[0]})" if strange else "no other labels"
        raise UserError(
            f"{copy.repository} lacks images of {len(absent)} of the benchmark's {len(wnids)} classes and has "
            f"{found}: it was changed, so download the data set and name its folder with --data_dir."
        )
    position = {wnid: label for label, wnid in enumerate(wnids)}
    converted = rows.select_columns(images).rename_columns({images[0]: "image"})
    converted = converted.add_column(
        "label", [position[wnid] for wnid in labels], feature=datasets.ClassLabel(names=list(wnids))
    )
    return converted.add_column("image_id", [f"{copy.split}/{number:06d}" for number in range(len(rows))])
