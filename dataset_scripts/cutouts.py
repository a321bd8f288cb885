"""Cutouts, the embedded benchmark, as Parquet, with its masks: one data set, or all with card and Croissant metadata.

python dataset_scripts/cutouts.py [--dataset cutouts-val] --output OUT | --push_to_hub REPO
"""

from hf_robustvit.builders import BENCHMARKS
from hf_robustvit.builders.cutouts import Cutouts
from hf_robustvit.builders.cutouts_folder import write_cutouts
from hf_robustvit.commands.convert import convert_script


if __name__ == "__main__":
    names = (name for name, found in BENCHMARKS.items() if found.builder is Cutouts)
    convert_script("cutouts", *names, write_all=write_cutouts)
