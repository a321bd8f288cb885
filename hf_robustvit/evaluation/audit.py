"""Does a model decide by the background? Its answers about each object elsewhere, and about each background alone."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageFilter, ImageOps

from hf_robustvit.data.background import fill_object, swap_background
from hf_robustvit.data.composites import CENTRED, GRIDS, object_fault, paste
from hf_robustvit.data.controls import draw_sets_of_others
from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.backgrounds import GreyBackgrounds, SwappedBackgrounds
from hf_robustvit.evaluation.images import BenchmarkImages
from hf_robustvit.evaluation.pictures import Answer, Example, denormalize, explain_batch
from hf_robustvit.evaluation.results import BenchmarkResult, finished_result, read_predictions, write_result
from hf_robustvit.evaluation.run import BenchmarkData, BenchmarkRun


VERSION = "1.1.0"
"""Names the pictures that are made: it must change whenever any of them does."""
NUM_OTHERS = 4
"""Backgrounds of other classes that each object is put on."""
OTHERS = tuple(f"other{number}" for number in range(NUM_OTHERS))
PLACES = {
    "centred": [GRIDS["location"]["0.5,0.5"]],
    "moved": [GRIDS["location"][f"{x},{y}"] for y in (0.25, 0.75) for x in (0.25, 0.75)],
    "shrunk": [GRIDS["size"][0.05]],
}
"""Where objects go on their own background, one place after the other."""


class ComposedImages(BenchmarkImages):
    """Pictures made of each photo and its mask.

    Args:
        compose: From the photo (RGB), its mask (L) and its number to the picture.
        args, kwargs: As for `BenchmarkImages`, always with masks.
    """

    def __init__(self, compose: Callable[[Image.Image, Image.Image, int], Image.Image], *args: Any, **kwargs: Any):
        super().__init__(*args, with_masks=True, **kwargs)
        self.compose = compose

    def _changed(self, pictures: Mapping[str, Image.Image], index: int) -> Mapping[str, Image.Image]:
        return {**pictures, "image": self.compose(pictures["image"], pictures["mask"], index)}

    def fault(self, index: int) -> str | None:
        """Why an object is not moved or shrunk, as `object_fault`."""
        return object_fault(self.read(index)["mask"])


def background_alone(image: Image.Image, mask: Image.Image, _: int) -> Image.Image:
    """See `fill_object`."""
    return fill_object(image, mask)


def on_mirrored_background(image: Image.Image, mask: Image.Image, _: int) -> Image.Image:
    """The object where it is, on its own background mirrored: the same scene, pasted as other ones are."""
    return swap_background(image, mask, ImageOps.mirror(fill_object(image, mask)))


def pasted_at(places: list[dict[str, float]], image: Image.Image, mask: Image.Image, index: int) -> Image.Image:
    """The object elsewhere on its own background, as `CompositeRenderer` makes it."""
    # A little more than the object goes: masks are tight.
    background = fill_object(image, mask.filter(ImageFilter.MaxFilter(5)))
    cutout = image.copy()
    cutout.putalpha(mask)
    place = [places[index % len(places)][name] for name in CENTRED]
    layer = paste(cutout.crop(mask.getbbox()), image.size[::-1], *place)
    background.paste(layer, mask=layer.getchannel("A"))
    return background


def classmates(labels: np.ndarray) -> np.ndarray:
    """Give every photo another one of its class; one that is alone in its class gets itself.

    Args:
        labels: (photos,).

    Returns:
        (photos,) int64, a permutation.
    """
    labels, rng = np.asarray(labels), np.random.default_rng(0)
    others = np.arange(len(labels))
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        others[rows] = np.roll(rows, -1)
    return others


def refuse_one_class(data: BenchmarkData) -> None:
    """Refuse photos that have no backgrounds of other classes.

    Raises:
        UserError: All are of one class.
    """
    if len(data.rows.unique("label")) < 2:
        raise UserError(
            f"--audit needs backgrounds of other classes, and all photos of {data.name} that can be used are of one "
            "class: add photos of another."
        )


def load_answers(run: BenchmarkRun, result: BenchmarkResult, folder: Path) -> pd.DataFrame:
    """`ask` joined with the predictions of a finished evaluation of the same photos, with the oracle.

    Answers that the same weights have finished about the same photos are read back instead.

    Args:
        run: The model and the photos.
        result: Of the evaluation.
        folder: Where it is, and where the answers go.
    """
    predictions = read_predictions(folder, result.dataset)
    planned = replace(
        result, dataset=f"{result.dataset}-audit", protocol=result.protocol | {"pictures": f"{VERSION}/{NUM_OTHERS}"}
    )
    stored = finished_result(folder, planned.dataset)
    if not (stored and stored.same_run(planned) and stored.num_images == planned.num_images):
        run.checkpoint.model.to(run.accelerator.device).eval()
        answers = ask(replace(run, data=run.data.named(predictions["image_id"])))
        if run.accelerator.is_main_process:
            write_result(folder, planned, answers)
        run.accelerator.wait_for_everyone()
    return predictions.merge(read_predictions(folder, planned.dataset), on="image_id", validate="one_to_one")


def ask(run: BenchmarkRun) -> pd.DataFrame:
    """What the model says of each object elsewhere, and of each background alone.

    Args:
        run: The model, and photos with masks and labels that can all be read.

    Returns:
        `image_id`, and for each kind of picture `<kind>_guess`, the predicted class, and `<kind>_probability`, that of
        the photo's class (both missing where a photo has no such picture). Kinds: "grey", the object on grey; "alone",
        the background without it; "own", the object on its own background mirrored; "same", on a background of its
        class; "other0" and so on, on those of `<kind>_image`, of other classes; "centred", "moved" and "shrunk", see
        `PLACES`, of the objects that composites take.

    Raises:
        UserError: All photos are of one class.
    """
    refuse_one_class(run.data)
    labels = np.asarray(run.data.rows["label"][:])
    image_ids = np.asarray(run.data.rows["image_id"][:], dtype=object)
    kinds = {
        "grey": GreyBackgrounds,
        "alone": partial(ComposedImages, background_alone),
        "own": partial(ComposedImages, on_mirrored_background),
    }
    frame = pd.DataFrame({"image_id": image_ids})
    for name, others in zip(OTHERS, draw_sets_of_others(labels, NUM_OTHERS, seed=0), strict=True):
        kinds[name] = partial(SwappedBackgrounds, others=others)
        # Where one class has more than half of the photos, some of its own must serve: they say nothing here.
        frame[f"{name}_image"] = np.where(labels[others] == labels, None, image_ids[others])
    for name, kind in kinds.items():
        frame = frame.merge(_answers(run, kind, name), on="image_id", validate="one_to_one")

    mates = classmates(labels)
    in_company = replace(run, data=run.data.named(image_ids[mates != np.arange(len(labels))]))
    images = run.images(partial(ComposedImages, background_alone))
    taken = replace(run, data=run.data.named([image_ids[row] for row in range(len(images)) if not images.fault(row)]))
    some = [(in_company, "same", partial(SwappedBackgrounds, others=classmates(in_company.data.rows["label"][:])))]
    some += [(taken, name, partial(ComposedImages, partial(pasted_at, places))) for name, places in PLACES.items()]
    for part, name, kind in some:
        found = _answers(part, kind, name) if len(part.data.rows) else None
        columns = [f"{name}_guess", f"{name}_probability"]
        frame = frame.assign(**dict.fromkeys(columns)) if found is None else frame.merge(found, "left", "image_id")
        frame = frame.astype(dict(zip(columns, ("Int64", "float64"), strict=True)))
    return frame


def _answers(run: BenchmarkRun, kind: Callable[..., BenchmarkImages], name: str) -> pd.DataFrame:
    expected = run.data.first_indices.to(run.accelerator.device)

    def step(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        probabilities = run.checkpoint.model(pixel_values=batch["pixel_values"]).logits.float().softmax(dim=1)
        wanted = expected[batch["index"]]
        return {"guess": probabilities.argmax(dim=1), "probability": probabilities.gather(1, wanted[:, None])[:, 0]}

    columns = run.over(run.images(kind), step, name)
    return pd.DataFrame(
        {"image_id": columns["image_id"]} | {f"{name}_{each}": columns[each] for each in ("guess", "probability")}
    )


def explain_photos(run: BenchmarkRun, photos: pd.DataFrame) -> list[Example]:
    """What the model looks at in photos, and in the same objects on the background where its class lost most.

    Args:
        run: The model, and all photos of the audit in their order, which decides the backgrounds.
        photos: `image_id`, `class_name`, `label` and `other`, one of `OTHERS`.
    """
    rows = {image_id: row for row, image_id in enumerate(run.data.rows["image_id"][:])}
    labels, plain = run.data.rows["label"][:], run.images()
    drawn = zip(OTHERS, draw_sets_of_others(labels, NUM_OTHERS, seed=0), strict=True)
    swapped = {name: partial(SwappedBackgrounds, others=others) for name, others in drawn}
    examples = []
    for photo in photos.itertuples():
        row = rows[photo.image_id]
        pictures = {"as it is": plain, "elsewhere": run.images(swapped[photo.other])}
        pixel_values = torch.stack([images[row]["pixel_values"] for images in pictures.values()])
        explained = explain_batch(run.checkpoint.model, pixel_values, method=run.relevance_method)
        is_right = (explained.probabilities.argmax(dim=1) == photo.label).tolist()
        shown = denormalize(pixel_values, plain.image_processor)
        columns = pictures, explained.predictions, explained.confidences, is_right, shown, explained.maps
        answers = [Answer(*each) for each in zip(*columns, strict=True)]
        examples.append(Example(photo.image_id, photo.class_name, answers))
    return examples
