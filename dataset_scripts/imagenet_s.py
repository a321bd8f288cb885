"""ImageNet-S as Parquet: train (to fine-tune on) or test, with the annotated masks.

python dataset_scripts/imagenet_s.py --data_dir DIR --images_dir imagenet/train --output OUT | --push_to_hub REPO
"""

from hf_robustvit.commands.convert import convert_script


if __name__ == "__main__":
    convert_script("imagenet-s")
