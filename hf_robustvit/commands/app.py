"""The demo: what the original and the fine-tuned model see in the same picture, side by side in a browser."""

import html
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from transformers import PreTrainedModel

from hf_robustvit.commands.settings import start_log
from hf_robustvit.cutouts import CLASS_NAMES, render
from hf_robustvit.data.labels import distinct_class_names
from hf_robustvit.data.pairs import read_pair
from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.examples import evenly_spaced
from hf_robustvit.evaluation.pictures import explain_picture
from hf_robustvit.flags.app import DemoArguments
from hf_robustvit.imagenet_classes import NAMES, WNIDS
from hf_robustvit.models.families import family_of
from hf_robustvit.models.files import find_model_file
from hf_robustvit.models.loading import classifier_config, load_classifier
from hf_robustvit.models.zero_shot import ZeroShotHead
from hf_robustvit.record import TRAINING_RECORD, TrainingRecord
from hf_robustvit.reporting.pictures import heat_overlay


if TYPE_CHECKING:
    import gradio


# What `make demo` fine-tunes, and where the result is.
DEMO_BASELINE = "cutouts-vit"
DEMO_MODEL = Path("outputs/demo/model")
PREDICTED = "the predicted class"
NUM_EXAMPLES = 12
#: What the page calls the rules of `explain`.
RULES = [("GAE", "gae"), ("LibraGrad", "libra"), ("attention rollout", "rollout"), ("occlusion (slow)", "occlusion")]

# Formats that Pillow decodes itself: some of the others start programs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 50_000_000
MAX_ASPECT_RATIO = 10
MAX_FILE_SIZE = "20mb"
# A longer picture is made smaller when it arrives: no model sees more, and a visitor's picture is kept for a while.
LONGEST_SIDE = 1024
KEPT_SECONDS = 3600
# Small pictures are enlarged to about this many pixels, so that the browser does not blur them.
SHOWN_SIDE = 448

# Gradio's gallery has columns of at least 100 pixels and a height of its own.
STYLE = """
#examples .grid-container { grid-template-columns: repeat(auto-fill, minmax(80px, 1fr)); grid-auto-rows: auto }
#examples .grid-container { padding: 0 }
#examples .fixed-height { min-height: 0; max-height: none }
"""
# Gradio shows the name of a file that is too heavy as (harmless) HTML: it must not fetch a picture from elsewhere.
HEAD = """<meta http-equiv="Content-Security-Policy" content="img-src 'self' data: blob:">"""
TITLE = "What does it look at?"
INTRODUCTION = (
    "What a model predicts for a picture, and where in the picture it finds the evidence for a class: the brighter, "
    "the more."
)
DRAWN = (
    " The examples are drawn objects, none of them where it usually stands: a demonstration, not evidence about "
    "photographs."
)
ALONE = " Only the original is shown so far: `make demo` makes a fine-tuned model, and --model names yours."


@dataclass(frozen=True)
class Classifier:
    """A model that is shown.

    Attributes:
        title: What the page calls it.
        model: The classifier.
        image_processor: Its preprocessing.
        class_names: A name for each class index, no two alike.
    """

    title: str
    model: PreTrainedModel
    image_processor: Any
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What one model says about one picture.

    Attributes:
        confidences: Class name -> probability, of all classes.
        explained: Name of the class that the map is for.
        overlay: (height, width, 3) uint8, the model's input under its relevance map.
    """

    confidences: dict[str, float]
    explained: str
    overlay: np.ndarray


def load_classifiers(arguments: DemoArguments) -> list[Classifier]:
    """Load the models to compare, the original first; one alone where there is nothing to compare it with.

    Raises:
        UserError: A model cannot be loaded, or there is a baseline and no model.
    """
    if arguments.model is None and not DEMO_MODEL.is_dir():
        if arguments.baseline is not None:
            raise UserError(f"--baseline: {arguments.baseline!r} is to be compared with a model; give one by --model.")
        return [_load("Original", DEMO_BASELINE)]
    model = arguments.model or str(DEMO_MODEL)
    baseline, revision = (arguments.baseline, None) if arguments.baseline else _base_of(model)
    if baseline is None:
        return [_load("Model", model, **arguments.text_head())]
    finetuned, head = _load("Fine-tuned", model, **arguments.text_head()), {}
    if isinstance(finetuned.model, ZeroShotHead) and family_of(classifier_config(baseline, revision)).is_zero_shot:
        config = finetuned.model.config
        head = {"class_names": list(config.id2label.values()), "prompt_template": config.prompt_template}
    return [_load("Original", baseline, revision, **head), finetuned]


def _base_of(name: str) -> tuple[str | None, str | None]:
    """The model that a fine-tuned one says it was made from, and its revision."""
    path = find_model_file(name, TRAINING_RECORD)
    if path is None:
        return None, None
    record = TrainingRecord.read(path)
    if record.base_model is None:
        raise UserError(f"{path} does not say which model it was fine-tuned from: name that one with --baseline.")
    return record.base_model, record.base_revision


def _load(title: str, name: str, revision: str | None = None, **head: Any) -> Classifier:
    model, image_processor = load_classifier(name, revision, **head)
    return Classifier(title, model, image_processor, distinct_class_names(model.config))


def common_class_names(classifiers: list[Classifier]) -> list[str]:
    """The classes that every model knows, in the order of the first."""
    return [name for name in classifiers[0].class_names if all(name in other.class_names for other in classifiers)]


def example(index: int) -> tuple[Image.Image, str]:
    """A picture to try, and what it shows: the object never stands in its usual scene."""
    rendered = render("dev-a", index)
    return rendered.image, f"{CLASS_NAMES[rendered.label]}, scene: {rendered.scene}"


def drawn_examples(classifiers: list[Classifier]) -> list[tuple[Image.Image, str]]:
    """The pictures of `example`; none where the models do not know most of their classes."""
    shared = set(CLASS_NAMES).intersection(common_class_names(classifiers))
    return [example(index) for index in range(NUM_EXAMPLES)] if 2 * len(shared) > len(CLASS_NAMES) else []


def folder_examples(folder: str | Path) -> list[tuple[Image.Image, str]]:
    """A few pictures of a folder, evenly spaced, and what they show: the class, or the file's name without classes.

    Args:
        folder: Holds images/<class>/*, <class>/*, or images without classes.

    Raises:
        UserError: It has no images, or one of the chosen ones cannot be read.
    """
    inner = Path(folder, "images")
    root = inner if inner.is_dir() else Path(folder)
    of_suffix = Image.registered_extensions()
    files = [
        file
        for file in sorted([*root.glob("[!.]*"), *root.glob("[!.]*/[!.]*")])
        if of_suffix.get(file.suffix.lower()) in FORMATS and file.is_file()
    ]
    if not files:
        raise UserError(f"--examples: {folder} has no images: name a folder of images, by class or without classes.")
    names, examples = dict(zip(WNIDS, NAMES, strict=True)), []
    for index in evenly_spaced(len(files), NUM_EXAMPLES):
        file = files[index]
        try:
            picture = read_upload(file)
        except UserError as error:
            raise UserError(f"--examples: {file}: {error}") from error
        caption = file.stem if file.parent == root else file.parent.name
        examples.append((picture, names.get(caption, caption)))
    return examples


def read_upload(path: str | Path) -> Image.Image:
    """Open a stranger's file as it is displayed: RGB, at most `LONGEST_SIDE` pixels a side.

    The size that the file claims is judged before a pixel is decoded.

    Raises:
        UserError: It is not an image, broken, too large or too narrow. The message holds no name of the visitor's.
    """
    try:
        with Image.open(path, formats=FORMATS) as file:
            _check_size(file.width, file.height)
            picture, _ = read_pair({"image": file, "image_id": "The picture"})
    except Image.DecompressionBombError as error:
        raise UserError(f"The picture is far too large: make it smaller, {MAX_PIXELS:,} pixels at most.") from error
    except UserError:
        raise
    # Pillow's readers raise almost anything on broken headers: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        raise UserError(
            f"The file is not an image that can be read: choose a {', '.join(FORMATS[:-1])} or {FORMATS[-1]}."
        ) from error
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return picture


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UserError(f"The picture has {width} x {height} pixels: make it smaller, {MAX_PIXELS:,} pixels at most.")
    # A processor that resizes the shorter side would make a line of pixels into a huge picture.
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise UserError(
            f"The picture is too narrow, {width} x {height} pixels: crop it, the longer side may be at most "
            f"{MAX_ASPECT_RATIO} times the shorter."
        )


def ask(classifier: Classifier, picture: Image.Image, class_name: str = PREDICTED, method: str = "gae") -> Answer:
    """What a model predicts for a picture, and its relevance map for a class.

    Args:
        picture: RGB.
        class_name: One of the model's, or `PREDICTED`.
        method: The rule that makes the map, see `explain`.
    """
    target = None if class_name == PREDICTED else classifier.class_names.index(class_name)
    shown = explain_picture(classifier.model, classifier.image_processor, picture, target, method)
    explained = shown.explained["relevance"]
    overlay = heat_overlay(shown.images[0], explained.maps[0])
    return Answer(
        confidences=dict(zip(classifier.class_names, explained.probabilities[0].tolist(), strict=True)),
        explained=explained.predictions[0],
        overlay=np.asarray(enlarged(Image.fromarray((overlay * 255).round().astype(np.uint8)))),
    )


def enlarged(picture: Image.Image) -> Image.Image:
    """The picture with its longer side about `SHOWN_SIDE` pixels, each pixel a square; as it is where it is larger."""
    factor = max(1, SHOWN_SIDE // max(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def build(classifiers: list[Classifier], folder: str | Path | None = None) -> "gradio.Blocks":
    """The page that shows what the models say.

    Args:
        classifiers: The models.
        folder: Whose pictures are the examples; drawn ones where it is None.

    Raises:
        UserError: gradio is not installed, or the folder has no images that can be read.
    """
    gradio = _import_gradio()
    examples = folder_examples(folder) if folder is not None else drawn_examples(classifiers)
    introduction = INTRODUCTION
    if folder is None and examples:
        introduction += DRAWN
    if classifiers[-1].title == "Original":
        introduction += ALONE

    def panels_of(image: Image.Image, class_name: str, method: str) -> list[Any]:
        answers = [ask(classifier, image, class_name, method) for classifier in classifiers]
        return [
            part
            for answer in answers
            for part in (gradio.Image(answer.overlay, label=f"map for {answer.explained}"), answer.confidences)
        ]

    def show(image: Image.Image, caption: str, method: str) -> list[Any]:
        return [image, gradio.Image(enlarged(image), label=caption), PREDICTED, *panels_of(image, PREDICTED, method)]

    def show_example(method: str, event: gradio.SelectData) -> list[Any]:
        return show(*examples[event.index], method)

    def take_upload(path: str) -> Image.Image:
        try:
            return read_upload(path)
        except UserError as error:
            # The message is shown as HTML, and decoders quote what they found in the file.
            raise gradio.Error(html.escape(str(error)), print_exception=False) from error

    def show_upload(image: Image.Image, method: str) -> list[Any]:
        return show(image, "your picture", method)

    def explain_class(image: Image.Image | None, class_name: str, method: str) -> list[Any]:
        if image is None:  # the server forgets a picture after a while
            raise gradio.Error("Pick an example or upload a picture.", print_exception=False)
        return panels_of(image, class_name, method)

    with gradio.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as page:
        picture = gradio.State(time_to_live=KEPT_SECONDS)  # what the models are asked about
        gallery, shown, upload, target, rule, panels = _lay_out(gradio, introduction, classifiers, examples)
        everything = [picture, shown, target, *panels]
        # One at a time: explaining puts hooks on a model, and two pictures at once would meet in them.
        queue = {"concurrency_limit": 1, "concurrency_id": "models", "api_visibility": "private"}
        if examples:
            page.load(lambda method: show(*examples[0], method), rule, everything, **queue)
        gallery.select(show_example, rule, everything, **queue)
        # In two steps: what is refused leaves the page as it is.
        upload.upload(take_upload, upload, picture, **queue).success(show_upload, [picture, rule], everything, **queue)
        for choice in (target, rule):
            choice.input(explain_class, [picture, target, rule], panels, **queue)
    return page


def _lay_out(
    gradio, introduction: str, classifiers: list[Classifier], examples: list[tuple[Image.Image, str]]
) -> tuple:
    """The gallery, the picture, the upload, class and rule of the map, and each model's map and predictions."""
    plain = {"format": "png", "buttons": []}
    gradio.Markdown(f"# {TITLE}\n{introduction}")
    gallery = gradio.Gallery(
        [(enlarged(image), caption.split(",")[0]) for image, caption in examples],
        show_label=False,
        allow_preview=False,
        visible=bool(examples),
        elem_id="examples",
        **plain,
    )
    panels = []
    with gradio.Row():
        with gradio.Column(min_width=280):
            gradio.Markdown("### Picture")
            shown = gradio.Image(interactive=False, elem_id="picture", **plain)
            upload = gradio.UploadButton("Upload a picture", file_types=["image"], elem_id="upload")
            names = [PREDICTED, *common_class_names(classifiers)]
            target = gradio.Dropdown(names, value=PREDICTED, label="Explain", elem_id="target")
            rule = gradio.Dropdown(RULES, value="gae", label="Map", elem_id="rule")
        with gradio.Column(scale=len(classifiers), min_width=280), gradio.Row():
            for position, classifier in enumerate(classifiers):
                with gradio.Column(min_width=140):
                    gradio.Markdown(f"### {classifier.title}")
                    panels.append(gradio.Image(interactive=False, elem_id=f"map-{position}", **plain))
                    panels.append(gradio.Label(num_top_classes=5, show_label=False, elem_id=f"predictions-{position}"))
    return gallery, shown, upload, target, rule, panels


def launch(arguments: DemoArguments, **options: Any) -> "gradio.Blocks":
    """Load the models and serve the page until it is interrupted.

    Args:
        arguments: What is shown, and on which port.
        **options: Further arguments of gradio's `Blocks.launch`.

    Returns:
        The page.

    Raises:
        UserError: A model or an example cannot be loaded, gradio is not installed, or the port cannot be used.
    """
    gradio = _import_gradio()  # before models are loaded
    page = build(load_classifiers(arguments), arguments.examples)
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # none from elsewhere
    try:
        page.launch(
            server_port=arguments.port,
            max_file_size=MAX_FILE_SIZE,
            state_session_capacity=100,
            ssr_mode=False,
            footer_links=[],
            css=STYLE,
            head=HEAD,
            theme=gradio.themes.Default(**fonts),
            **options,
        )
    except (OSError, OverflowError) as error:  # taken, or above 65535
        raise UserError(f"--port: {arguments.port} cannot be used: {error}") from error
    return page


def _import_gradio():
    """gradio, which takes seconds to import; set up not to report its users or look for newer versions."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise UserError("The app needs gradio: pip install 'hf-robustvit[app]'.") from error
    return gradio


def main(arguments: DemoArguments) -> None:
    """Serve the page until it is interrupted."""
    start_log()
    launch(arguments)
