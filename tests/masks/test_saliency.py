"""Masks from a saliency network: as a plain loop over onnxruntime makes them, and each mistake's sentence."""

import json
import sys

import numpy as np
import onnxruntime
import pytest
from mask_images import photograph
from onnx import TensorProto, helper, load, save
from PIL import Image, ImageOps
from tiny_onnx import save_model, save_saliency

import run_masks
from hf_robustvit.commands.settings import parse_settings
from hf_robustvit.data import MaskReading
from hf_robustvit.data.regions import intersection_over_union
from hf_robustvit.errors import UserError
from hf_robustvit.masks import OPTIONS, QualityGate, SaliencyMasks, SaliencyOptions


ORIENTATION = 0x0112  # EXIF


@pytest.fixture
def network(tmp_path):
    return save_saliency(tmp_path / "bright.onnx")


def make_masks(photos, out, *flags):
    arguments = ["--images", photos, "--output_dir", out, *flags]
    types = (run_masks.MaskArguments, QualityGate, MaskReading, *OPTIONS)
    run_masks.main(*parse_settings(*types, arguments=list(map(str, arguments))))
    return json.loads((out / "masks.json").read_text())


def plain_mask(session: onnxruntime.InferenceSession, image: Image.Image) -> np.ndarray:
    """As ISNet is run: to the input's size, (pixel - 128) / 256, the first output back to the image's size."""
    _, _, height, width = session.get_inputs()[0].shape
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)
    shares = session.run(None, {"image": ((pixels - 128) / 256).transpose(2, 0, 1)[None]})[0][0, 0]
    return np.asarray(Image.fromarray(shares).resize(image.size, Image.Resampling.BILINEAR)) > 0.5


def test_the_masks_are_those_of_a_plain_loop(network, tmp_path):
    (tmp_path / "photos/square").mkdir(parents=True)
    for number in range(20):
        image, _ = photograph(number, (80 + 8 * number, 200 - 6 * number))
        image = image.crop((0, 0, 9 * image.width // 10, 8 * image.height // 10))  # the object is not in the middle
        tags = Image.Exif()
        tags[ORIENTATION] = 1 + number % 8
        image.save(tmp_path / "photos/square" / f"{number}.jpg", exif=tags, quality=95)
    report = make_masks(tmp_path / "photos", tmp_path / "out", "--saliency_model", network, "--batch_size", 3)
    assert report["settings"] == {
        "source": "saliency",
        "saliency_model": str(network),
        "saliency_mean": [128.0],
        "saliency_std": [256.0],
    }
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    for number in range(20):
        with Image.open(tmp_path / "photos/square" / f"{number}.jpg") as picture:
            expected = plain_mask(session, ImageOps.exif_transpose(picture).convert("RGB"))
        record = report["images"][f"square/{number}.jpg"]
        assert record["accepted"] and record.keys() == {"accepted", "reason", "area", "components", "unsure"}
        assert record["area"] == pytest.approx(0.3, abs=0.05) and record["components"] == 1
        with Image.open(tmp_path / "out/masks/square" / f"{number}.png") as mask:
            np.testing.assert_array_equal(np.asarray(mask) > 0, expected)


@pytest.mark.parametrize(
    "form", [{"batch": "images"}, {"channels_last": True}, {"dtype": TensorProto.FLOAT16}, {"batch": None}]
)
def test_every_form_of_the_input_gives_the_same_masks(network, tmp_path, form):
    images = [photograph(number, (90, 50 + number))[0] for number in range(3)]
    masks = []
    for path in (network, save_saliency(tmp_path / "other.onnx", **form)):
        masker = SaliencyMasks(SaliencyOptions(str(path)))
        masks.append(masker([masker.prepare(image) for image in images], ["a", "b", "c"]))
        assert masker([], []) == []
    for one, other in zip(*masks, strict=True):
        assert one.image.size == one.size == other.image.size
        assert intersection_over_union(one.foreground, other.foreground) > (0.98 if "dtype" in form else 0.9999)


def test_a_batch_goes_through_a_network_that_takes_it_together(tmp_path, monkeypatch):
    masker = SaliencyMasks(SaliencyOptions(str(save_saliency(tmp_path / "free.onnx", batch="images"))))
    batches, run = [], masker.session.run
    monkeypatch.setattr(masker.session, "run", lambda names, feed: batches.extend(feed.values()) or run(names, feed))
    masker([masker.prepare(photograph(number)[0]) for number in range(5)], list("abcde"))
    assert [batch.shape for batch in batches] == [(5, 3, 24, 32)]


def test_the_scores_are_those_of_the_map(tmp_path):
    """One grey half, of which the network is unsure, and two bright bars on black."""
    pixels = np.zeros((24, 32, 3), dtype=np.uint8)
    pixels[:12] = 128
    pixels[14:20, 4:8] = pixels[14:20, 20:28] = 255
    masker = SaliencyMasks(SaliencyOptions(str(save_saliency(tmp_path / "net.onnx")), saliency_std=[16.0]))
    (mask,) = masker([masker.prepare(Image.fromarray(pixels))], ["a"])
    bars = 6 * 4 + 6 * 8
    assert mask.scores.components == 2
    assert mask.scores.area == pytest.approx(bars / (24 * 32), abs=0.03)
    assert mask.scores.unsure == pytest.approx(11 / 24, abs=0.05)  # the grey half less its last row, beside black
    assert "of the pixels, more than 10.0%" in QualityGate().reason(mask.scores)
    assert QualityGate(max_unsure=0.6).reason(mask.scores) is None
    assert (mask.scores.agreement, mask.scores.eigen_gap) == (None, None)


def test_mean_and_std_are_those_of_the_flags(tmp_path):
    """Red alone counts once the other channels are divided by much; its threshold is its mean."""
    network = save_saliency(tmp_path / "net.onnx")
    options = SaliencyOptions(str(network), saliency_mean=[100.0, 0.0, 0.0], saliency_std=[1.0, 1e9, 1e9])
    masker = SaliencyMasks(options)
    images = [Image.new("RGB", (40, 30), (red, 200, 200)) for red in (99, 101)]
    masks = masker([masker.prepare(image) for image in images], ["a", "b"])
    assert [mask.scores.area for mask in masks] == [0, 1]


def test_no_network_is_named(tmp_path):
    (tmp_path / "photos").mkdir()
    photograph()[0].save(tmp_path / "photos/a.png")
    with pytest.raises(UserError, match="Masks from saliency need --saliency_model: name the ONNX file of a network"):
        make_masks(tmp_path / "photos", tmp_path / "out", "--source", "saliency")


@pytest.mark.parametrize(
    "form, sentence",
    [
        ({"batch": 4}, r"tensor\(float\) of shape \[4, 3, 24, 32\]: it must take one batch of RGB images as"),
        (
            {"size": ("height", "width")},
            r"tensor\(float\) of shape \[1, 3, 'height', 'width'\]: .*with fixed height",
        ),
        ({"takes": TensorProto.UINT8}, r"tensor\(uint8\) of shape .* as 32- or 16-bit floats"),
    ],
)
def test_a_network_with_another_input(tmp_path, form, sentence):
    path = save_saliency(tmp_path / "net.onnx", **form)
    with pytest.raises(UserError, match=f"--saliency_model .*net.onnx takes {sentence}"):
        SaliencyMasks(SaliencyOptions(str(path)))


def test_an_output_that_is_no_share(tmp_path):
    masker = SaliencyMasks(SaliencyOptions(str(save_saliency(tmp_path / "net.onnx", last="Identity"))))
    with pytest.raises(UserError, match="net.onnx: its first output goes from .* not from 0 to 1: export the network"):
        masker([masker.prepare(photograph()[0])], ["a"])


@pytest.mark.parametrize(
    "shape, axes, sentence",
    [
        ([1, 3], [1], r"of shape \[1, 3\]: it must take"),
        ([1, 3, 24, 32], [2, 3], r"its first output has shape \(1, 3\), and is no map of each image"),
    ],
)
def test_a_network_for_something_else(tmp_path, shape, axes, sentence):
    node = helper.make_node("ReduceMax", ["x"], ["y"], axes=axes, keepdims=0)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in (("x", shape), ("y", None))]
    save_model(tmp_path / "net.onnx", helper.make_graph([node], "pooled", ends[:1], ends[1:]))
    with pytest.raises(UserError, match=sentence):
        masker = SaliencyMasks(SaliencyOptions(str(tmp_path / "net.onnx")))
        masker([masker.prepare(photograph()[0])], ["a"])


def test_a_network_without_output_or_of_no_size(tmp_path):
    model = load(save_saliency(tmp_path / "net.onnx"))
    del model.graph.output[:]
    save(model, tmp_path / "net.onnx")
    masker = SaliencyMasks(SaliencyOptions(str(tmp_path / "net.onnx")))
    with pytest.raises(UserError, match=r"--saliency_model .*net.onnx fails \(.*\): export it again"):
        masker([masker.prepare(photograph()[0])], ["a"])
    with pytest.raises(UserError, match=r"of shape \[1, 3, 0, 32\]: it must take one batch"):
        SaliencyMasks(SaliencyOptions(str(save_saliency(tmp_path / "net.onnx", size=(0, 32)))))


def test_files_that_are_no_network(tmp_path):
    with pytest.raises(UserError, match="--saliency_model: there is no file .*none.onnx"):
        SaliencyMasks(SaliencyOptions(str(tmp_path / "none.onnx")))
    for content in (b"no network", b""):
        (tmp_path / "text.onnx").write_bytes(content)
        with pytest.raises(
            UserError, match="--saliency_model .*text.onnx is no ONNX file that onnxruntime can run[^\n]*$"
        ):
            SaliencyMasks(SaliencyOptions(str(tmp_path / "text.onnx")))


def test_without_onnxruntime(network, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r'needs onnxruntime: pip install "hf-robustvit\[onnx\]"'):
        SaliencyMasks(SaliencyOptions(str(network)))


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"saliency_mean": [1.0, 2.0]}, r"--saliency_mean takes one number or three \(red, green, blue\), found 2"),
        ({"saliency_std": [1.0, 0.0, 1.0]}, "--saliency_std must be positive, found 0"),
    ],
)
def test_numbers_that_do_not_fit(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        SaliencyOptions("net.onnx", **settings)
