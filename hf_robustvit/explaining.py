"""Explaining one image from beginning to end: what the model sees in it, and where it looks."""

import os

import torch
from transformers import PretrainedConfig

from hf_robustvit.data import classes_by_name, read_pair
from hf_robustvit.data.transforms import normalization
from hf_robustvit.errors import unknown_name
from hf_robustvit.models import load_classifier
from hf_robustvit.reporting.overlays import denormalize, explain_batch, overlay_grid
from hf_robustvit.reporting.tables import markdown_table


GUESSES = 5


def explain_image(
    model_name: str, image: str, target: str | None, output: str | os.PathLike, revision: str | None = None
) -> str:
    """Draw an image beside the relevance map of a class, as a PNG file.

    Args:
        model_name: The classifier, as `load_classifier` takes it.
        image: The image file.
        target: Name or index of the class to explain; `None` takes the predicted one.
        output: The PNG file to write.
        revision: Of the model on the Hub.

    Returns:
        A table of the five most probable classes.

    Raises:
        UserError: The model or the image cannot be read, or the model has no such class.
    """
    picture, _ = read_pair({"image": {"path": image, "bytes": None}, "image_id": image})
    model, image_processor = load_classifier(model_name, revision)
    index = None if target is None else torch.tensor([class_index(target, model.config)])
    pixel_values = image_processor(picture, return_tensors="pt")["pixel_values"].float()  # (1, 3, height, width)
    explained = explain_batch(model, pixel_values, index)
    shown = denormalize(pixel_values, *normalization(image_processor))
    overlay_grid(output, shown, [""], {"relevance": explained})
    with torch.no_grad():
        probabilities = model(pixel_values).logits[0].float().softmax(dim=0)  # (classes,)
    top = probabilities.topk(min(GUESSES, len(probabilities)))
    rows = [
        [model.config.id2label[index], f"{probability:.1%}"]
        for probability, index in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    ]
    return markdown_table(("class", "probability"), rows)


def class_index(name: str, config: PretrainedConfig) -> int:
    """The index of a class that is given by its name, one of its names between commas, its wnid, or its index.

    Raises:
        UserError: The model has no such class.
    """
    names = classes_by_name(config)
    synonyms = {part: index for whole, index in config.label2id.items() for part in whole.split(", ")}
    indices = {str(index): index for index in config.id2label}
    known = indices | synonyms | names
    if name not in known:
        raise unknown_name("--target", name, dict.fromkeys([*names, *synonyms]))
    return known[name]
