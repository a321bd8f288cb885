"""All measurements in one pass: files are opened once, and the numbers are those of a pass for each measurement."""

import contextlib
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from planted_benchmarks import box_masks, dataset_of, photographs, vit
from tiny_models import tiny_model
from transformers import ViTImageProcessorPil, modeling_utils

from hf_robustvit.data import pairs
from hf_robustvit.errors import UserError
from hf_robustvit.evaluation import accuracy, maps
from hf_robustvit.evaluation.benchmark import MEASUREMENTS, evaluate_benchmark
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.images import BenchmarkImages, JointImages, are_preprocessed_alike
from hf_robustvit.evaluation.label_spaces import match_classes
from hf_robustvit.evaluation.loop import LoopOptions
from hf_robustvit.evaluation.one_pass import Batch, measure
from hf_robustvit.evaluation.run import BenchmarkData, BenchmarkRun


OPTIONS = LoopOptions(batch_size=4)
NAMES = [f"c{index}" for index in range(12)]
CROPPING = ViTImageProcessorPil(
    size={"shortest_edge": 37}, do_center_crop=True, crop_size={"height": 32, "width": 32}, image_mean=[0.4] * 3
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    paths = photographs(folder / "images", count=11)
    masks = box_masks(paths, folder / "masks")
    rows = dataset_of(paths, [number % 12 for number in range(11)], NAMES)
    return rows.add_column("mask", [{"path": str(mask), "bytes": None} for mask in masks], feature=datasets.Image())


def run_of(photos, image_processor=None, options=OPTIONS, labelled=True, **asked) -> BenchmarkRun:
    model, squashing = vit(12)
    space = match_classes("toy", NAMES, None, model.config) if labelled else None
    rows = photos if labelled else photos.remove_columns("label")
    data = BenchmarkData("toy", rows, space, tests_masks=True, ablates=labelled)
    checkpoint = Checkpoint("tiny", None, model.eval(), image_processor or squashing)
    return BenchmarkRun(checkpoint, data, Accelerator(cpu=True), options, **asked)


def taken(run: BenchmarkRun, *modules) -> pd.DataFrame:
    return measure(run, *(module.measurement(run) for module in modules))


@pytest.mark.parametrize("labelled", [True, False])
def test_every_file_is_opened_once_for_all_measurements(photos, tmp_path, monkeypatch, labelled):
    opened, open_picture = Counter(), pairs.open_picture

    def counting(file):
        opened[file] += 1
        return open_picture(file)

    monkeypatch.setattr(pairs, "open_picture", counting)
    run = run_of(photos, labelled=labelled, oracle=True, faithfulness=True)
    applied = [each for each in MEASUREMENTS if each.applies(run)]
    assert len(applied) == (6 if labelled else 2)
    how = run.accelerator, run.options
    evaluate_benchmark(run.checkpoint, run.data, tmp_path, *how, oracle=True, faithfulness=True)
    assert len(opened) == 22
    # Where backgrounds are swapped, once more: to lend its background to another one.
    assert set(opened.values()) == {2 if labelled else 1}


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("image_processor", [None, CROPPING], ids=["the maps' pixels", "other pixels"])
def test_one_pass_gives_the_numbers_of_a_pass_for_each(photos, image_processor, bf16):
    run = run_of(photos, image_processor, LoopOptions(4, bf16=bf16), oracle=True, faithfulness=True)
    applied = [each for each in MEASUREMENTS if each.applies(run)]
    forward_passes = []
    run.checkpoint.model.register_forward_hook(lambda *_: forward_passes.append(1))
    frame, together = taken(run, *applied), len(forward_passes)
    alone = [taken(run, each) for each in applied]
    # Of the same pixels accuracy's logits are the explanation's; and maps and faithfulness share one explanation.
    assert len(forward_passes) - 2 * together == 3 * (2 if image_processor is None else 1)

    columns = ["image_id", *(name for each in alone for name in each if name != "image_id")]
    assert list(frame) == columns
    for module, own in zip(applied, alone, strict=True):
        found = frame[list(own)]
        if module is not accuracy:
            pd.testing.assert_frame_equal(found, own, check_exact=True)
        elif bf16:
            # A processor's lean attention rounds otherwise than SDPA.
            for name in ("class_probability", "top5_probabilities"):
                values = (np.stack(each[name].tolist()) for each in (found, own))
                np.testing.assert_allclose(*values, atol=0.02)
        else:
            pd.testing.assert_frame_equal(found, own, check_exact=image_processor is not None, rtol=1e-5)


def test_rows_are_those_whose_image_and_mask_can_be_read(photos, tmp_path, caplog):
    (tmp_path / "mask.png").write_text("no mask")
    masks = photos.cast_column("mask", datasets.Image(decode=False))["mask"][:]
    masks[6] = {"path": str(tmp_path / "mask.png"), "bytes": None}
    rows = photos.remove_columns("mask").add_column("mask", masks, feature=datasets.Image())
    run = run_of(rows, options=LoopOptions(4, skip_unreadable=True))
    frame = taken(run, accuracy, maps)
    assert [record.getMessage().split("'")[1] for record in caplog.records] == ["006.jpg"], "told once"
    others = run_of(photos.select([row for row in range(11) if row != 6]))
    pd.testing.assert_frame_equal(frame, taken(others, accuracy, maps), rtol=1e-4)
    with pytest.raises(UserError, match=r"image '006.jpg' cannot be read \(its mask is not a picture\)"):
        taken(replace(run, options=OPTIONS), accuracy, maps)


def test_images_are_alike_if_their_pixels_are(photos):
    squashing = vit(12)[1]
    plain = BenchmarkImages(photos, squashing)
    assert are_preprocessed_alike(plain, run_of(photos).images(squashed=True, with_masks=True))
    changes = ({"resample": 3}, {"image_std": [0.2, 0.3, 0.26]}, {"do_rescale": False})
    for other in (CROPPING, *(ViTImageProcessorPil(**squashing.to_dict() | change) for change in changes)):
        assert not are_preprocessed_alike(plain, BenchmarkImages(photos, other))


def test_a_map_of_nan_is_named(photos):
    run = run_of(photos)
    with torch.no_grad():
        run.checkpoint.model.classifier.weight.fill_(torch.nan)
    with pytest.raises(UserError, match="toy: the relevance map of image '000.jpg' holds NaN"):
        taken(run, maps)


def test_no_step_waits_for_the_device(photos, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # has no meta device
    run = run_of(photos, CROPPING, oracle=True)
    # Tensors without values, as they are on a GPU that has not come so far: to look at one is an error.
    run = replace(run, accelerator=SimpleNamespace(device=torch.device("meta")))
    run.checkpoint.model.to("meta").set_attn_implementation("lean")
    for measurement in (each.measurement(run) for each in MEASUREMENTS if each.applies(run)):
        items = torch.utils.data.default_collate([JointImages(measurement.images)[row] for row in range(4)])
        inputs = send_to_device({name: items[name] for name in measurement.images}, "meta")
        with torch.no_grad():
            columns = measurement.step(Batch(run, items["index"].to("meta"), inputs))
        assert columns and all(values.is_meta and len(values) == 4 for values in columns.values())


def test_a_text_tower_that_is_not_there_is_left_alone(photos, monkeypatch):
    model = tiny_model("siglip")
    run = replace(run_of(photos), checkpoint=Checkpoint("toy", None, model, vit(12)[1]))
    warned = []
    monkeypatch.setattr(modeling_utils.logger, "warning", warned.append)
    asked = []

    def step(tensors):
        asked.append((model.config._attn_implementation, model.vision_model.config._attn_implementation))
        return {}

    run.over(BenchmarkImages(photos, vit(12)[1]), step, attention="lean")
    assert asked[0] == ("lean", "lean") and model.vision_model.config._attn_implementation == "eager" and not warned
