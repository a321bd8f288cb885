"""The models that an evaluation or an audit is about, with their classes."""

from collections.abc import Sequence
from dataclasses import replace

from hf_robustvit.commands.settings import check_output_dir
from hf_robustvit.data import text_classes
from hf_robustvit.data.benchmark_rows import BenchmarkRows
from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.flags.evaluate import EvaluationArguments
from hf_robustvit.imagenet_classes import NAMES
from hf_robustvit.models.families import family_of
from hf_robustvit.models.loading import classifier_config
from hf_robustvit.models.zero_shot import ZeroShotHead


def load_checkpoints(arguments: EvaluationArguments) -> list[Checkpoint]:
    """Load the models, the baseline first if there is one.

    Raises:
        UserError: One cannot be loaded, or the output folder cannot be written to.
    """
    check_output_dir(arguments.output_dir)
    models = [(arguments.model, arguments.revision)]
    if arguments.baseline:
        models.insert(0, (arguments.baseline, arguments.baseline_revision))
    checkpoints = [_load_checkpoint(arguments, name, revision) for name, revision in models]
    for flag in ("class_names", "prompt_template"):
        if getattr(arguments, flag) and not any(isinstance(each.model, ZeroShotHead) for each in checkpoints):
            raise UserError(
                f"--{flag} is for CLIP-type models, which classify by class names, and {arguments.model!r} is none: "
                "leave it out."
            )
    return checkpoints


def _load_checkpoint(arguments: EvaluationArguments, name: str, revision: str | None) -> Checkpoint:
    """Load a model; a CLIP-type one with the classes that the flags name or that it brings, else with ImageNet's."""
    config = classifier_config(name, revision)
    if not family_of(config).is_zero_shot:
        return Checkpoint.load(name, revision, arguments.input_size)
    head = arguments.text_head()
    takes_classes = not head["class_names"] and not config.id2label
    head |= {"class_names": NAMES} if takes_classes else {}
    return replace(Checkpoint.load(name, revision, arguments.input_size, **head), takes_classes=takes_classes)


def name_classes(checkpoints: Sequence[Checkpoint], found: Sequence[BenchmarkRows]) -> None:
    """Give CLIP-type models that bring no class names those of the other model, or of the data sets.

    On ImageNet's sets they keep ImageNet's, which they were loaded with.

    Args:
        checkpoints: As `load_checkpoints` gives them.
        found: The data sets.
    """
    zero_shot = (each for each in checkpoints if isinstance(each.model, ZeroShotHead))
    named = next((each.model for each in zero_shot if not each.takes_classes), None)
    if named:
        names, template = list(named.config.id2label.values()), named.config.prompt_template
    else:
        features = [rows.rows.features["label"] for rows in found if "label" in rows.rows.features]
        names, template = text_classes(list(dict.fromkeys(name for one in features for name in one.names))), None
        if any(rows.imagenet_indices for rows in found) or not names:
            return
    for model in (each.model for each in checkpoints if each.takes_classes):
        model.set_classes(names, template or model.config.prompt_template, model.tokenizer)
