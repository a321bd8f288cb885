"""The 1000 classes of ImageNet (ILSVRC 2012): the one list every label mapping of the project is derived from.

An ImageNet index is the position of a class's wnid (its WordNet id, such as n01440764) in the sorted list of the 1000.
The tables stand in `imagenet_classes.json`, which `dataset_scripts/make_imagenet_classes.py` writes from timm and
tensorflow-datasets (both Apache-2.0); the file names the versions.
"""

import json
from pathlib import Path


_TABLES = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))

#: The 1000 wnids, sorted: position = ImageNet index.
WNIDS: tuple[str, ...] = tuple(_TABLES["classes"])

#: A readable name of each class, in the same order; no name occurs twice.
NAMES: tuple[str, ...] = tuple(_TABLES["classes"].values())

#: WordNet's names of each class, as the Hub's ImageNet models are labelled ("tench, Tinca tinca"); two are "crane".
LEMMAS: tuple[str, ...] = tuple(_TABLES["lemmas"])

#: The ImageNet indices of ImageNet-A's 200 classes, ascending.
IMAGENET_A: tuple[int, ...] = tuple(_TABLES["imagenet_a"])

#: The ImageNet indices of ImageNet-R's 200 classes, ascending.
IMAGENET_R: tuple[int, ...] = tuple(_TABLES["imagenet_r"])

#: SI-Score's 112 class names (as its folders are called) and the ImageNet index of each.
SI_SCORE: dict[str, int] = _TABLES["si_score"]
