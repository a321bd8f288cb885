"""Make the paper's tables and figures, on ImageNet, on the embedded benchmark, or on your own photos.

    python run_experiment.py table1 --models ViT-B DeiT-B --data_dir DIR --images_dir DIR/imagenet/train
    python run_experiment.py all --suite cutouts --quick
    python run_experiment.py flags.yaml

Every run is made once and read from then on; a run that was killed goes on where it was. To spread the runs over
machines, start the same command on each with a shared --output_dir. Writes OUT/<name>/<name>.md with its tables
(Markdown, LaTeX, CSV) and figures (PNG, PDF), and OUT/results.parquet.
"""

from hf_robustvit.commands.start import COMMANDS, as_flags, start
from hf_robustvit.flags.experiment import ExperimentArguments


__all__ = ["ExperimentArguments", "main", "as_flags"]

main = COMMANDS["experiment"].run

if __name__ == "__main__":
    start("experiment")
