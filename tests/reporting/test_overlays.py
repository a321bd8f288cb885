"""The picture of what models look at."""

import itertools

import datasets
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from tiny_models import tiny_model
from transformers import ViTImageProcessorPil

from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.label_spaces import match_classes
from hf_robustvit.evaluation.run import BenchmarkData
from hf_robustvit.relevance import explain
from hf_robustvit.reporting import overlays
from hf_robustvit.reporting.overlays import (
    ExplainedBatch,
    benchmark_overlays,
    denormalize,
    explain_batch,
    heat_overlay,
    overlay_grid,
    wrapped,
)


def test_explain_batch_tells_the_predicted_class_and_keeps_the_models_mode():
    model = tiny_model("vit").train()
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = explain_batch(model, images)
    assert model.training
    wanted = explain(model.eval(), images)
    assert found.predictions == [model.config.id2label[index] for index in wanted.target.tolist()]
    np.testing.assert_allclose(found.maps, wanted.relevance[:, 0].detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(found.confidences, wanted.logits.softmax(-1).amax(-1).tolist(), rtol=1e-5)


def test_denormalize_undoes_the_normalisation():
    colours = torch.rand(2, 3, 4, 5)
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.5]).view(3, 1, 1)
    np.testing.assert_allclose(denormalize((colours - mean) / std, mean, std), colours.permute(0, 2, 3, 1), atol=1e-6)


def test_heat_is_brighter_where_relevance_is_higher():
    relevance = np.array([[0.0, 0.5, 1.0]])
    brightness = heat_overlay(np.full((1, 3, 3), 0.5), relevance).sum(-1)[0]
    assert brightness[0] < brightness[1] < brightness[2] <= 3


def test_the_grid_is_a_picture_even_with_odd_names(tmp_path):
    images, zero = torch.rand(2, 3, 32, 32), torch.zeros(3, 1, 1)
    explained = {"a $very$ odd <title>": explain_batch(tiny_model("vit"), images)}
    path = tmp_path / "new" / "grid.png"
    overlay_grid(path, denormalize(images, zero, zero + 1), ["$x_1$", "<b>"], explained, np.zeros((2, 32, 32)))
    with Image.open(path) as picture:
        assert picture.format == "PNG" and picture.height > 300
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 100


def test_captions_stay_in_their_columns(tmp_path, monkeypatch):
    name = "American Staffordshire terrier, Staffordshire terrier, American pit bull terrier, pit bull terrier"
    assert wrapped("snowplow 64%") == "snowplow 64%"
    assert wrapped("Old English sheepdog, bobtail $1") == "Old English sheepdog,\nbobtail \\$1"
    assert wrapped(f"{name} 64%") == "American Staffordshir…\npit bull terrier 64%"

    images = np.random.default_rng(0).random((2, 32, 32, 3))
    explained = ExplainedBatch(np.zeros((2, 32, 32)), [name, "A" * 60], [0.5, 0.25])
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    overlay_grid(tmp_path / "grid.png", images, [name, "X" * 90], {"before": explained, "after": explained})
    drawn[0].draw_without_rendering()
    for row in (drawn[0].axes[:3], drawn[0].axes[3:]):
        boxes = [axes.xaxis.label.get_window_extent() for axes in row]
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_a_benchmarks_overlays_show_readable_images_of_all_its_length(tmp_path, monkeypatch):
    model = tiny_model("vit")
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    checkpoint = Checkpoint.of("tiny", None, model, processor)
    files = []
    for number in range(30):
        files.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(np.full((40, 50, 3), 8 * number, dtype=np.uint8)).save(files[-1])
    (tmp_path / "29.png").write_bytes(b"broken")
    columns = {"image": files, "image_id": files, "label": [number % 5 for number in range(30)]}
    rows = datasets.Dataset.from_dict(columns)
    space = match_classes("some", [f"LABEL_{index}" for index in range(5)], None, model.config)
    data = BenchmarkData("some", rows.cast_column("image", datasets.Image()), space)
    drawn = {}
    monkeypatch.setattr(overlays, "overlay_grid", lambda path, *arguments: drawn.update({path: arguments}))
    benchmark_overlays("out.png", data, {"before": checkpoint, "after": checkpoint})

    images, labels, explained, masks = drawn["out.png"]
    shown = [0, 20, 11, 2, 22, 13, 4]  # sorted by class, every fourth; 29, the last of eight, is broken
    np.testing.assert_allclose(images[:, 0, 0, 0], np.array(shown) * 8 / 255, atol=1e-5)
    assert labels == [space.class_names[number % 5] for number in shown]
    assert list(explained) == ["before", "after"] and masks is None
