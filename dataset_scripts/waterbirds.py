"""Waterbirds' test images as Parquet, with their groups.

python dataset_scripts/waterbirds.py --data_dir DIR --output OUT | --push_to_hub REPO
"""

from hf_robustvit.commands.convert import convert_script


if __name__ == "__main__":
    convert_script("waterbirds")
