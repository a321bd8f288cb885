"""The picture of what models look at."""

import itertools

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from tiny_models import tiny_model

from hf_robustvit.evaluation.pictures import ExplainedBatch, ExplainedImages, explain_batch
from hf_robustvit.reporting.pictures import heat_overlay, overlay_grid, wrapped


def test_heat_is_brighter_where_relevance_is_higher():
    relevance = np.array([[0.0, 0.5, 1.0]])
    brightness = heat_overlay(np.full((1, 3, 3), 0.5), relevance).sum(-1)[0]
    assert brightness[0] < brightness[1] < brightness[2] <= 3


def test_the_grid_is_a_picture_even_with_odd_names(tmp_path):
    images = torch.rand(2, 3, 32, 32)
    explained = {"a $very$ odd <title>": explain_batch(tiny_model("vit"), images)}
    path = tmp_path / "new" / "grid.png"
    shown = images.permute(0, 2, 3, 1).numpy()
    overlay_grid(ExplainedImages(shown, ["$x_1$", "<b>"], explained, np.zeros((2, 32, 32))), path)
    with Image.open(path) as picture:
        assert picture.format == "PNG" and picture.height > 300
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 100


def test_captions_stay_in_their_columns(tmp_path, monkeypatch):
    name = "American Staffordshire terrier, Staffordshire terrier, American pit bull terrier, pit bull terrier"
    assert wrapped("snowplow 64%") == "snowplow 64%"
    assert wrapped("Old English sheepdog, bobtail $1") == "Old English sheepdog,\nbobtail \\$1"
    assert wrapped(f"{name} 64%") == "American Staffordshir…\npit bull terrier 64%"

    images = np.random.default_rng(0).random((2, 32, 32, 3))
    explained = ExplainedBatch(np.zeros((2, 32, 32)), [name, "A" * 60], [0.5, 0.25], torch.tensor([[0.5], [0.25]]))
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: (drawn.append(figure), path.touch()))
    shown = ExplainedImages(images, [name, "X" * 90], {"before": explained, "after": explained})
    overlay_grid(shown, tmp_path / "grid.png")
    drawn[0].draw_without_rendering()
    for row in (drawn[0].axes[:3], drawn[0].axes[3:]):
        boxes = [axes.xaxis.label.get_window_extent() for axes in row]
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
