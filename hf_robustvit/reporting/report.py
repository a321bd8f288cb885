"""The report: one self-contained HTML page that shows what changed to someone who reads no JSON."""

import base64
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from hf_robustvit.evaluation.calibration import NUM_BINS, calibrate, predictions_of
from hf_robustvit.evaluation.comparison import Difference, pair_predictions
from hf_robustvit.evaluation.figures import CHANGE_FIGURES, FIGURES
from hf_robustvit.evaluation.per_class import Confusion, class_changes, lowest_classes
from hf_robustvit.evaluation.pictures import NUM_EXAMPLES, EvaluatedModel, Example
from hf_robustvit.evaluation.results import BenchmarkResult, read_predictions
from hf_robustvit.files import write_text
from hf_robustvit.reporting.comparison import CONFUSION_NOTE, readable
from hf_robustvit.reporting.pictures import heat_overlay
from hf_robustvit.reporting.tables import interval, intervals_note, p_value, statistics_note


THUMBNAIL = 160
WEBP_QUALITY = 80


def write_page(path: Path, template: str, **content: object) -> None:
    """Write a page of the report's looks and behaviour.

    Args:
        path: The HTML file.
        template: Its template.
        content: What the template shows.
    """
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("hf_robustvit.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals["zip"] = zip
    templates.filters |= {
        "interval": interval,
        "p_value": p_value,
        "readable": readable,
        "overlay": heat_overlay,
        "data_uri": data_uri,
        "file_uri": lambda png: f"data:image/png;base64,{base64.b64encode(png.read_bytes()).decode()}",
    }
    script, style = (_template_text(templates, name) for name in ("report.js", "report.css"))
    page = templates.get_template(template).render(
        script=Markup(script),
        style=Markup(style),
        policy=f"default-src 'none'; img-src data:; script-src {_digest(script)}; style-src {_digest(style)}",
        **content,
    )
    write_text(path, page)


def write_html_report(
    path: Path,
    models: Sequence[EvaluatedModel],
    differences: Sequence[Difference],
    examples: Iterable[tuple[str, dict[str, list[Example]]]],
    curves: Mapping[str, Path | None],
    confusions: Mapping[str, Confusion],
) -> None:
    """Write the report, which asks the network for nothing and runs no script but its own.

    Args:
        path: The HTML file.
        models: The model alone, or the baseline and the model.
        differences: Between the two, adjusted; empty for one model.
        examples: Data set and its examples of each kind, see `explain_examples`.
        curves: Data set -> the picture of its curve, as `write_curve` gives it.
        confusions: As `changed_confusions` gives them; none for one model.
    """
    names = [result.dataset for result in models[-1].results if result.top1 is not None]
    frames = {
        name: pair_predictions(name, *(read_predictions(model.folder, name) for model in models)) for name in names
    }
    write_page(
        path,
        "report.html",
        models=models,
        summary=[item for item in differences if item.figure not in CHANGE_FIGURES] or _figures(models[-1].results),
        note=statistics_note(differences) if differences else intervals_note(models[-1].results),
        changes=[item for item in differences if item.figure in CHANGE_FIGURES],
        classes={name: list(class_changes(each[0], each[-1]).itertuples()) for name, each in frames.items()},
        lowest_classes={
            result.dataset: lowest for result in models[-1].results if (lowest := lowest_classes(result.per_class))
        },
        confusion_note=CONFUSION_NOTE,
        confusions=confusions,
        calibration={name: [calibrate(*predictions_of(frame)) for frame in each] for name, each in frames.items()},
        num_bins=NUM_BINS,
        examples=examples,
        curves={name: picture for name, picture in curves.items() if picture},
        num_examples=NUM_EXAMPLES,
        lower_is_better={name for name, figure in FIGURES.items() if figure.lower_is_better},
    )


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
