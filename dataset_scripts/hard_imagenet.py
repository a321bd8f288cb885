"""Hard ImageNet as Parquet, with its masks.

python dataset_scripts/hard_imagenet.py --data_dir DIR --output OUT | --push_to_hub REPO
"""

from hf_robustvit.commands.convert import convert_script


if __name__ == "__main__":
    convert_script("hard-imagenet")
