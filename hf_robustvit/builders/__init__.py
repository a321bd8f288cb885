"""One `datasets` builder per data set, and `BENCHMARKS`, the table of their names.

`datasets` refuses loading scripts given by path, so the builders are instantiated here directly, with absolute paths,
sorted listings and a cache key that changes when the source folder changes.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import datasets

from hf_robustvit.builders.composites import Composites, load_composites
from hf_robustvit.builders.cue_conflict import SIXTEEN_CLASSES, CueConflict
from hf_robustvit.builders.cutouts import HUB_ID, Cutouts
from hf_robustvit.builders.hard_imagenet import HardImageNet
from hf_robustvit.builders.hub_copies import COPIES, load_from_hub
from hf_robustvit.builders.image_mask_folder import load_evaluation_folder, load_image_mask_folder
from hf_robustvit.builders.imagenet import ImageNet
from hf_robustvit.builders.imagenet_9 import IN9_INDICES, ImageNet9
from hf_robustvit.builders.imagenet_c import ImageNetC
from hf_robustvit.builders.imagenet_d import IMAGENET_D_INDICES, ImageNetD
from hf_robustvit.builders.imagenet_s import ImageNetS
from hf_robustvit.builders.imagenet_segmentation import ImageNetSegmentation
from hf_robustvit.builders.listing import prepare
from hf_robustvit.builders.objectnet import ObjectNet, read_imagenet_indices
from hf_robustvit.builders.parquet import ParquetData, is_parquet, official_name, origin
from hf_robustvit.builders.si_score import SIScore
from hf_robustvit.builders.spurious_imagenet import SpuriousImageNet
from hf_robustvit.builders.waterbirds import Waterbirds
from hf_robustvit.cutouts import BENCHMARK_SPLITS
from hf_robustvit.data import MADE_MASKS, MASK_CONTROLS, NO_FLAGS, TRAINING_SETS, MaskReading
from hf_robustvit.data.benchmark_rows import BenchmarkRows, Decision
from hf_robustvit.data.mask_folder import take_masks
from hf_robustvit.errors import UserError, unknown_name
from hf_robustvit.imagenet_classes import SI_SCORE, WNIDS


ImageNetIndices = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Benchmark:
    """Where a benchmark comes from.

    Attributes:
        builder: The `datasets` builder.
        config_name: Which of the builder's configurations.
        tests_masks: Whether its masks are for testing maps: the segmentation test, insertion and deletion, and so on.
        imagenet_indices: Class name -> indices among ImageNet's 1000 classes, the first being the paper's; or what
            reads them from the data set's folder. None: the names are matched with the model's own label names.
        decision, whole, ablates: As in `BenchmarkRows`.
        group: The name that asks for it and others together; "all" for the paper's ImageNet benchmarks.
    """

    builder: type[datasets.GeneratorBasedBuilder]
    config_name: str
    imagenet_indices: ImageNetIndices | Callable[[str | None], ImageNetIndices] | None = None
    tests_masks: bool = False
    decision: Decision = "first"
    whole: bool = False
    ablates: bool = False
    group: str | None = None


SI_SCORE_INDICES = {name: (index,) for name, index in SI_SCORE.items()}
WNID_INDICES = {wnid: (index,) for index, wnid in enumerate(WNIDS)}

BENCHMARKS: dict[str, Benchmark] = {
    **{
        f"cutouts-{split}": Benchmark(Cutouts, split, tests_masks=split == "segmentation", group="cutouts")
        for split in BENCHMARK_SPLITS
    },
    **{
        config.name: Benchmark(ImageNet, config.name, WNID_INDICES, group="all") for config in ImageNet.BUILDER_CONFIGS
    },
    "objectnet": Benchmark(ObjectNet, "objectnet", read_imagenet_indices, group="all"),
    "imagenet-segmentation": Benchmark(
        ImageNetSegmentation, "imagenet-segmentation", WNID_INDICES, tests_masks=True, group="all"
    ),
    "imagenet-s": Benchmark(ImageNetS, "validation", WNID_INDICES, group="all"),
    **{
        config.name: Benchmark(SIScore, config.name, SI_SCORE_INDICES, group="all")
        for config in SIScore.BUILDER_CONFIGS
    },
    **{config.name: Benchmark(Composites, config.name, group="composites") for config in Composites.BUILDER_CONFIGS},
    **{
        config.name: Benchmark(ImageNet9, config.name, IN9_INDICES, decision="any", whole=True, group="imagenet-9")
        for config in ImageNet9.BUILDER_CONFIGS
    },
    **{
        config.name: Benchmark(
            CueConflict, config.name, SIXTEEN_CLASSES, decision="mean", whole=True, group="shape-texture"
        )
        for config in CueConflict.BUILDER_CONFIGS
    },
    **{
        config.name: Benchmark(ImageNetC, config.name, WNID_INDICES, whole=True, group="imagenet-c")
        for config in ImageNetC.BUILDER_CONFIGS
    },
    **{
        config.name: Benchmark(ImageNetD, config.name, IMAGENET_D_INDICES, group="imagenet-d")
        for config in ImageNetD.BUILDER_CONFIGS
    },
    "waterbirds": Benchmark(Waterbirds, "waterbirds"),
    "hard-imagenet": Benchmark(HardImageNet, "hard-imagenet", WNID_INDICES, tests_masks=True, ablates=True),
    "spurious-imagenet": Benchmark(SpuriousImageNet, "spurious-imagenet", whole=True),
}


def load_benchmark(
    name: str, data_dir: str | None = None, cache_dir: str | None = None, num_proc: int | None = None
) -> datasets.Dataset:
    """Load the evaluation split of a benchmark.

    Args:
        name: A key of `BENCHMARKS`.
        data_dir: Folder of the data set, or one that holds it by its authors' name. Without one the data set is taken
            from the Hub, if there is a readable copy; Cutouts needs none.
        cache_dir: Where prepared data sets are kept; the default is that of `datasets`.
        num_proc: Processes that prepare it.

    Raises:
        UserError: There is no such benchmark, or its folder does not fit.
    """
    if name not in BENCHMARKS:
        raise unknown_name("--dataset", name, BENCHMARKS)
    benchmark = BENCHMARKS[name]
    if benchmark.builder is Cutouts:
        data_dir = None
    elif benchmark.builder is Composites:
        return load_composites(name, data_dir, cache_dir=cache_dir).rows
    elif data_dir is None:
        return load_from_hub(name, cache_dir)
    builder = benchmark.builder(config_name=benchmark.config_name, data_dir=data_dir, cache_dir=cache_dir)
    return prepare(builder, "test", num_proc)


def imagenet_indices(name: str, data_dir: str | None = None) -> ImageNetIndices | None:
    """The ImageNet indices of a benchmark's classes; arguments as for `load_benchmark`, value as in `Benchmark`."""
    indices = BENCHMARKS[name].imagenet_indices
    return indices(data_dir) if callable(indices) else indices


def benchmark_names(requested: Sequence[str], for_imagenet: bool) -> list[str]:
    """Replace the groups by their members, and check that every name is a benchmark or a folder.

    Args:
        requested: Names, paths of folders, and groups: those of `BENCHMARKS`, and "all" for the paper's ImageNet
            benchmarks or, for any other model, the embedded one.
        for_imagenet: Whether the model has ImageNet's 1000 classes.

    Raises:
        UserError: There is no such benchmark, group or folder.
    """
    groups: dict[str, list[str]] = {}
    for name, found in BENCHMARKS.items():
        if found.group:
            groups.setdefault(found.group, []).append(name)
    if not for_imagenet:
        groups["all"] = groups["cutouts"]
    names = [name for request in requested for name in groups.get(request, [request])]
    for name in names:
        if name not in BENCHMARKS and not os.path.isdir(name) and not is_parquet(name):
            raise unknown_name("--dataset", name, [*BENCHMARKS, *groups])
    return list(dict.fromkeys(names))


def load_benchmark_rows(
    name: str,
    data_dir: str | None = None,
    reading: MaskReading = NO_FLAGS,
    backgrounds: str | None = None,
    streaming: bool = False,
) -> BenchmarkRows:
    """Load a benchmark or a user's folder, with what an evaluation needs to know about it.

    Args:
        name: A key of `BENCHMARKS`, the path of a folder, or a data set in Parquet: a folder or a repository.
        data_dir: As for `load_benchmark`.
        reading: How the masks of a user's data set are read.
        backgrounds: Folder of images that composites put objects on; the other photographs without it.
        streaming: Whether a data set in Parquet is kept in memory and not on disk.

    Raises:
        UserError: As `load_benchmark`, or the folder does not fit.
    """
    if name in BENCHMARKS and BENCHMARKS[name].builder is Composites:
        return load_composites(name, data_dir, backgrounds, reading)
    if name in BENCHMARKS and not streaming:
        rows, indices = load_benchmark(name, data_dir), imagenet_indices(name, data_dir)
        return _official_rows(name, rows, indices)
    if streaming and not is_parquet(name):
        raise UserError(f"--streaming is for a data set in Parquet, and --dataset {name} is none: leave it out.")
    if is_parquet(name):
        source, made_from = ParquetData.find(name, "evaluation"), origin(name)
        rows = source.with_pictures(source.without_pictures()) if streaming else source.rows()
        if made_from.get("dataset") in BENCHMARKS:
            return _official_rows(made_from["dataset"], rows, made_from["imagenet_indices"])
        title = os.path.basename(os.path.realpath(name))
        hub_id = None if os.path.isdir(name) else name
        return BenchmarkRows(title, rows, tests_masks=True, is_own_folder=True, reading=reading, hub_id=hub_id)
    folder = os.path.basename(os.path.realpath(name))
    rows = load_evaluation_folder(name)
    return BenchmarkRows(folder, rows, tests_masks=True, is_own_folder=True, reading=reading)


def _official_rows(name: str, rows: datasets.Dataset, indices: ImageNetIndices | None) -> BenchmarkRows:
    same = {field: getattr(BENCHMARKS[name], field) for field in ("tests_masks", "decision", "whole", "ablates")}
    copy = HUB_ID if BENCHMARKS[name].builder is Cutouts else name in COPIES and COPIES[name].repository
    return BenchmarkRows(name, rows, indices, hub_id=copy or None, **same)


def load_training_pairs(
    name: str,
    data_dir: str | None = None,
    images_dir: str | None = None,
    masks: str = "annotated",
    ignore: bool = False,
    streaming: bool = False,
) -> datasets.Dataset:
    """Load image-mask pairs to fine-tune on.

    Args:
        name: "imagenet-s", "cutouts", the path of a folder laid out as `image_mask_folder` describes, or a data set in
            Parquet: a folder or a repository.
        data_dir: Folder of the data set; Cutouts and a folder that is named itself need none.
        images_dir: Where the images are if not beside the masks: for ImageNet-S, ImageNet's train folder.
        masks: "annotated"; a folder of `masks/<class>/*.png` to take instead of the data set's own, where images that
            run_masks.py rejected are left out; or one of `MADE_MASKS`, which the caller makes; or a control of
            `MASK_CONTROLS`, which the caller makes of the annotated masks. Of a folder, `MADE_MASKS` and "whole" need
            no masks, and its rows have none.
        ignore: Also mark, in `ignore`, the pixels that ImageNet-S's annotators left open.
        streaming: Of a data set in Parquet, read all but the pictures; `ParquetData.with_pictures` gets those.

    Returns:
        Rows of `image`, `mask`, `label`, `image_id` and, where asked for, `ignore`.

    Raises:
        UserError: There is no such data set, or its folder does not fit.
    """
    masks_dir = None if masks in ("annotated", *MADE_MASKS, *MASK_CONTROLS) else os.path.abspath(masks)
    if ignore and (name != "imagenet-s" or masks != "annotated"):
        raise UserError("--ignore_unlabelled is for --dataset imagenet-s with its annotated masks: leave it out.")
    if name == "imagenet-s":
        folders = {"data_dir": data_dir, "images_dir": images_dir, "masks_dir": masks_dir}
        return prepare(ImageNetS(config_name="train-semi", ignore=ignore, **folders), "train")
    if name == "cutouts":
        pairs = prepare(Cutouts(config_name="train"), "train")
        return take_masks(pairs, masks_dir) if masks_dir else pairs
    if streaming and (name in TRAINING_SETS or not is_parquet(name)):
        raise UserError(f"--streaming is for a data set in Parquet, and --dataset {name} is none: leave it out.")
    if is_parquet(name):
        if images_dir:
            raise UserError(f"--images_dir: the images of --dataset {name} are in its Parquet files; leave it out.")
        source = ParquetData.find(name, "training")
        pairs = source.without_pictures() if streaming else source.rows()
        return take_masks(pairs, masks_dir) if masks_dir else pairs
    if os.path.isdir(name):
        if masks in MASK_CONTROLS and masks != "whole" and not os.path.isdir(os.path.join(name, "masks")):
            raise UserError(
                f"--masks {masks} alters the photos' own masks, and {name} has no folder 'masks': put the masks into "
                f"{os.path.join(name, 'masks')}/<class> (hf-robustvit masks makes some) and the photos into "
                "images/<class> beside it."
            )
        return load_image_mask_folder(
            name,
            images_dir=images_dir,
            masks_dir=masks_dir,
            with_masks=masks not in (*MADE_MASKS, "whole"),
            skip_missing_masks=masks_dir is not None and _is_judged(masks_dir),
        )
    raise unknown_name("--dataset", name, [*TRAINING_SETS, "the path of a folder"])


def _is_judged(masks_dir: str) -> bool:
    """Whether run_masks.py made a folder of masks: what is missing there was rejected, and is listed in masks.json."""
    return any(
        os.path.isfile(os.path.join(folder, "masks.json")) for folder in (masks_dir, os.path.dirname(masks_dir))
    )
