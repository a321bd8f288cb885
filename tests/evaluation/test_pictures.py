"""What models say of a few images, for those who draw it."""

import datasets
import numpy as np
import torch
from PIL import Image
from tiny_models import tiny_model
from transformers import ViTImageProcessorPil

from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.label_spaces import LabelSpace, match_classes
from hf_robustvit.evaluation.pictures import denormalize, explain_batch, explain_rows, spread
from hf_robustvit.evaluation.run import BenchmarkData
from hf_robustvit.relevance import explain
from hf_robustvit.reporting.pictures import overlay_grid


def test_explain_batch_tells_the_predicted_class_and_keeps_the_models_mode():
    model = tiny_model("vit").train()
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = explain_batch(model, images)
    assert model.training
    wanted = explain(model.eval(), images)
    assert found.predictions == [model.config.id2label[index] for index in wanted.target.tolist()]
    np.testing.assert_allclose(found.maps, wanted.relevance[:, 0].detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(found.confidences, wanted.logits.softmax(-1).amax(-1).tolist(), rtol=1e-5)
    np.testing.assert_allclose(found.probabilities, wanted.logits.detach().softmax(-1), rtol=1e-5)


def test_classes_of_one_name_are_told_apart_in_predictions_and_labels(tmp_path):
    Image.fromarray(np.full((32, 32, 3), 99, dtype=np.uint8)).save(tmp_path / "a.png")
    model = tiny_model("vit")
    model.config.id2label = dict.fromkeys(model.config.id2label, "crane")
    columns = {"image": [str(tmp_path / "a.png")], "image_id": ["a"], "label": [1]}
    rows = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    data = BenchmarkData("some", rows, LabelSpace("some", ("other", "crane"), ((0,), (1,)), model.config.num_labels))
    checkpoint = Checkpoint.of("tiny", None, model, ViTImageProcessorPil(size={"height": 32, "width": 32}))
    shown = explain_rows({"model": (checkpoint, data)})
    guess = shown.explained["model"].probabilities[0].argmax()
    assert shown.labels == ["crane (1)"] and shown.explained["model"].predictions == [f"crane ({guess})"]


def test_a_guess_is_right_by_its_class_whatever_each_model_calls_it(tmp_path):
    Image.fromarray(np.full((32, 32, 3), 99, dtype=np.uint8)).save(tmp_path / "a.png")
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    columns = {"image": [str(tmp_path / "a.png")], "image_id": ["a"], "label": [0]}
    rows, models = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image()), {}
    for title, name in (("before", "meerkat"), ("after", "meerkat, mierkat")):
        model = tiny_model("vit")
        model.config.id2label = {index: f"{name} {index}" for index in range(5)}
        pixel_values = processor(Image.open(tmp_path / "a.png"), return_tensors="pt")["pixel_values"]
        guess = int(explain_batch(model, pixel_values).probabilities.argmax())
        data = BenchmarkData("some", rows, LabelSpace("some", ("meerkat",), ((guess,),), 5))
        models[title] = Checkpoint.of("tiny", None, model, processor), data
    assert [batch.is_right for batch in explain_rows(models).explained.values()] == [[True], [True]]


def test_each_map_is_drawn_on_the_image_as_its_model_saw_it(tmp_path):
    Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(32, 32, 3)).save(
        tmp_path / "a.png"
    )
    columns = {"image": [str(tmp_path / "a.png")], "image_id": ["a"], "label": [0]}
    rows, models = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image()), {}
    data = BenchmarkData("some", rows, LabelSpace("some", ("some",), ((0,),), 5))
    for title, size in (("before", 16), ("after", 32)):
        processor = ViTImageProcessorPil(size={"height": size, "width": size})
        models[title] = Checkpoint.of("tiny", None, tiny_model("vit", image_size=size), processor), data
    shown = explain_rows(models)
    before, after = shown.explained.values()
    assert before.images.shape == (1, 16, 16, 3) and (after.images == shown.images).all()
    overlay_grid(shown, tmp_path / "grid.png")
    assert (tmp_path / "grid.png").exists()


def test_denormalize_undoes_the_normalisation():
    colours = torch.rand(2, 3, 4, 5)
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.5]
    normalised = (colours - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    processor = ViTImageProcessorPil(image_mean=mean, image_std=std)
    np.testing.assert_allclose(denormalize(normalised, processor), colours.permute(0, 2, 3, 1), atol=1e-6)


def test_the_images_that_are_shown_are_readable_ones_of_a_benchmarks_whole_length(tmp_path):
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
    found = explain_rows(dict.fromkeys(("before", "after"), (checkpoint, spread(data))))

    shown = [0, 20, 11, 2, 22, 13, 4]  # sorted by class, every fourth; 29, the last of eight, is broken
    np.testing.assert_allclose(found.images[:, 0, 0, 0], np.array(shown) * 8 / 255, atol=1e-5)
    assert found.labels == [space.class_names[number % 5] for number in shown]
    assert list(found.explained) == ["before", "after"] and found.masks is None


def test_of_broken_files_nothing_is_shown(tmp_path):
    model = tiny_model("vit")
    (tmp_path / "a.png").write_bytes(b"broken")
    rows = datasets.Dataset.from_dict({"image": [str(tmp_path / "a.png")], "image_id": ["a"]})
    data = BenchmarkData("some", rows.cast_column("image", datasets.Image()), None)
    checkpoint = Checkpoint.of("tiny", None, model, ViTImageProcessorPil(size={"height": 32, "width": 32}))
    assert explain_rows({"model": (checkpoint, spread(data))}) is None
