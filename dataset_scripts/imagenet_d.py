"""A part of ImageNet-D as Parquet.

python dataset_scripts/imagenet_d.py --dataset NAME --data_dir DIR --output OUT | --push_to_hub REPO
"""

from hf_robustvit.builders import BENCHMARKS
from hf_robustvit.builders.imagenet_d import ImageNetD
from hf_robustvit.commands.convert import convert_script


if __name__ == "__main__":
    convert_script(*(name for name, found in BENCHMARKS.items() if found.builder is ImageNetD))
