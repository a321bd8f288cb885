"""ImageNet's validation set, ImageNet-A, -R, -Sketch or -V2 as Parquet.

python dataset_scripts/imagenet.py --dataset imagenet-a --data_dir DIR --output OUT | --push_to_hub REPO
"""

from hf_robustvit.commands.convert import convert_script


if __name__ == "__main__":
    convert_script("imagenet-val", "imagenet-a", "imagenet-r", "imagenet-sketch", "imagenet-v2")
