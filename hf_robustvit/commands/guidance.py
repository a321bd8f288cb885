"""What is printed when a long command is done: where everything is, and what to type next."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hf_robustvit.builders.parquet import official_name
from hf_robustvit.config import RobustViTConfig
from hf_robustvit.data import model_classes
from hf_robustvit.flags.evaluate import EvaluationArguments
from hf_robustvit.flags.experiment import ExperimentArguments
from hf_robustvit.flags.finetune import FinetuneArguments
from hf_robustvit.flags.masks import MaskArguments
from hf_robustvit.models.families import family_of
from hf_robustvit.models.loading import classifier_config
from hf_robustvit.terminal import command_line


# What follows --dataset in a test of a model that was trained on these, and, for all others, a name to be replaced.
TESTS = {"cutouts": ["cutouts"], "imagenet-s": ["all", "--data_dir", "BENCHMARKS"]}
OWN_TEST = "TEST_PHOTOS"
ADVISED_MODEL = "google/vit-base-patch16-224"


def after_masks(arguments: MaskArguments, accepted: Mapping[int, int]) -> str:
    """Where the masks are, and, if the images are in folders by class, the command that trains with them.

    Args:
        arguments: What was made, and where it is.
        accepted: Class -> how many of its images have an accepted mask, for classes that have any.
    """
    out = Path(arguments.output_dir)
    told = f"The masks are in {out / 'masks'}; look at {out / 'contact_sheet.png'} before training with them."
    if not accepted:
        return told
    usual = FinetuneArguments.__dataclass_fields__["samples_per_class"].default
    # As many as every class has, and in one of them another one to validate on.
    samples = min(usual, *accepted.values(), max(accepted.values()) - 1)
    if samples < 1:
        return f"{told}\nTo train, one class at least needs two images with accepted masks: add images."
    flags = ["--model", ADVISED_MODEL, "--dataset", arguments.images, "--masks", out / "masks"]
    flags += ["--samples_per_class", samples] if samples < usual else []
    return f"{told}\nThen train with: {command_line('finetune', *flags, '--output_dir', f'{out}-model')}"


def after_finetuning(arguments: FinetuneArguments, config: RobustViTConfig, class_names: Sequence[str]) -> str:
    """Where the model, its card and its pictures are, and the command that evaluates it.

    Args:
        arguments: What was fine-tuned.
        config: How, and where it is.
        class_names: Of the images; an original that does not know them is nothing to compare with.
    """
    out, test = config.output_dir, TESTS.get(official_name(arguments.dataset), [OWN_TEST])
    flags, original = ["--model", out], classifier_config(arguments.model, arguments.revision)
    if family_of(original).is_zero_shot or model_classes(class_names, original) is not None:
        flags += ["--baseline", arguments.model]
        flags += ["--baseline_revision", arguments.revision] if arguments.revision else []
    flags += ["--dataset", *test, "--output_dir", f"{out}-results", "--report"]
    lines = [
        f"The model is in {out}, its card is {out}/README.md, and its maps before and after are {out}/relevance.png.",
        f"Evaluate it with: {command_line('eval', *flags)}",
    ]
    if OWN_TEST in test:
        lines.append(f"({OWN_TEST} stands for a folder of photos of these classes that it was not trained on.)")
    return "\n".join(lines)


def after_evaluation(arguments: EvaluationArguments) -> str:
    """Where the results and the pictures are, and the command that adds the results to the model's card."""
    out = Path(arguments.output_dir)
    if arguments.audit:
        return f"The findings are in {out / 'audit.html'}, to be opened in a browser, and in {out / 'audit.json'}."
    lines = [f"The results are in {out / 'results.md'}, and maps on their images in {out / 'overlays'}."]
    if arguments.report:
        lines.append(f"The report is {out / 'report.html'}.")
    if Path(arguments.model, "README.md").is_file():
        lines.append(f"The model's card is {Path(arguments.model, 'README.md')}.")
        if arguments.update_card:
            name = re.sub(r"[^\w.]+", "-", Path(arguments.model).resolve().name)  # as the Hub wants names
            lines.append(f"Push the model with: {command_line('push', arguments.model, f'USER/{name}')}")
        else:
            lines.append("Add the results to it with the same command and --update_card.")
    return "\n".join(lines)


def after_experiments(arguments: ExperimentArguments, pages: Iterable[Path]) -> str:
    """Where the pages and the models are; after a single run, how the pages are made."""
    out = Path(arguments.output_dir)
    lines = [f"The models are in {out / 'runs'}."]
    if arguments.run:
        lines.append("When all runs are made, the same command without --run makes the pages.")
    else:
        lines.append(f"Tables and figures lie beside each page, and all results are in {out / 'results.parquet'}.")
    return "\n".join([*map(str, pages), *lines])
