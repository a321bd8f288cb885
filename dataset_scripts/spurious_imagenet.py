"""Spurious ImageNet as Parquet.

python dataset_scripts/spurious_imagenet.py --data_dir DIR --output OUT | --push_to_hub REPO
"""

from hf_robustvit.commands.convert import convert_script


if __name__ == "__main__":
    convert_script("spurious-imagenet")
