"""Cutouts as a data set of the Hub: all splits in Parquet, a card, the licences, and Croissant metadata."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import DatasetCard, DatasetCardData

from hf_robustvit.builders.cutouts import HUB_ID, Cutouts
from hf_robustvit.builders.listing import prepare
from hf_robustvit.builders.parquet import ORIGIN, write_pictures
from hf_robustvit.cutouts import ASSETS, BENCHMARK_SPLITS, CLASS_NAMES, VERSION
from hf_robustvit.files import CARD, replacing


LICENCES = "LICENCES.md"
# Name on the Hub -> SPDX's name, of the four styles.
SPDX = {"ofl-1.1": "OFL-1.1", "cc-by-4.0": "CC-BY-4.0", "cc-by-sa-4.0": "CC-BY-SA-4.0", "mit": "MIT"}
DESCRIPTION = (
    "Drawn objects of 30 classes, pasted on drawn scenes, with exact masks. Every class has a usual scene, in which "
    "nearly all training images show it: a shortcut. The other splits tell what a classifier makes of it. A "
    "demonstration, not evidence about photographs."
)
COLUMNS = {
    "image": "RGB, 64 x 64 pixels.",
    "mask": "8-bit grey, the object's alpha channel: 255 is the object.",
    "label": "The class, a number from 0.",
    "image_id": "<split>/<number>.",
    "object": "The object, by the code points of its emoji; several images show the same one.",
    "style": "The font that the object was drawn in, which also tells its licence.",
    "scene": "The kind of the background.",
    "area": "Share of the image that the object's bounding square covers before it is turned.",
    "rotation": "The object's angle in degrees, counter-clockwise.",
    "location": "Centre of the object: x and y, as shares of the image.",
}
CROISSANT_TYPES = {"string": "sc:Text", "float32": "sc:Float", "int32": "sc:Integer"}


def write_cutouts(folder: Path) -> str:
    """Write all of Cutouts, ready to be pushed.

    Args:
        folder: Gets data/<split>-*.parquet, README.md, croissant.json, LICENCES.md and origin.json. `val` is called
            `validation`, as `datasets` calls it.

    Returns:
        How many rows and splits there are.
    """
    counts = {}
    for name in ("train", *BENCHMARK_SPLITS):
        rows = prepare(Cutouts(config_name=name), "train" if name == "train" else "test")
        split = "validation" if name == "val" else name
        write_pictures(rows, folder, split)
        counts[split] = len(rows)
    features = rows.features
    _write(folder / ORIGIN, json.dumps({"dataset": "cutouts", "imagenet_indices": None}, indent=1))
    _write(folder / CARD, str(_card(folder, counts, features)))
    _write(folder / "croissant.json", json.dumps(_croissant(folder, counts, features), indent=2) + "\n")
    shutil.copyfile(ASSETS / LICENCES, folder / LICENCES)
    return f"{sum(counts.values())} rows in {len(counts)} splits are written."


def _file(split: str) -> str:
    return f"data/{split}-00000-of-00001.parquet"


def _card(folder: Path, counts: dict[str, int], features: datasets.Features) -> DatasetCard:
    sizes = {split: (folder / _file(split)).stat().st_size for split in counts}
    total = sum(sizes.values())
    splits = [{"name": split, "num_bytes": sizes[split], "num_examples": count} for split, count in counts.items()]
    info = datasets.DatasetInfo(features=features, splits=splits, download_size=total, dataset_size=total)
    data = DatasetCardData(
        pretty_name="Cutouts",
        license=list(SPDX),
        task_categories=["image-classification", "image-segmentation"],
        size_categories=["10K<n<100K"],
        tags=["robustness", "shortcut-learning", "synthetic", "hf_robustvit"],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*"} for split in counts],
            }
        ],
    )
    datasets.info.DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    columns = "\n".join(f"- `{name}`: {COLUMNS[name]}" for name in features)
    rows = "\n".join(f"| {split} | {count:,} | {sizes[split] / 1e6:.1f} |" for split, count in counts.items())
    return DatasetCard(
        f"---\n{data}\n---\n\n# Cutouts\n\n{DESCRIPTION}\n\n"
        "It is the embedded benchmark of [hf_robustvit](https://github.com/hf-robustvit/hf-robustvit), whose page "
        "[Cutouts](https://github.com/hf-robustvit/hf-robustvit/blob/main/docs/cutouts.md) tells what each split "
        f"shows, and what it does not. Version {VERSION}.\n\n"
        f'    datasets.load_dataset("{HUB_ID}", split="a")\n'
        f"    hf-robustvit finetune --model cutouts-vit --dataset {HUB_ID} --output_dir out\n\n"
        f"| split | images | MB |\n|---|---:|---:|\n{rows}\n\n{columns}\n\n"
        f"The objects come from four fonts, each with a licence of its own: [{LICENCES}]({LICENCES}).\n"
    )


def _croissant(folder: Path, counts: dict[str, int], features: datasets.Features) -> dict[str, Any]:
    """Croissant 1.0: what is in which file."""
    files, records = [], []
    for split, count in counts.items():
        path = folder / _file(split)
        files.append(
            {
                "@type": "cr:FileObject",
                "@id": f"{split}.parquet",
                "name": f"{split}.parquet",
                "contentUrl": _file(split),
                "contentSize": f"{path.stat().st_size} B",
                "encodingFormat": "application/x-parquet",
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
        )
        records.append(
            {
                "@type": "cr:RecordSet",
                "@id": split,
                "name": split,
                "description": f"{count} images.",
                "field": [_field(split, column, feature) for column, feature in features.items()],
            }
        )
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": "cutouts",
        "description": DESCRIPTION,
        "version": VERSION,
        "license": [f"https://spdx.org/licenses/{name}.html" for name in SPDX.values()],
        "url": f"https://huggingface.co/datasets/{HUB_ID}",
        "distribution": files,
        "recordSet": records,
    }


def _field(split: str, column: str, feature: Any) -> dict[str, Any]:
    source: dict[str, Any] = {"fileObject": {"@id": f"{split}.parquet"}, "extract": {"column": column}}
    field = {"@type": "cr:Field", "@id": f"{split}/{column}", "name": column, "description": COLUMNS[column]}
    if isinstance(feature, datasets.Image):
        return field | {"dataType": "sc:ImageObject", "source": source | {"transform": {"jsonPath": "bytes"}}}
    if isinstance(feature, datasets.ClassLabel):
        names = f"{COLUMNS[column]} {', '.join(CLASS_NAMES)}."
        return field | {"dataType": "sc:Integer", "description": names, "source": source}
    if isinstance(feature, datasets.List):
        return field | {"dataType": CROISSANT_TYPES[feature.feature.dtype], "repeated": True, "source": source}
    return field | {"dataType": CROISSANT_TYPES[feature.dtype], "source": source}


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


#: The terms of Croissant 1.0, as its specification gives them.
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
