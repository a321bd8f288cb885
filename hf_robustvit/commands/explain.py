"""Explaining one image from beginning to end: what the model sees in it, and where it looks."""

import os
from pathlib import Path

from transformers import PretrainedConfig

from hf_robustvit.data import PairError, class_named, classes_by_name, read_pair
from hf_robustvit.errors import UserError, unknown_name
from hf_robustvit.evaluation.pictures import explain_picture
from hf_robustvit.flags.text_head import read_class_names
from hf_robustvit.models.loading import load_classifier
from hf_robustvit.reporting.pictures import overlay_grid
from hf_robustvit.reporting.tables import markdown_table


GUESSES = 5


def explain_image(
    model_name: str,
    image: str,
    target: str | None,
    output: str | os.PathLike,
    revision: str | None = None,
    method: str = "gae",
    class_names: str | None = None,
    prompt_template: str | None = None,
) -> str:
    """Draw an image beside the relevance map of a class, as a PNG file.

    Args:
        model_name: The classifier, as `load_classifier` takes it.
        image: The image file.
        target: Name or index of the class to explain; `None` takes the predicted one.
        output: The PNG file to write; its folder is made if it is missing.
        revision: Of the model on the Hub.
        method: The rule that makes the map, see `hf_robustvit.explain`.
        class_names: File of the classes of a CLIP-type model, one on each line.
        prompt_template: As `load_classifier` takes it.

    Returns:
        A table of the five most probable classes.

    Raises:
        UserError: The model or the image cannot be read, the file cannot be written, or the model has no such class.
    """
    _check_output(Path(output))
    try:
        picture, _ = read_pair({"image": {"path": image, "bytes": None}, "image_id": image})
    except PairError as error:
        raise UserError(f"{error}: name a picture that can be opened.") from error
    names = read_class_names(class_names) if class_names else None
    model, image_processor = load_classifier(model_name, revision, class_names=names, prompt_template=prompt_template)
    index = None if target is None else class_index(target, model.config)
    shown = explain_picture(model, image_processor, picture, index, method)
    overlay_grid(shown, output)
    probabilities = shown.explained["relevance"].probabilities[0]  # (classes,)
    top = probabilities.topk(min(GUESSES, len(probabilities)))
    rows = [
        [model.config.id2label[index], f"{probability:.1%}"]
        for probability, index in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    ]
    return markdown_table(("class", "probability"), rows)


def class_index(name: str, config: PretrainedConfig) -> int:
    """The index of a class that is given by its name, one of its names between commas, its wnid, or its index.

    Raises:
        UserError: The model has no such class, or several.
    """
    labels, known = config.id2label.items(), classes_by_name(config)
    readings = (
        known.get(name),
        tuple(index for index, label in labels if name in label.split(", ")),
        tuple(index for index, _ in labels if name == str(index)),
    )
    found = next(filter(None, readings), ())
    if not found and name.removeprefix("-").isdecimal():
        raise UserError(f"--target: there is no {name!r}. The model's classes are 0 to {len(labels) - 1}.")
    if not found:
        names = [*known, *(part for _, label in labels for part in label.split(", "))]
        raise unknown_name("--target", name, dict.fromkeys(names))
    return class_named(name, {name: found}, config, "--target")


def _check_output(path: Path) -> None:
    """Refuse a file that is not a PNG or whose place cannot be written to, before any work is done."""
    if path.suffix.lower() != ".png":
        raise UserError(f"--output: {path} is neither a folder that exists nor the name of a file that ends in .png.")
    is_new = not os.path.exists(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
    except OSError as error:
        raise UserError(f"--output: {path} cannot be written ({error.strerror}): name another place.") from error
    if is_new:
        path.unlink()
