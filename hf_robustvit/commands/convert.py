"""Converting a data set: paired, checked, and written as Parquet that plain `load_dataset` reads."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import datasets

from hf_robustvit.builders import imagenet_indices, load_benchmark, load_training_pairs
from hf_robustvit.builders.image_mask_folder import load_evaluation_folder, load_image_mask_folder
from hf_robustvit.builders.parquet import with_plain_masks, write_parquet
from hf_robustvit.commands.settings import check_output_dir, exit_on_user_error, parse_settings, start_log
from hf_robustvit.data import TRAINING_SETS, MaskReading, check_pairs
from hf_robustvit.errors import UserError, unknown_name
from hf_robustvit.flags.convert import ConversionArguments
from hf_robustvit.hub import push_dataset


OWN_FOLDER = "folder"


def convert_script(*names: str, write_all: Callable[[Path], str] | None = None) -> None:
    """What a script of dataset_scripts/ does: convert one of these data sets, or all, by its command line."""
    start_log()
    with exit_on_user_error():
        print(convert(names, *parse_settings(ConversionArguments, MaskReading), write_all))


def convert(
    names: Sequence[str],
    arguments: ConversionArguments,
    reading: MaskReading,
    write_all: Callable[[Path], str] | None = None,
) -> str:
    """Convert a data set.

    Args:
        names: The data sets to choose from, by their names in --dataset, or `OWN_FOLDER` for a folder of the user's.
        arguments: Which of them, and where it goes.
        reading: How the masks of a folder of the user's are read.
        write_all: Writes all of them into one folder, where no `dataset` is named, and returns what it has written.

    Returns:
        What was written, and how it is used.

    Raises:
        UserError: The data set is not where or as it should be, pairs are broken, or the push failed, in which case
            all files are in `output`, if one is named.
    """
    if not arguments.output and not arguments.push_to_hub:
        raise UserError("Nothing says where the Parquet files go: name a folder with --output, or --push_to_hub.")
    if arguments.output:
        check_output_dir(arguments.output, "output")
    if write_all and arguments.dataset is None:
        if arguments.split:
            raise UserError("--split chooses from one data set, and without --dataset all are written: leave it out.")
        with _written(arguments) as folder:
            return f"{write_all(folder)} They are in {arguments.push_to_hub or arguments.output}."
    name = arguments.dataset or names[0]
    if name not in names:
        raise unknown_name("--dataset", name, names)
    if arguments.dataset is None and len(names) > 1:
        raise UserError(f"This script converts several data sets: name one with --dataset ({', '.join(names)}).")
    if reading.settings() and name != OWN_FOLDER:
        raise UserError(f"--{next(iter(reading.settings()))} is for masks of your own, not for {name}: leave it out.")
    for_training = name in TRAINING_SETS or name == OWN_FOLDER
    split = arguments.split or ("train" if for_training else "test")
    rows = _load(name, split, for_training, arguments)
    rows = check_pairs(
        rows,
        arguments.skip_unreadable,
        reading=reading if name == OWN_FOLDER else None,
        use={"train": "training", "test": "evaluation"}[split],
    )
    if name == OWN_FOLDER and "mask" in rows.column_names:
        rows = with_plain_masks(rows, reading)
    official = None if name == OWN_FOLDER else name
    indices = imagenet_indices(name, arguments.data_dir) if official and split == "test" else None
    with _written(arguments) as folder:
        write_parquet(rows, folder, split, official, indices)
        size = sum(path.stat().st_size for path in folder.glob("data/*.parquet"))
    place = arguments.push_to_hub or arguments.output
    command = "finetune" if split == "train" else "eval"
    return (
        f"{len(rows)} rows ({', '.join(rows.column_names)}) are the split {split} of {place}, {size / 1e6:.1f} MB.\n"
        f"Use them with: hf-robustvit {command} --dataset {place}"
    )


@contextlib.contextmanager
def _written(arguments: ConversionArguments) -> Iterator[Path]:
    """The folder to write to; what is there in the end is pushed, if that was asked for."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.output or temporary)
        yield folder
        if arguments.push_to_hub:
            push_dataset(folder, arguments.push_to_hub, arguments.private)


def _load(name: str, split: str, for_training: bool, arguments: ConversionArguments) -> datasets.Dataset:
    if split == "test":
        for flag in ("images_dir", "ignore_unlabelled"):
            if getattr(arguments, flag):
                raise UserError(f"--{flag} is for --split train: leave it out.")
    if name == OWN_FOLDER:
        if arguments.data_dir is None:
            raise UserError("--data_dir is missing: name the folder with images/<class>/* and masks/<class>/*.png.")
        if split == "test":
            return load_evaluation_folder(arguments.data_dir)  # which may have no masks
        return load_image_mask_folder(arguments.data_dir, images_dir=arguments.images_dir)
    if split == "train":
        if not for_training:
            raise UserError(f"--split train: {name} is for evaluation alone: leave the flag out.")
        folders = arguments.data_dir, arguments.images_dir
        return load_training_pairs(name, *folders, ignore=arguments.ignore_unlabelled)
    return load_benchmark(name, arguments.data_dir)
