"""Make the paper's tables and figures, on ImageNet or, in minutes on a laptop, on the embedded benchmark.

    python run_experiment.py table1 --models ViT-B DeiT-B --data_dir DIR --images_dir DIR/imagenet/train
    python run_experiment.py all --suite cutouts --quick
    python run_experiment.py flags.yaml

Every run is made once and read from then on; a run that was killed goes on where it was. To spread the runs over
machines, start the same command on each with a shared --output_dir. Writes OUT/<name>/<name>.md with its tables
(Markdown, LaTeX, CSV) and figures (PNG, PDF), and OUT/results.parquet.
"""

import logging
import sys

from dataset_scripts import load_benchmark_rows, load_training_pairs
from hf_robustvit.commands.experiment import ExperimentArguments, as_flags, experiment
from hf_robustvit.commands.settings import exit_on_user_error, parse_settings


def main(arguments: ExperimentArguments) -> None:
    """Make the experiments, and say where their pages are."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folders = (arguments.data_dir, arguments.images_dir)
    pages = experiment(
        arguments,
        load_pairs=lambda dataset, masks: load_training_pairs(dataset, *folders, masks),
        load_rows=lambda name: load_benchmark_rows(name, arguments.data_dir),
    )
    for page in pages:
        print(page)


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse_settings(ExperimentArguments, arguments=as_flags(sys.argv[1:])))
