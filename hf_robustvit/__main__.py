"""Small tools: `python -m hf_robustvit explain MODEL IMAGE` and `python -m hf_robustvit push FOLDER NAME`."""

import argparse
import os
import sys
from pathlib import Path

from hf_robustvit.commands.explain import explain_image
from hf_robustvit.commands.settings import exit_on_user_error
from hf_robustvit.hub import HubRepository


def parser() -> argparse.ArgumentParser:
    """The two tools and their flags."""
    parser = argparse.ArgumentParser(prog="python -m hf_robustvit", description=__doc__)
    tools = parser.add_subparsers(dest="tool", required=True)
    explain = tools.add_parser("explain", help="Lay the relevance map of a class over an image.")
    explain.add_argument("model", help="Hub id, local folder, timm/<name> or cutouts-vit.")
    explain.add_argument("image", help="The image file.")
    explain.add_argument("--target", help="Name or index of the class to explain; the predicted one if left out.")
    explain.add_argument(
        "-o", "--output", help="PNG file to write, or a folder for <image>_relevance.png; here if left out."
    )
    explain.add_argument("--revision", help="Branch, tag or commit of the model on the Hub.")
    explain.add_argument("--class_names", help="Text file of a CLIP-type model's classes, one on each line.")
    explain.add_argument("--prompt_template", help='What a CLIP-type model reads for a class: "a photo of a {}."')
    push = tools.add_parser("push", help="Push a fine-tuned model to the Hub, once more or for the first time.")
    push.add_argument("folder", help="The output folder of run_finetune.py.")
    push.add_argument("name", help="The repository, <user>/<name>.")
    push.add_argument("--revision", help="The branch to push to.")
    push.add_argument("--private", action="store_true", default=None, help="Make a new repository private.")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run a tool."""
    chosen = parser().parse_args(arguments)
    if chosen.tool == "explain":
        output = Path(chosen.output or ".")
        if os.path.isdir(output):
            output /= f"{Path(chosen.image).stem}_relevance.png"
        head = chosen.class_names, chosen.prompt_template
        table = explain_image(chosen.model, chosen.image, chosen.target, output, chosen.revision, *head)
        sys.stdout.write(f"{table}\n\nThe map is in {output}.\n")
    else:
        HubRepository(chosen.name, None, chosen.private, chosen.revision).push(chosen.folder, "Fine-tuned model")
        sys.stdout.write(f"{chosen.folder} is pushed to {chosen.name}.\n")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
