"""The report: one self-contained HTML page that shows what changed to someone who reads no JSON."""

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from PIL import Image

from hf_robustvit.evaluation.accuracy import outcomes
from hf_robustvit.evaluation.calibration import NUM_BINS, Calibration, calibrate
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.comparison import Difference, pair_predictions
from hf_robustvit.evaluation.examples import choose_examples, first_of_each_class
from hf_robustvit.evaluation.figures import CHANGE_FIGURES, FIGURES
from hf_robustvit.evaluation.per_class import class_changes
from hf_robustvit.evaluation.results import BenchmarkResult, read_predictions
from hf_robustvit.evaluation.run import BenchmarkData
from hf_robustvit.files import replacing
from hf_robustvit.reporting.comparison import READABLE
from hf_robustvit.reporting.overlays import example_overlays
from hf_robustvit.reporting.tables import interval, p_value


# Of each kind and data set: enough to see a pattern, few enough for a page of some megabytes.
NUM_EXAMPLES = 6
THUMBNAIL = 160
WEBP_QUALITY = 80


@dataclass(frozen=True)
class ReportedModel:
    """A model in the report.

    Attributes:
        title: "before", "after" or "model".
        checkpoint: The model.
        folder: Where its results are.
        results: One for each data set.
        data: The data sets, in the same order.
    """

    title: str
    checkpoint: Checkpoint
    folder: Path
    results: Sequence[BenchmarkResult]
    data: Sequence[BenchmarkData]

    def class_name(self, index: int) -> str:
        """The name of one of the model's classes."""
        return self.checkpoint.model.config.id2label[index]


@dataclass(frozen=True)
class Example:
    """An image with what each model said of it.

    Attributes:
        image_id: Its name.
        class_name: Its class.
        picture: The image as the last model saw it, a data: URI.
        answers: For each model: title, predicted class, confidence, whether it is right, and the map as a data: URI.
    """

    image_id: str
    class_name: str
    picture: str
    answers: list[tuple[str, str, float, bool, str]]


def write_html_report(path: Path, models: Sequence[ReportedModel], differences: Sequence[Difference]) -> None:
    """Write the report, which asks the network for nothing and runs no script but its own.

    Args:
        path: The HTML file.
        models: The model alone, or the baseline and the model.
        differences: Between the two, adjusted; empty for one model.
    """
    frames = {
        result.dataset: [read_predictions(model.folder, result.dataset) for model in models]
        for result in models[-1].results
    }
    for name, tables in frames.items():
        if len(models) > 1:
            frames[name] = pair_predictions(name, *tables)
        else:
            frames[name] = [tables[0].set_index("image_id")]
    labelled = [position for position, result in enumerate(models[-1].results) if result.top1 is not None]
    names = [models[-1].results[position].dataset for position in labelled]

    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("hf_robustvit.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"interval": interval, "p_value": p_value}
    script, style = (_template_text(templates, name) for name in ("report.js", "report.css"))
    page = templates.get_template("report.html").render(
        script=Markup(script),
        style=Markup(style),
        policy=f"default-src 'none'; img-src data:; script-src {_digest(script)}; style-src {_digest(style)}",
        models=models,
        summary=[item for item in differences if item.figure not in CHANGE_FIGURES] or _figures(models[-1].results),
        changes=[item for item in differences if item.figure in CHANGE_FIGURES],
        classes={name: _readable_changes(frames[name][0], frames[name][-1]) for name in names},
        calibration={name: [_calibration(frame) for frame in frames[name]] for name in names},
        num_bins=NUM_BINS,
        examples={
            models[-1].results[position].dataset: _examples(
                models, position, frames[models[-1].results[position].dataset]
            )
            for position in labelled
        },
        num_examples=NUM_EXAMPLES,
        lower_is_better={name for name, figure in FIGURES.items() if figure.lower_is_better},
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _figures(results: Sequence[BenchmarkResult]) -> list[dict]:
    """The figures of one model as rows: dataset, figure, n, value, interval95."""
    return [
        {
            "dataset": result.dataset,
            "figure": figure,
            "n": result.num_images,
            "value": getattr(result, figure),
            "interval95": getattr(result, f"{figure}_ci95", None),
        }
        for result in results
        for figure in FIGURES
        if getattr(result, figure) is not None
    ]


def _readable_changes(before: pd.DataFrame, after: pd.DataFrame) -> list:
    changes = class_changes(before, after)
    changes["class_name"] = changes["class_name"].map(lambda name: READABLE.get(name, name))
    return list(changes.itertuples())


def _calibration(frame: pd.DataFrame) -> Calibration:
    confidence = np.stack(frame["top5_probabilities"])[:, 0].astype(float)
    return calibrate(np.minimum(confidence, 1), outcomes(frame)["top1"].to_numpy())


def _examples(models: Sequence[ReportedModel], position: int, frames: Sequence[pd.DataFrame]) -> dict:
    """Kind of change -> its examples, on the data set at a position; for one model "wrong" and "right"."""
    after = frames[-1]
    if len(models) > 1:
        chosen = {kind: choose_examples(*frames, kind, NUM_EXAMPLES) for kind in ("corrected", "broken")}
    else:
        right = outcomes(after)["top1"]
        chosen = {
            kind: first_of_each_class(after["class_name"][wanted], NUM_EXAMPLES)
            for kind, wanted in (("wrong", ~right), ("right", right))
        }
    return {kind: _explained(models, position, frames, image_ids) for kind, image_ids in chosen.items()}


def _explained(
    models: Sequence[ReportedModel], position: int, frames: Sequence[pd.DataFrame], image_ids: list[str]
) -> list[Example]:
    if not image_ids:
        return []
    columns = []  # for each model, its answer to each image
    for model, frame in zip(models, frames, strict=True):
        rows = frame.loc[image_ids]
        guesses = [int(indices[0]) for indices in rows["top5_indices"]]
        protocol = model.results[position].protocol
        run = (protocol["preprocessing"], protocol["crop_border"])
        images, overlays = example_overlays(model.data[position], model.checkpoint, image_ids, guesses, *run)
        confidences = [float(probabilities[0]) for probabilities in rows["top5_probabilities"]]
        names = [model.class_name(guess) for guess in guesses]
        right = outcomes(rows)["top1"].tolist()
        pictures = [data_uri(overlay) for overlay in overlays]
        columns.append(zip([model.title] * len(rows), names, confidences, right, pictures, strict=True))
    classes = [READABLE.get(name, name) for name in rows["class_name"]]
    pictures = [data_uri(image) for image in images]
    return [
        Example(image_id, class_name, picture, list(answers))
        for image_id, class_name, picture, *answers in zip(image_ids, classes, pictures, *columns, strict=True)
    ]


def data_uri(image: np.ndarray) -> str:
    """A picture as a WebP inside a data: URI, its longer side `THUMBNAIL` pixels at most.

    Args:
        image: (height, width, 3) in [0, 1].
    """
    picture = Image.fromarray((image * 255).round().astype(np.uint8))
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=WEBP_QUALITY, method=6)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _template_text(templates: jinja2.Environment, name: str) -> str:
    return templates.loader.get_source(templates, name)[0]


def _digest(text: str) -> str:
    """What a content security policy allows exactly this script or style by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
