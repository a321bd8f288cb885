"""Detectors and segmenters: the real classes held against transformers' own calls, and planted outputs in pixels."""

import json
import shutil
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mask_images import photograph
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_text_models import save_text_model
from transformers import (
    CLIPSegForImageSegmentation,
    CLIPSegProcessor,
    Sam2Model,
    SamModel,
    SamProcessor,
    ViTImageProcessorPil,
    pipeline,
)

from hf_robustvit.errors import UserError
from hf_robustvit.masks.text_models import Detector, Segmenter


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {kind: str(save_text_model(kind, folder / kind)) for kind in KINDS}


# By the end that the pipeline's candidate labels need.
DETECTORS = {"grounding-dino": ".", "mm-grounding-dino": ".", "owlv2": "", "owlvit": ""}
KINDS = (*DETECTORS, "clipseg", "sam", "sam2")
PHOTOS = [photograph(0, (80, 60))[0], photograph(1, (40, 64))[0]]
BOXES = [np.array([[10.0, 12, 50, 44], [0, 0, 30, 60]]), np.array([[4.0, 8, 36, 60]])]


def detector(models, kind, dtype="float32"):
    return Detector(models[kind], None, "cpu", dtype)


def segmenter(models, kind, dtype="float32"):
    return Segmenter(models[kind], None, "cpu", dtype)


@pytest.mark.parametrize("kind, end", DETECTORS.items())
def test_boxes_are_those_of_the_pipeline(models, kind, end):
    found = detector(models, kind)(PHOTOS, ["cat", "a dog"], 0.001)
    pipe = pipeline("zero-shot-object-detection", model=models[kind])
    for photo, text, ours in zip(PHOTOS, ["cat", "a dog"], found, strict=True):
        theirs = pipe(photo, candidate_labels=[text + end], threshold=0.001)
        assert len(theirs) == len(ours.scores) > 0
        np.testing.assert_allclose(ours.scores, [one["score"] for one in theirs], atol=1e-5)
        corners = np.array([[one["box"][side] for side in ("xmin", "ymin", "xmax", "ymax")] for one in theirs])
        np.testing.assert_allclose(ours.boxes, corners.clip(0, [*photo.size, *photo.size]), atol=1.001)


def test_sam_outlines_as_its_own_calls_do(models):
    model, processor = SamModel.from_pretrained(models["sam"]), SamProcessor.from_pretrained(models["sam"])
    for photo, boxes, ours in zip(PHOTOS, BOXES, segmenter(models, "sam")(PHOTOS, BOXES), strict=True):
        inputs = processor(photo, input_boxes=[boxes.tolist()], return_tensors="pt")
        sizes = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
        with torch.no_grad():
            output = model(inputs["pixel_values"], input_boxes=inputs["input_boxes"].float(), multimask_output=False)
        (theirs,) = processor.post_process_masks(output.pred_masks, *sizes)
        np.testing.assert_array_equal(ours, theirs[:, 0])
        assert ours.shape == (len(boxes), *photo.size[::-1]) and 0 < ours.mean() < 1


def test_sam_2_outlines_as_its_model_does(models):
    model = Sam2Model.from_pretrained(models["sam2"])
    normalised = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    processor = ViTImageProcessorPil(size={"height": 64, "width": 64}, **normalised)
    for photo, boxes, ours in zip(PHOTOS, BOXES, segmenter(models, "sam2")(PHOTOS, BOXES), strict=True):
        scale = np.array([64 / photo.width, 64 / photo.height] * 2)  # its input has 64x64 pixels
        corners = torch.tensor(boxes * scale, dtype=torch.float32)[None]
        pixels = processor(photo, return_tensors="pt").pixel_values
        with torch.no_grad():
            output = model(pixel_values=pixels, input_boxes=corners, multimask_output=False)
        theirs = F.interpolate(output.pred_masks[0], photo.size[::-1], mode="bilinear") > 0
        np.testing.assert_array_equal(ours, theirs[:, 0])
        assert ours.shape == (len(boxes), *photo.size[::-1]) and 0 < ours.mean() < 1


def test_sam_2_as_the_hub_has_it_with_a_video_models_configuration(models, tmp_path):
    shutil.copytree(models["sam2"], tmp_path / "video")
    config = json.loads((tmp_path / "video/config.json").read_text()) | {"model_type": "sam2_video"}
    (tmp_path / "video/config.json").write_text(json.dumps(config))
    weights = load_file(tmp_path / "video/model.safetensors") | {"memory_encoder.norm.weight": torch.ones(3)}
    save_file(weights, tmp_path / "video/model.safetensors", {"format": "pt"})
    ours = Segmenter(str(tmp_path / "video"), None, "cpu", "float32")
    for mask, expected in zip(ours(PHOTOS, BOXES), segmenter(models, "sam2")(PHOTOS, BOXES), strict=True):
        np.testing.assert_array_equal(mask, expected)


def test_clipseg_outlines_as_its_own_calls_do(models):
    model, processor = (
        kind.from_pretrained(models["clipseg"]) for kind in (CLIPSegForImageSegmentation, CLIPSegProcessor)
    )
    found = detector(models, "clipseg")(PHOTOS, ["cat", "a dog"], 0.6)
    for photo, text, ours in zip(PHOTOS, ["cat", "a dog"], found, strict=True):
        with torch.no_grad():
            logits = model(**processor(text=[text], images=[photo], return_tensors="pt")).logits
        shares = F.interpolate(logits.reshape(1, 1, 32, 32), photo.size[::-1], mode="bilinear")[0, 0].sigmoid()
        np.testing.assert_array_equal(ours.mask, shares > 0.6)
        assert ours.scores.tolist() == pytest.approx([float(shares.max())])
        rows, columns = np.nonzero(ours.mask)
        assert ours.boxes.tolist() == [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]
    (nothing,) = detector(models, "clipseg")(PHOTOS[:1], ["cat"], 1.0)
    assert not nothing.mask.any() and nothing.boxes.shape == (0, 4)


def test_what_is_found_does_not_depend_on_the_batch(models):
    for kind in (*DETECTORS, "clipseg"):
        together = detector(models, kind)(PHOTOS, ["cat", "a dog"], 0.001)
        for index, text in enumerate(("cat", "a dog")):
            (alone,) = detector(models, kind)(PHOTOS[index : index + 1], [text], 0.001)
            np.testing.assert_allclose(alone.boxes, together[index].boxes, atol=1e-3)
            np.testing.assert_allclose(alone.scores, together[index].scores, atol=1e-5)


# 80x60 pixels; OWL's boxes are shares of a square that the image is padded to.
@pytest.mark.parametrize(
    "kind, pixels",
    [("grounding-dino", [[20, 30, 40, 60], [0, 0, 80, 60]]), ("owlv2", [[20, 40, 40, 60], [0, 0, 80, 60]])],
)
def test_planted_boxes_become_pixels(models, kind, pixels):
    ours = detector(models, kind)
    boxes = torch.tensor([[[0.5, 0.5, 1.2, 1.2], [0.375, 0.75, 0.25, 0.5], [0.5, 0.5, 0.1, 0.1]]])  # centre and size
    logits = torch.full((1, 3, 4 if kind == "grounding-dino" else 1), -9.0)
    logits[0, :, 0] = torch.tensor([0.5, 0.9, 0.2]).logit()
    ours.model = lambda **inputs: SimpleNamespace(logits=logits, pred_boxes=boxes, input_ids=inputs["input_ids"])
    (found,) = ours(PHOTOS[:1], ["cat"], 0.4)
    np.testing.assert_allclose(found.boxes, pixels, atol=1e-4)
    np.testing.assert_allclose(found.scores, [0.9, 0.5], atol=1e-6)


@pytest.mark.parametrize("kind, side", [("sam", 32), ("sam2", 64)])
def test_planted_masks_become_pixels(models, kind, side):
    ours = segmenter(models, kind)

    def paint(image_embeddings, input_boxes, multimask_output):
        masks = torch.full((1, input_boxes.shape[1], 1, 16, 16), -9.0)
        for mask, box in zip(masks[0, :, 0], (input_boxes[0] * 16 / side).round().int().tolist(), strict=True):
            mask[box[1] : box[3], box[0] : box[2]] = 9
        return SimpleNamespace(pred_masks=masks)

    ours.model = Mock(side_effect=paint, **{"get_image_embeddings.side_effect": lambda pixels: pixels})
    boxes = [[16, 8, 48, 24], [0, 0, 8, 8]]
    (masks,) = ours([Image.new("RGB", (64, 32))], [np.array(boxes)])
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        rows, columns = np.nonzero(mask)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (left, top, right, bottom)
        assert mask.sum() >= (right - left) * (bottom - top) - 4  # bilinear resizing rounds the corners


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_finds_nearly_the_same(models, dtype):
    for kind in ("owlv2", "clipseg"):
        (whole,), (half,) = (detector(models, kind, one)(PHOTOS[:1], ["cat"], 0.3) for one in ("float32", dtype))
        assert half.scores.dtype == np.float32 and half.scores[0] == pytest.approx(whole.scores[0], abs=0.05)
        assert kind == "clipseg" or half.scores.tolist() != whole.scores.tolist()
    for kind in ("sam", "sam2"):
        (whole,), (half,) = (segmenter(models, kind, one)(PHOTOS[:1], BOXES[:1]) for one in ("float32", dtype))
        assert (whole == half).mean() > 0.95


def test_a_model_of_the_wrong_kind(models):
    with pytest.raises(
        UserError, match="--detector: '.*sam' has the model_type 'sam' in its config.json, and this flag"
    ):
        Detector(models["sam"], None, "cpu", "float32")
    with pytest.raises(UserError, match="--segmenter: '.*owlv2' has the model_type 'owlv2'.* takes sam, sam2"):
        Segmenter(models["owlv2"], None, "cpu", "float32")


def test_a_model_that_lacks_weights(models, tmp_path):
    shutil.copytree(models["owlv2"], tmp_path / "part")
    weights = load_file(tmp_path / "part/model.safetensors")
    del weights["class_head.dense0.weight"]
    save_file(weights, tmp_path / "part/model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="--detector: .*part' lacks 1 weights .first: class_head.dense0.weight"):
        Detector(str(tmp_path / "part"), None, "cpu", "float32")
    (tmp_path / "part/model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="--detector: .*part' cannot be read"):
        Detector(str(tmp_path / "part"), None, "cpu", "float32")


def test_a_model_that_is_not_there():
    with pytest.raises(UserError, match="--detector: 'IDEA-Research/grounding-dino-tiny' cannot be loaded: .*OFFLINE"):
        Detector("IDEA-Research/grounding-dino-tiny", None, "cpu", "float32")
    with pytest.raises(
        UserError, match="--segmenter: there is no 'facebook/sam2.1-hiera-smal'. Did you mean facebook"
    ):
        Segmenter("facebook/sam2.1-hiera-smal", None, "cpu", "float32")


@pytest.mark.parametrize("kind", ["grounding-dino", "owlv2", "clipseg"])
def test_names_that_the_tokenizer_cannot_read(models, kind):
    ours = detector(models, kind)
    ours.check("cat")
    with pytest.raises(
        UserError, match="--detector: the tokenizer of .* knows nothing of '\N{DOG FACE}': give that class"
    ):
        ours.check("\N{DOG FACE}")
    with pytest.raises(UserError, match="has 100 tokens, and .* reads at most"):
        ours.check("a" + " b" * 99)
