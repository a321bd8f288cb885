"""The command `hf-robustvit`, also `python -m hf_robustvit` and `accelerate launch -m hf_robustvit`."""

import argparse
import os
import sys
from pathlib import Path
from typing import get_args

from hf_robustvit import __version__
from hf_robustvit.commands.settings import exit_on_user_error, start_log
from hf_robustvit.commands.start import COMMANDS
from hf_robustvit.flags import RelevanceMethod
from hf_robustvit.terminal import PROGRAM


def parser() -> argparse.ArgumentParser:
    """All commands; those of `COMMANDS` parse their flags themselves."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Fine-tune classifiers so that they look at the object. COMMAND --help lists a command's flags.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    tools = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        tools.add_parser(name, help=command.help, add_help=False)
    explain = tools.add_parser("explain", help="Lay the relevance map of a class over an image.")
    explain.add_argument("model", help="Hub id, local folder, timm/<name> or cutouts-vit.")
    explain.add_argument("image", help="The image file.")
    explain.add_argument("--target", help="Name or index of the class to explain; the predicted one if left out.")
    explain.add_argument(
        "-o", "--output", help="PNG file to write, or a folder for <image>_relevance.png; here if left out."
    )
    explain.add_argument(
        "--relevance_method",
        choices=get_args(RelevanceMethod),
        default="gae",
        help="Rule that makes the map: gae (the paper's, and the default), libra, rollout or occlusion.",
    )
    explain.add_argument("--revision", help="Branch, tag or commit of the model on the Hub.")
    explain.add_argument("--class_names", help="Text file of a CLIP-type model's classes, one on each line.")
    explain.add_argument("--prompt_template", help='What a CLIP-type model reads for a class: "a photo of a {}."')
    push = tools.add_parser("push", help="Push a fine-tuned model to the Hub, once more or for the first time.")
    push.add_argument("folder", help="The output folder of the fine-tuning run.")
    push.add_argument("name", help="The repository, <user>/<name>.")
    push.add_argument("--revision", help="The branch to push to.")
    push.add_argument("--private", action="store_true", default=None, help="Make a new repository private.")
    tools.add_parser("env", help="Print the versions that belong in a bug report.")
    return parser


def explain(
    model: str,
    image: str,
    target: str | None,
    output: str | None,
    revision: str | None,
    relevance_method: str,
    class_names: str | None,
    prompt_template: str | None,
) -> str:
    """Explain one image; what is printed then."""
    from hf_robustvit.commands.explain import explain_image

    start_log()
    path = Path(output or ".")
    if os.path.isdir(path):
        path /= f"{Path(image).stem}_relevance.png"
    how = revision, relevance_method, class_names, prompt_template
    return f"{explain_image(model, image, target, path, *how)}\n\nThe map is in {path}."


def push(folder: str, name: str, revision: str | None, private: bool | None) -> str:
    """Push a model; what is printed then."""
    from hf_robustvit.hub import HubRepository

    HubRepository(name, None, private, revision).push(folder, "Fine-tuned model")
    return f"{folder} is pushed to {name}."


def env() -> str:
    """The versions of what matters here, one a line."""
    from hf_robustvit.commands.environment import environment

    return environment()


def main(arguments: list[str] | None = None) -> None:
    """Run a command.

    Raises:
        UserError: As the command.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if command := COMMANDS.get(next(iter(arguments), "")):
        command.start(arguments[1:], f"{PROGRAM} {arguments[0]}")
        return
    chosen = vars(parser().parse_args(arguments or ["--help"]))
    tool = {"explain": explain, "push": push, "env": env}[chosen.pop("command")]
    print(tool(**chosen))


def entry() -> None:
    """Run the command of this process; a mistake is told in a sentence."""
    with exit_on_user_error():
        main()


if __name__ == "__main__":
    entry()
