"""Cutouts, the embedded benchmark, as Parquet, with its masks.

python dataset_scripts/cutouts.py --dataset cutouts-val --output OUT | --push_to_hub REPO
"""

from hf_robustvit.builders import BENCHMARKS
from hf_robustvit.builders.cutouts import Cutouts
from hf_robustvit.commands.convert import convert_script


if __name__ == "__main__":
    convert_script("cutouts", *(name for name, found in BENCHMARKS.items() if found.builder is Cutouts))
