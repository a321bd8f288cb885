"""Which models the demo compares, and where its page is."""

from dataclasses import dataclass

from transformers.hf_argparser import HfArg

from hf_robustvit.flags.text_head import TextHeadArguments


@dataclass
class DemoArguments(TextHeadArguments):
    """The models that are compared, and where the page is."""

    model: str | None = HfArg(
        default=None,
        help="Hub id, local folder, timm/<name> or cutouts-vit. "
        "Default: outputs/demo/model, which `make demo` makes, or cutouts-vit alone.",
    )
    baseline: str | None = HfArg(
        default=None, help="The model to compare with. Default: what --model was fine-tuned from."
    )
    examples: str | None = HfArg(
        default=None,
        help="Folder with images/<class>/*, <class>/*, or images without classes: a few of them are shown. "
        "Default: drawn ones, where the models know their classes.",
    )
    port: int | None = HfArg(default=None, help="Port of the page. Default: the first free from 7860.")
