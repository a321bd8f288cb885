"""A folder of your own as Parquet: images by class and, where there are any, their masks, read by the flags.

python dataset_scripts/image_mask_folder.py --data_dir DIR --output OUT | --push_to_hub REPO
"""

from hf_robustvit.commands.convert import OWN_FOLDER, convert_script


if __name__ == "__main__":
    convert_script(OWN_FOLDER)
