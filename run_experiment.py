"""Make the paper's tables and figures, on ImageNet, on the embedded benchmark, or on your own photos.

    python run_experiment.py table1 --models ViT-B DeiT-B --data_dir DIR --images_dir DIR/imagenet/train
    python run_experiment.py all --suite cutouts --quick
    python run_experiment.py flags.yaml

Every run is made once and read from then on; a run that was killed goes on where it was. To spread the runs over
machines, start the same command on each with a shared --output_dir. Writes OUT/<name>/<name>.md with its tables
(Markdown, LaTeX, CSV) and figures (PNG, PDF), and OUT/results.parquet.
"""

import logging
import os
import sys

from hf_robustvit.builders import load_benchmark_rows, load_training_pairs
from hf_robustvit.builders.suite_folder import SuiteFolder
from hf_robustvit.commands.experiment import ExperimentArguments, as_flags, experiment
from hf_robustvit.commands.settings import exit_on_user_error, parse_settings
from hf_robustvit.data import NO_FLAGS, MaskReading
from hf_robustvit.masks import OPTIONS, QualityGate


def main(arguments: ExperimentArguments, reading: MaskReading = NO_FLAGS, *mask_settings: object) -> None:
    """Make the experiments, and say where their pages are."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folders = (arguments.data_dir, arguments.images_dir)
    if os.path.isdir(arguments.suite):
        own = SuiteFolder(arguments.suite, reading)
        load = (lambda _, masks: own.training_pairs(masks), own.benchmark, own.validation_pairs)
    else:
        load = (lambda dataset, masks: load_training_pairs(dataset, *folders, masks),)
        load += (lambda name: load_benchmark_rows(name, arguments.data_dir),)
    print(*experiment(arguments, *load, reading=reading, mask_settings=mask_settings), sep="\n")


if __name__ == "__main__":
    with exit_on_user_error():
        types = (ExperimentArguments, MaskReading, QualityGate, *OPTIONS)
        main(*parse_settings(*types, arguments=as_flags(sys.argv[1:])))
