"""Write `hf_robustvit/imagenet_classes.json` from two packages on PyPI.

Run it as `python -m dataset_scripts.make_imagenet_classes`. timm (Apache-2.0) carries the sorted list of the 1000
wnids, WordNet's lemmas and the ImageNet-A and -R subsets in `timm/data/_info`; tensorflow-datasets (Apache-2.0)
carries SI-Score's table of class names. The wheels are downloaded into a temporary folder and read there; nothing is
installed and none of their code is run.
"""

import ast
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path


SOURCES = {"timm": "1.0.31", "tensorflow-datasets": "4.9.10"}
TARGET = Path(__file__).parents[1] / "hf_robustvit" / "imagenet_classes.json"

# Pairs of classes share their first lemma; every other one names its class alone.
CLEARER_NAMES = {
    "n02012849": "crane (bird)",
    "n03126707": "crane (machine)",
    "n03710721": "maillot (tank suit)",
}


def download_wheel(package: str, version: str, folder: Path) -> zipfile.ZipFile:
    """Fetch one wheel, without its dependencies, through pip."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*command, "--dest", str(folder), f"{package}=={version}"], check=True)
    (wheel,) = folder.glob(f"{package.replace('-', '_')}-{version}-*.whl")
    return zipfile.ZipFile(wheel)


def read_timm(wheel: zipfile.ZipFile) -> dict:
    """The 1000 classes with all their lemmas, in the order of their index, and the two subsets of 200 indices."""

    def lines(name: str) -> list[str]:
        return wheel.read(f"timm/data/_info/{name}").decode().splitlines()

    lemmas = dict(line.split("\t") for line in lines("imagenet_synset_to_lemma.txt"))
    wnids = lines("imagenet_synsets.txt")
    return {
        "classes": {wnid: CLEARER_NAMES.get(wnid, lemmas[wnid].split(",")[0]) for wnid in wnids},
        "lemmas": [lemmas[wnid] for wnid in wnids],
        "imagenet_a": [int(line) for line in lines("imagenet_a_indices.txt")],
        "imagenet_r": [int(line) for line in lines("imagenet_r_indices.txt")],
    }


def read_si_score(wheel: zipfile.ZipFile) -> dict[str, int]:
    """SI-Score's class names and the one ImageNet index of each, read from the source text of a dict literal."""
    source = ast.parse(wheel.read("tensorflow_datasets/datasets/siscore/labels.py"))
    tables = {node.targets[0].id: node.value for node in source.body if isinstance(node, ast.Assign)}
    return ast.literal_eval(tables["IMAGENET_LABELS"])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        timm, tensorflow_datasets = (download_wheel(*source, Path(folder)) for source in SOURCES.items())
        with timm, tensorflow_datasets:
            table = {"sources": SOURCES, **read_timm(timm), "si_score": read_si_score(tensorflow_datasets)}
    TARGET.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
