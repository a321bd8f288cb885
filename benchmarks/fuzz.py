"""What readers make of broken files: `python -m benchmarks.fuzz [--seconds 600] [--targets boxes ...] [--seed 0]`.

Each target makes valid files; hypothesis damages one of them (values of other types, missing keys, lies in headers,
wrong encodings, flipped bits, cut ends) and shrinks what fails. A reader may give a value or a UserError of one
sentence, within 10 seconds of processor time and 2 GiB beyond what the process had; everything else is printed once
for each place in the code, with the smallest input found.
"""

import argparse
import json
import logging
import multiprocessing
import os
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


sys.path.append(str(Path(__file__).parents[1] / "tests"))  # where valid files come from

import conftest  # noqa: F401 (offline, one thread, caches of its own)
import datasets
import h5py
import numpy as np
import torch
import yaml
from accelerate import Accelerator, PartialState
from photo_folder import save_model, save_photos
from PIL import Image
from tiny_clip import save_clip
from tiny_models import tiny_model
from tiny_onnx import save_saliency
from tiny_timm import save_timm, timm_tensors

from hf_robustvit.builders import load_benchmark, load_benchmark_rows
from hf_robustvit.builders.image_mask_folder import load_images
from hf_robustvit.builders.objectnet import read_imagenet_indices
from hf_robustvit.builders.suite_folder import keep_judged
from hf_robustvit.commands.app import _base_of
from hf_robustvit.commands.settings import parse_settings
from hf_robustvit.config import RobustViTConfig
from hf_robustvit.data.mask_folder import take_masks
from hf_robustvit.data.masks import fills_border
from hf_robustvit.data.pairs import read_plausible_row, read_row
from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.benchmark import evaluate_benchmark
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.loop import LoopOptions
from hf_robustvit.evaluation.results import read_result
from hf_robustvit.evaluation.run import BenchmarkData
from hf_robustvit.flags.finetune import FinetuneArguments
from hf_robustvit.flags.masks import NO_FLAGS, OPTIONS, MaskReading, QualityGate, SaliencyOptions
from hf_robustvit.flags.text_head import read_class_names
from hf_robustvit.masks.boxes import BoxMasks
from hf_robustvit.masks.contact_sheet import contact_sheet
from hf_robustvit.masks.folder import MaskFolder, summary
from hf_robustvit.masks.prompts import Prompts, read_overrides
from hf_robustvit.masks.quality import MaskScores
from hf_robustvit.masks.saliency import SaliencyMasks
from hf_robustvit.masks.tokencut import ObjectMask
from hf_robustvit.models import load_classifier
from hf_robustvit.record import TrainingRecord, package_versions
from hf_robustvit.reporting.comparison import changed_confusions, write_comparison, write_report
from hf_robustvit.trainer.repetition import refuse_another_run


try:
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as st
    from hypothesis.errors import Flaky
except ImportError:
    raise SystemExit("python -m benchmarks.fuzz needs hypothesis: pip install hypothesis") from None

SECONDS, BYTES, LONGEST_SENTENCE = 10, 2 << 30, 2000
ROUND = 300  # inputs between two looks at the clock
HANGS = 60  # seconds after which a reader that keeps Python from looking at its clock is killed
Draw = Callable[[Any], Any]

ODD = st.sampled_from(
    [None, True, "", " ", "0", "nan", "\0", "\ud800", "../../x", "/", "a\nb", "é" * 300, "{", "%s"]
    + [0, -1, 1, 2, 7, 255, 2**31, 2**63, 10**400, 0.5, -1e308, float("nan"), float("inf")]
    + [[], [None], [[]], [1, 2, 3, 4, 5], {}, {"": None}, {"a": {"b": 1}}, [{}], ["a", "a"]]
)
NUMBERS = st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])


def odd_tree(draw: Draw, tree: Any) -> Any:
    """A JSON or YAML value with one of its parts, drawn by a walk from the root, replaced, dropped or doubled."""
    if isinstance(tree, dict | list) and tree and draw(st.integers(0, 5)):
        tree = tree.copy()
        keys = sorted(tree, key=str) if isinstance(tree, dict) else range(len(tree))
        key = draw(st.sampled_from(keys))
        match draw(st.integers(0, 9)):
            case 0:
                del tree[key]
            case 1 if isinstance(tree, list):
                tree.append(tree[key])
            case 1:
                tree[draw(st.sampled_from(["", "a", "0", key.upper() if isinstance(key, str) else 1]))] = tree.pop(key)
            case 2:
                tree[key] = tree[draw(st.sampled_from(keys))]
            case _:
                tree[key] = odd_tree(draw, tree[key])
        return tree
    return draw(ODD)


def odd_json(draw: Draw, content: bytes) -> bytes:
    try:
        return json.dumps(odd_tree(draw, json.loads(content))).encode()
    except (ValueError, RecursionError):  # no longer JSON
        return odd_text(draw, content)


def odd_yaml(draw: Draw, content: bytes) -> bytes:
    try:
        return yaml.safe_dump(odd_tree(draw, yaml.safe_load(content)), allow_unicode=True).encode(
            errors="surrogatepass"
        )
    except (ValueError, RecursionError, yaml.YAMLError):
        return odd_text(draw, content)


def odd_text(draw: Draw, content: bytes) -> bytes:
    """Text of JSON, YAML, XML or a table in another encoding, cut, nested without end, or with a key twice."""
    text = content.decode(errors="surrogateescape")
    place = draw(st.integers(0, len(text)))
    piece = draw(
        st.sampled_from(["[" * 5_000, "{", '"', "\0", "\r", ",,", "&a [*a]", "!!python/name:os.system", "<b>"])
    )
    laughs = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{later}: &{later} [{','.join(['*' + name] * 9)}]\n"
        for name, later in zip("abcdefgh", "bcdefghi", strict=True)
    )
    changed = draw(
        st.sampled_from(
            [text[:place], text[place:], text[:place] + piece + text[place:], "\ufeff" + text, text + text, laughs]
            + [text.replace("\n", "\r\n"), text.replace('"', "'"), "", "null", "<a>" * 5_000, "0" * 10_000]
        )
    )
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-16", "utf-32"]))
    return changed.encode(encoding, errors="surrogateescape" if encoding == "utf-8" else "replace")


def odd_table(draw: Draw, content: bytes) -> bytes:
    rows = [row.split(",") for row in content.decode(errors="replace").splitlines()] or [[""]]
    row = rows[draw(st.integers(0, len(rows) - 1))]
    column = draw(st.integers(0, max(0, len(row) - 1)))
    match draw(st.integers(0, 4)):
        case 0:
            rows.remove(row)
        case 1:
            rows = [other[:column] + other[column + 1 :] for other in rows]
        case 2:
            row.insert(column, draw(st.sampled_from(['"', "x" * 200_000, "", "\0", "\t"])))
        case _ if row:
            row[column] = str(draw(ODD))
    return "\n".join(map(",".join, rows)).encode(errors="surrogatepass")


def odd_bytes(draw: Draw, content: bytes) -> bytes:
    place = draw(st.integers(0, max(0, len(content) - 1)))
    if draw(st.booleans()):  # where headers are
        place = min(place, draw(st.integers(0, 200)))
    length = draw(st.sampled_from([1, 2, 4, 8, 64]))
    match draw(st.integers(0, 5)):
        case 0:
            return content[:place]
        case 1:
            return content[:place] + content[place + length :]
        case 2:
            return content[:place] + content[place : place + length] * draw(st.integers(2, 50)) + content[place:]
        case 3:
            number = struct.pack(draw(st.sampled_from([">I", "<I"])), draw(NUMBERS))
            return content[:place] + number + content[place + 4 :]
        case _:
            byte = content[place : place + 1] or b"\0"
            return content[:place] + bytes([byte[0] ^ 1 << draw(st.integers(0, 7))]) + content[place + 1 :]


def odd_png(draw: Draw, content: bytes) -> bytes:
    """A PNG whose chunks lie, with checksums that are right."""
    chunks, place = [], 8
    while place + 8 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        chunks.append(content[place + 4 : place + 8 + length])
        place += 12 + length
    if not chunks:
        return odd_bytes(draw, content)
    number = draw(st.integers(0, len(chunks) - 1))
    kind, data = chunks[number][:4], chunks[number][4:]
    match draw(st.integers(0, 5)):
        case 0:
            del chunks[number]
        case 1:
            chunks.insert(draw(st.integers(0, len(chunks))), chunks[number])
        case 2:
            names = [b"tRNS", b"PLTE", b"acTL", b"fcTL", b"fdAT", b"eXIf", b"iCCP", b"zTXt", b"gAMA", b"IHDR"]
            chunks.insert(draw(st.integers(0, len(chunks))), draw(st.sampled_from(names)) + data)
        case 3:
            chunks[number] = kind + zlib.compress(bytes(draw(st.sampled_from([0, 10, 10**7]))))
        case _:
            chunks[number] = kind + odd_bytes(draw, data)
    packed = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    return content[:8] + b"".join(packed)


def odd_safetensors(draw: Draw, content: bytes) -> bytes:
    """Tensors whose header lies, with a length that is right."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = odd_json(draw, content[8:end])
    return struct.pack("<Q", len(header)) + header + content[end:]


def odd_mat(draw: Draw, content: bytes) -> bytes:
    """An HDF5 file with a data set, or what refers to it, of another type or shape."""
    with tempfile.NamedTemporaryFile() as copy:
        copy.write(content)
        copy.flush()
        try:
            with h5py.File(copy.name, "r+") as file:
                names: list[str] = []
                file.visit(names.append)
                name = draw(st.sampled_from(sorted(names) or ["value"]))
                shape = draw(st.sampled_from([(), (0,), (2,), (2, 2), (3, 0, 4), (1, 5, 4), (3, 5, 4), (1, 1, 1, 1)]))
                kind = draw(st.sampled_from(["u1", "i8", "f4", "f8", "c8", "S3", "bool", "reference"]))
                kind = h5py.special_dtype(ref=h5py.Reference) if kind == "reference" else kind
                del file[name]
                match draw(st.integers(0, 5)):
                    case 0:
                        file[name] = h5py.SoftLink("/nowhere")
                    case 1:
                        file.create_group(name)
                    case 2:  # a few bytes that claim to be 30 GB
                        file.create_dataset(name, (3, 100_000, 100_000), "u1", chunks=(1, 100, 100))
                    case 3 if kind in ("f4", "f8"):
                        file.create_dataset(name, data=np.full(shape, np.nan))
                    case _:
                        file.create_dataset(name, shape, kind)
        except (OSError, RuntimeError, ValueError, KeyError):  # no longer HDF5
            return odd_bytes(draw, content)
        return Path(copy.name).read_bytes()


MUTATIONS = {
    ".json": [odd_json, odd_json, odd_json, odd_text],
    ".yaml": [odd_yaml, odd_yaml, odd_text],
    ".csv": [odd_table, odd_table, odd_text],
    ".xml": [odd_text, odd_bytes],
    ".txt": [odd_text, odd_bytes],
    ".png": [odd_png, odd_png, odd_bytes],
    ".safetensors": [odd_safetensors, odd_bytes],
    ".mat": [odd_mat, odd_mat, odd_bytes],
}


class Damaged(NamedTuple):
    """A file with its new content."""

    name: str
    content: bytes

    def __repr__(self) -> str:  # hypothesis writes it often
        return self.name


def damaged(files: dict[str, bytes]) -> st.SearchStrategy[Damaged]:
    """One of some files, with one to three kinds of damage."""

    @st.composite
    def damage(draw: Draw) -> Damaged:
        name = draw(st.sampled_from(sorted(files)))
        content = files[name]
        for _ in range(draw(st.integers(1, 3))):
            content = draw(st.sampled_from(MUTATIONS.get(Path(name).suffix, [odd_bytes])))(draw, content)
        return Damaged(name, content)

    return damage()


class Target(NamedTuple):
    """A reader.

    Attributes:
        save: Writes valid files into a folder.
        read: Reads the folder, in which the file of a name may be damaged.
    """

    save: Callable[[Path], Any]
    read: Callable[[Path, str], Any]


def save_images(folder: Path) -> None:
    """Images and masks in many modes and formats."""
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (10, 12, 3), dtype=np.uint8))
    mask = Image.new("L", (12, 10))
    mask.paste(255, (3, 2, 9, 8))
    exif = Image.Exif()
    exif[274] = 6
    palette = mask.convert("P")
    palette.putpalette([0, 0, 0] * 255 + [128, 0, 0])
    deep = Image.fromarray(np.asarray(mask).astype(np.uint16) * 257)
    frames = {"save_all": True, "append_images": [colours.rotate(90).resize((12, 10))]}
    pictures = {"rgb.png": (colours, {}), "grey.png": (mask, {}), "palette.png": (palette, {}), "deep.png": (deep, {})}
    pictures |= {"alpha.png": (colours.convert("RGBA"), {}), "see.png": (palette, {"transparency": 0})}
    pictures |= {
        "turned.png": (colours, {"exif": exif}),
        "frames.png": (colours, frames),
        "one.png": (mask.convert("1"), {}),
    }
    pictures |= {"turned.jpg": (colours, {"exif": exif}), "ink.jpg": (colours.convert("CMYK"), {})}
    pictures |= {"frames.gif": (colours, frames), "frames.webp": (colours, frames), "a.avif": (colours, {})}
    pictures |= {
        "deep.tif": (deep, {}),
        "float.tif": (mask.convert("F"), {}),
        "a.bmp": (palette, {}),
        "lab.tif": (colours.convert("LAB"), {}),
    }
    for kind in ("image", "mask"):
        (folder / kind).mkdir()
        for name, (picture, options) in pictures.items():
            picture.save(folder / kind / name, **options)


def read_image(folder: Path, name: str) -> None:
    files = {"image": "image/rgb.png", "mask": "mask/grey.png"} | {name.partition("/")[0]: name}
    row = {kind: {"path": str(folder / file), "bytes": None} for kind, file in files.items()} | {"image_id": "a"}
    colours = MaskReading(["128,0,0", "1"], ["255", "224,224,192"], "stored")
    for read, *how in ((read_plausible_row, NO_FLAGS), (read_row, colours), (read_row, None, False)):
        try:
            mask = read(row, *how).mask
        except UserError as error:
            check_sentence(error)
        else:
            fills_border(mask)


def save_boxes(folder: Path) -> None:
    images = [{"id": number, "file_name": f"a/{number}.jpg", "width": 12, "height": 10} for number in range(2)]
    boxes = [{"id": 5, "image_id": number, "bbox": [1, 2, 5, 6], "category_id": 1} for number in range(2)]
    (folder / "coco.json").write_text(json.dumps({"images": images, "annotations": boxes}))
    box = "<object><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>5</xmax><ymax>6</ymax></bndbox></object>"
    size = "<size><width>12</width><height>10</height><depth>3</depth></size>"
    (folder / "0.xml").write_text(f"<annotation><filename>0</filename>{size}{box}{box}</annotation>")


def read_boxes(folder: Path, name: str) -> None:
    boxes = BoxMasks(folder / name)
    boxes.check(["a/0.jpg", "b/1.jpg"])
    boxes([(12, 10)], ["a/0.jpg"])


def save_mat(folder: Path) -> None:
    with h5py.File(folder / "gtsegs_ijcv.mat", "w") as file:
        reference = h5py.special_dtype(ref=h5py.Reference)
        image, mask = np.zeros((3, 5, 4), np.uint8), np.ones((5, 4), np.uint8)
        cell = file.create_dataset("#refs#/cell", (1, 1), reference)
        cell[0, 0] = file.create_dataset("#refs#/mask", data=mask).ref
        file.create_dataset("value/img", (1, 1), reference)[0, 0] = file.create_dataset("#refs#/image", data=image).ref
        file.create_dataset("value/gt", (1, 1), reference)[0, 0] = cell.ref


def save_tables(folder: Path) -> None:
    """Waterbirds, SI-Score, ObjectNet and a judged folder of one's own, which all have tables."""
    image = Image.new("RGB", (4, 4))
    for name in (
        "birds/a.jpg",
        "si/ambulance/1.jpg",
        "objects/images/air_freshener/1.png",
        "objects/images/banana/1.png",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name)
    (folder / "birds/metadata.csv").write_text("img_id,img_filename,y,split,place\n1,a.jpg,1,2,0\n2,b.jpg,0,0,1\n")
    columns = "image_id,area,rotation,x_coord,y_coord,foreground_class,foreground_instance"
    (folder / "si/metadata.csv").write_text(f"{columns}\n1,0.2,30,0.5,0.5,ambulance,7\n2,0.1,0,0.1,0.2,ambulance,8\n")
    mappings = folder / "objects/mappings"
    mappings.mkdir()
    tables = {"folder_to_objectnet_label": {"banana": "Banana", "air_freshener": "Air freshener"}}
    tables |= {
        "objectnet_to_imagenet_1k": {"Banana": "banana; lemon"},
        "pytorch_to_imagenet_2012_id": {"5": 0, "954": 1},
    }
    for name, table in tables.items():
        (mappings / f"{name}.json").write_text(json.dumps(table))
    (mappings / "imagenet_to_label_2012_v2.txt").write_text("banana\nlemon\n")
    (folder / "judged").mkdir()
    (folder / "judged/masks.csv").write_text("image,kept,why\na/1.png,1,\na/2.png,0,bad\n")


def read_table(folder: Path, name: str) -> None:
    kind, cache = name.partition("/")[0], str(folder / "cache")
    if kind == "judged":
        keep_judged(datasets.Dataset.from_dict({"image_id": ["a/1.png", "a/2.png"]}), str(folder / kind))
        return
    if kind == "objects":
        shutil.copy(
            folder / "objects/mappings/imagenet_to_label_2012_v2.txt",
            folder / "objects/mappings/imagenet_to_label_2012_v2",
        )
        read_imagenet_indices(str(folder / kind))
    load_benchmark(
        {"birds": "waterbirds", "si": "si-score-size", "objects": "objectnet"}[kind], str(folder / kind), cache
    )


def read_mat(folder: Path, name: str) -> None:
    for row in load_benchmark("imagenet-segmentation", str(folder), str(folder / "cache")):
        assert row["image"].mode == "RGB" and row["image"].size == row["mask"].size


def save_record(folder: Path) -> None:
    settings = {"learning_rate": 1e-4, "per_device_train_batch_size": 2, "lr_scheduler_type": "linear"}
    settings |= {"gradient_accumulation_steps": 1, "classification_target": "label", "warmup_steps": 0}
    record = TrainingRecord(
        "robustvit", settings, 1, "no", {"masks": "annotated"}, "google/vit", "abc", {"license": "mit"}
    )
    record.dataset, record.mask_source, record.swap_backgrounds = "photos", "annotated", False
    record.training_classes, record.held_out_classes = ["ant"], ["bee"]
    record.training_class_indices, record.held_out_class_indices = [0], [1]
    record.samples_per_class, record.class_seed = 1, 0
    record.training_images, record.validation_images = ["ant/0.png"], ["bee/0.png"]
    record.mask_foreground, record.versions = ["1"], package_versions()
    record.validation = {"before": {"top1": 50.0, "loss": 1.5}, "after": {"top1": 60.0, "loss": 1.0}}
    record.write(folder)


def read_record(folder: Path, name: str) -> None:
    """As an evaluation, the app and a resumed run read it."""
    save_record(folder / "now")
    now = TrainingRecord.read(folder / "now")
    uses = [
        lambda: Checkpoint.of(str(folder), None, tiny_model("vit"), None),
        lambda: _base_of(str(folder)),
        lambda: refuse_another_run(folder, now),
    ]
    for use in uses:
        try:
            use()
        except UserError as error:
            check_sentence(error)


def save_results(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        photos = save_photos(Path(place, "photos"))
        checkpoint = Checkpoint.load(str(save_model(Path(place, "model"), ("ant", "bee", "cow"))))
        data = BenchmarkData.for_model(load_benchmark_rows(str(photos)), checkpoint.model.config)
        for out in (folder, folder / "baseline"):
            evaluate_benchmark(checkpoint, data, out, Accelerator(cpu=True), LoopOptions(4, 0))


def read_results(folder: Path, name: str) -> None:
    """As a second run_eval.py with a baseline reads what the first one left."""
    results = [read_result(place, "photos") for place in (folder, folder / "baseline")]
    differences = write_comparison(folder, results[:1], results[1:])
    write_report(folder, results[:1], differences)
    changed_confusions(folder, results[:1])


def save_settings(folder: Path) -> None:
    settings = {
        "model": "cutouts-vit",
        "dataset": "cutouts",
        "output_dir": "out",
        "masks": "tokencut",
        "method": "rrr",
    }
    settings |= {"learning_rate": 1e-4, "num_classes": 3, "use_cpu": True, "report_to": ["none"], "tau": 0.2}
    settings |= {"mask_foreground": [1, "128,0,0"], "mask_ignore": [255], "max_area": 0.5, "warmup_steps": 0}
    settings |= {"lr_scheduler_kwargs": {"a": 1}, "save_strategy": "epoch", "eval_strategy": "epoch", "bf16": False}
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    (folder / "settings.json").write_text(json.dumps(settings))


def read_settings(folder: Path, name: str) -> None:
    types = (FinetuneArguments, RobustViTConfig, QualityGate, MaskReading, *OPTIONS)
    try:
        parse_settings(*types, arguments=[str(folder / name)])
    except SystemExit as stopped:  # argparse has written its sentence
        assert stopped.code == 2


def save_models(folder: Path) -> None:
    save_model(folder / "vit", ("ant", "bee"))
    save_clip(folder / "clip")
    save_timm(folder / "timm", timm_tensors(width=64, layers=1))


def read_model(folder: Path, name: str) -> None:
    """Load a model and explain a picture, as every command does."""
    kind = name.partition("/")[0]
    names = ["ant", "bee"] if kind == "clip" else None
    model, image_processor = load_classifier(folder / kind, class_names=names)
    pixels = image_processor(Image.new("RGB", (32, 32)), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        assert torch.is_tensor(model(pixels).logits)


class WholeImages:
    """A source of masks, for a folder of them."""

    origin, settings = "--source whole", {"source": "whole"}

    def prepare(self, image: Image.Image) -> tuple[int, int]:
        return image.size

    def __call__(self, sizes: list[tuple[int, int]], image_ids: list[str]) -> list[Any]:
        return [ObjectMask(np.ones(size[::-1], dtype=bool), size, MaskScores(0.3, 1)) for size in sizes]


def save_masks(folder: Path) -> None:
    (folder / "images").mkdir()
    for number in range(2):
        Image.new("RGB", (12, 10)).save(folder / "images" / f"{number}.png")
    read_masks(folder, "")


def read_masks(folder: Path, name: str) -> None:
    PartialState(cpu=True)
    masker, rows = WholeImages(), load_images(folder / "images")
    records = MaskFolder(folder / "out", masker.settings, QualityGate()).fill(rows, masker)
    summary(records)
    contact_sheet(folder / "sheet.png", rows, records, folder / "out")
    take_masks(rows, folder / "out")


def save_network(folder: Path) -> None:
    save_saliency(folder / "fixed.onnx")
    save_saliency(folder / "free.onnx", batch="n", channels_last=True)


def read_network(folder: Path, name: str) -> None:
    masks = SaliencyMasks(SaliencyOptions(str(folder / name)))
    masks([masks.prepare(Image.new("RGB", (12, 10)))], ["a"])


def save_names(folder: Path) -> None:
    prompts = {"ant": "red ant", "bee": ["head of a bee", "wing"], "cow": {"cow": 1, "grass": -0.5}, "*": "animal"}
    (folder / "prompts.yaml").write_text(yaml.safe_dump(prompts))
    (folder / "names.txt").write_text("ant\nbee\n")


def read_names(folder: Path, name: str) -> None:
    if name == "names.txt":
        read_class_names(folder / name)
    else:
        Prompts(["ant/1.png", "bee/2.png", "dog/2.png"], read_overrides(str(folder / name))).another("ant/1.png")


TARGETS = {
    "images": Target(save_images, read_image),
    "boxes": Target(save_boxes, read_boxes),
    "mat": Target(save_mat, read_mat),
    "tables": Target(save_tables, read_table),
    "record": Target(save_record, read_record),
    "results": Target(save_results, read_results),
    "settings": Target(save_settings, read_settings),
    "models": Target(save_models, read_model),
    "masks": Target(save_masks, read_masks),
    "network": Target(save_network, read_network),
    "names": Target(save_names, read_names),
}


class NoSentence(Exception):
    """What is told to the user is no single sentence."""


def check_sentence(error: UserError) -> None:
    sentence = str(error).strip()
    if not sentence or "\n" in sentence or len(sentence) > LONGEST_SENTENCE or sentence.endswith(":"):
        raise NoSentence(sentence[:LONGEST_SENTENCE]) from error


class TooSlow(Exception):
    """A reader took too long."""


def failure(target: Target, folder: Path, name: str) -> tuple[str, str] | None:
    """Where a reader failed, as "type at file:line", and what it said; None if it did what it may."""
    began = time.process_time()
    try:
        try:
            target.read(folder, name)
        except UserError as error:
            check_sentence(error)
        if time.process_time() - began > SECONDS:
            raise TooSlow(f"{time.process_time() - began:.0f} s")
    except Exception as error:
        shown = error.__cause__ if isinstance(error, NoSentence) else error
        frames = [frame for frame in traceback.extract_tb(shown.__traceback__) if "hf_robustvit/" in frame.filename]
        frames = frames or traceback.extract_tb(shown.__traceback__)[-1:]
        inner = frames[-1]
        place = f"{type(error).__name__} at {inner.filename.rpartition('/hf_robustvit/')[2]}:{inner.lineno}"
        return place, f"{type(error).__name__}: {str(error)[:300]}"
    return None


@dataclass
class Finding:
    """A crash: what was said, and the smallest damaged file so far."""

    said: str
    name: str
    content: bytes


@dataclass
class Tally:
    """What came of a target."""

    inputs: int = 0
    seconds: float = 0.0
    findings: dict[str, Finding] = field(default_factory=dict)


def hunt(target: Target, number: int, known: set[str], seconds: float, connection: Any, log: int) -> None:
    """Damage and read in a process of its own, and tell the parent of each input before, of each failure after."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    os.dup2(log, 1)
    os.dup2(log, 2)
    with tempfile.TemporaryDirectory() as place:
        valid, folder = Path(place, "valid"), Path(place, "read")
        valid.mkdir()
        target.save(valid)
        files = {path.relative_to(valid).as_posix(): path.read_bytes() for path in valid.rglob("*") if path.is_file()}
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

        def check(file: Damaged) -> None:
            name, content = file
            connection.send(("input", (name, content)))
            shutil.copytree(valid, folder)
            (folder / name).write_bytes(content)
            began = time.process_time()
            found = failure(target, folder, name)
            shutil.rmtree(folder)
            if found and found[0] not in known:
                connection.send(("failure", (*found, name, content)))
                if time.process_time() - began < 1:
                    raise AssertionError(found[0])
                known.add(found[0])  # to shrink it would take minutes

        plan = settings(
            max_examples=ROUND,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
            report_multiple_bugs=False,
        )
        while time.process_time() < seconds:
            number += 1
            try:
                seed(number)(plan(given(damaged(files))(check)))()
            except (AssertionError, Flaky) as error:
                known.add(str(error))
            connection.send(("round", (number, known, time.process_time())))


def fuzz(target: Target, seconds: float, number: int) -> Tally:
    """Hunt for a number of seconds of processor time; a process that dies or hangs is followed by another one."""
    tally, known, last, log = Tally(), set(), ("", b""), tempfile.TemporaryFile("w+")
    while tally.seconds < seconds:
        ours, theirs = multiprocessing.Pipe(duplex=False)
        how = number, known, seconds - tally.seconds, theirs, log.fileno()
        process = multiprocessing.get_context("fork").Process(target=hunt, args=(target, *how))
        process.start()
        theirs.close()
        ending, used = "hangs", 1.0
        try:
            while ours.poll(HANGS):
                kind, content = ours.recv()
                match kind:
                    case "input":
                        last, tally.inputs = content, tally.inputs + 1
                    case "failure":
                        tally.findings[content[0]] = Finding(*content[1:])
                    case "round":
                        number, known, used = content
            process.kill()
        except EOFError:
            process.join()
            if process.exitcode == 1:
                log.seek(0)
                raise SystemExit(log.read()[-3000:]) from None
            ending = process.exitcode and f"ends with {process.exitcode}"
        if ending:
            tally.findings.setdefault(ending, Finding(ending, *last))
            number += 1000
        process.join()
        tally.seconds += used
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="Processor time in all, shared by the targets.")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS), help="Default: all.")
    parser.add_argument("--seed", type=int, default=0, help="Of the inputs; a round of them adds 1.")
    parser.add_argument("--keep", type=Path, help="Folder for the inputs that failed.")
    arguments = parser.parse_args()
    for name in arguments.targets:
        tally = fuzz(TARGETS[name], arguments.seconds / len(arguments.targets), arguments.seed)
        print(f"| {name} | {tally.seconds:.0f} | {tally.inputs} | {len(tally.findings)} |", flush=True)
        for number, (place, found) in enumerate(tally.findings.items()):
            print(
                f"  {place}, {found.name} of {len(found.content)} bytes: {found.said}\n    {found.content[:300]!r}",
                flush=True,
            )
            if arguments.keep:
                arguments.keep.mkdir(parents=True, exist_ok=True)
                (arguments.keep / f"{name}-{number}-{Path(found.name).name}").write_bytes(found.content)


if __name__ == "__main__":
    main()
