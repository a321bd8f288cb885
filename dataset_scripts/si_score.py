"""SI-Score's location, rotation or size as Parquet, with their factors.

python dataset_scripts/si_score.py --dataset NAME --data_dir DIR --output OUT | --push_to_hub REPO
"""

from hf_robustvit.builders import BENCHMARKS
from hf_robustvit.builders.si_score import SIScore
from hf_robustvit.commands.convert import convert_script


if __name__ == "__main__":
    convert_script(*(name for name, found in BENCHMARKS.items() if found.builder is SIScore))
