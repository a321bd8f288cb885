"""Fine-tuning from beginning to end: choose images, load the model, train, and show what changed."""

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import datasets
from transformers import PreTrainedModel, set_seed
from transformers.image_processing_utils import BaseImageProcessor

from hf_robustvit.builders import load_training_pairs
from hf_robustvit.builders.parquet import ParquetData
from hf_robustvit.commands.dry_run import dry_run
from hf_robustvit.commands.guidance import after_finetuning
from hf_robustvit.commands.mask_flags import refuse_unused
from hf_robustvit.commands.settings import start_log
from hf_robustvit.commands.training_images import choose_images, own_mask_reading, recorded_classes
from hf_robustvit.config import RobustViTConfig, check_settings
from hf_robustvit.data import (
    MASK_CONTROLS,
    NO_FLAGS,
    AugmentedPairs,
    EvalTransform,
    MaskReading,
    RecombineObjects,
    SwapBackgrounds,
    TrainTransform,
    classes_by_name,
    collate_pairs,
    distinct_class_names,
    model_classes,
    relabel,
    text_classes,
    with_pair_transform,
)
from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.pictures import NUM_SHOWN, ExplainedImages, denormalize, explain_batch
from hf_robustvit.experiments.wise_ft import interpolate_weights
from hf_robustvit.files import sole_run
from hf_robustvit.flags.finetune import FinetuneArguments
from hf_robustvit.hub import HubRepository
from hf_robustvit.masks import SOURCES, QualityGate, options_of
from hf_robustvit.models.families import family_of
from hf_robustvit.models.files import commit_of
from hf_robustvit.models.loading import classifier_config, load_classifier
from hf_robustvit.reporting.card import base_licence, write_card
from hf_robustvit.reporting.pictures import overlay_grid
from hf_robustvit.reporting.tables import validation_table
from hf_robustvit.terminal import has_terminal
from hf_robustvit.trainer.callbacks import TenthsCallback
from hf_robustvit.trainer.checkpoints import checkpoint_to_resume
from hf_robustvit.trainer.repetition import changed_settings
from hf_robustvit.trainer.trainer import RobustViTTrainer


logger = logging.getLogger(__name__)


def main(
    arguments: FinetuneArguments, config: RobustViTConfig, gate: QualityGate, reading: MaskReading, *mask_options: Any
) -> None:
    """Fine-tune, and print the validation figures before and after.

    Raises:
        UserError: As `finetune`, or flags are given of a source of masks that is not asked for.
    """
    start_log(config.should_log)
    refuse_unused(arguments.masks, gate, mask_options)
    pairs = load_training_pairs(
        *(arguments.dataset, arguments.data_dir, arguments.images_dir, arguments.masks),
        *(arguments.ignore_unlabelled, arguments.streaming),
    )
    fetch = ParquetData.find(arguments.dataset, "training").with_pictures if arguments.streaming else None
    if arguments.dry_run:
        prepared = prepare(arguments, config, pairs, mask_options, gate, reading, fetch=fetch)
        summary = dry_run(prepared.trainer, pairs, prepared.num_chosen)
    else:
        before, after = finetune(arguments, config, pairs, mask_options, gate, reading, fetch=fetch)
        told = after_finetuning(arguments, config, pairs.features["label"].names)
        summary = f"{validation_table(before, after)}\n\n{told}"
    if config.process_index == 0:
        print(summary)


class Prepared(NamedTuple):
    """A run that only needs to be started.

    Attributes:
        trainer: The trainer.
        checkpoint: What it resumes from.
        original: The model as it was, to interpolate with; None where all weights are to be the fine-tuned ones.
        repository: Where the model is pushed to.
        num_chosen: How many training images were chosen, before those with unusable masks were left out.
    """

    trainer: RobustViTTrainer
    checkpoint: str | None
    original: PreTrainedModel | None
    repository: HubRepository | None
    num_chosen: int


def finetune(
    arguments: FinetuneArguments,
    config: RobustViTConfig,
    pairs: datasets.Dataset,
    mask_options: Sequence[Any],
    gate: QualityGate,
    reading: MaskReading = NO_FLAGS,
    validation_pairs: datasets.Dataset | None = None,
    fetch: Callable[[datasets.Dataset], datasets.Dataset] | None = None,
) -> tuple[dict[str, float], dict[str, float]]:
    """Fine-tune a model on chosen images of a data set, and save it with its card and the maps before and after.

    With `--push_to_hub` it is pushed when all of that is written.

    Args:
        arguments: The model, and which images are chosen.
        config: How it is trained, and where it is saved.
        pairs: The data set: `image`, `label`, `image_id` and, unless the masks are made, `mask`.
        mask_options: The settings of the sources that make masks, one of each of `masks.OPTIONS`.
        gate: Which of the masks that are made are accepted.
        reading: How the user's own masks are read.
        validation_pairs: What to validate on, as `pairs`; some of these are set aside for it if left out.
        fetch: Gives chosen ones of the pairs their pictures, where they have none yet.

    Returns:
        The validation images' figures before and after.

    Raises:
        UserError: The settings do not fit the data or the model, images cannot be read, or the push failed, in which
            case everything is on disk.
    """
    prepared = prepare(arguments, config, pairs, mask_options, gate, reading, validation_pairs, fetch)
    trainer = prepared.trainer
    with sole_run(config.output_dir, trainer.is_world_process_zero()):
        before, after = train(trainer, prepared.checkpoint, prepared.original, arguments.finetuned_share)
    if trainer.is_world_process_zero():
        write_card(config.output_dir, config.hub_model_id or Path(config.output_dir).resolve().name)
        if prepared.repository:
            prepared.repository.push(config.output_dir, "Fine-tuned model")
    return before, after


def prepare(
    arguments: FinetuneArguments,
    config: RobustViTConfig,
    pairs: datasets.Dataset,
    mask_options: Sequence[Any],
    gate: QualityGate,
    reading: MaskReading = NO_FLAGS,
    validation_pairs: datasets.Dataset | None = None,
    fetch: Callable[[datasets.Dataset], datasets.Dataset] | None = None,
) -> Prepared:
    """All of `finetune` that comes before the training; same arguments and errors."""
    shown = [kind for kind in (SwapBackgrounds, RecombineObjects) if getattr(arguments, kind.flag)]
    if len(shown) > 1:
        raise UserError("--recombine_objects swaps backgrounds too: leave --swap_backgrounds out.")
    if shown and arguments.masks == "whole":
        raise UserError(
            f"--{shown[0].flag} takes backgrounds from other images, and --masks whole leaves none: leave one of them "
            "out."
        )
    if not 0 < arguments.finetuned_share <= 1:
        raise UserError(f"--finetuned_share is {arguments.finetuned_share:g}: give a share above 0 and up to 1.")
    if config.fsdp and arguments.finetuned_share < 1:
        raise UserError("--finetuned_share needs all weights in one place, and --fsdp shards them: leave one out.")
    own_masks = own_mask_reading(arguments, pairs, reading, validates_elsewhere=validation_pairs is not None)
    masker_options = options_of(arguments.masks, mask_options) if arguments.masks in SOURCES else None
    if arguments.masks == "whole" and "mask" in pairs.column_names:
        pairs = pairs.remove_columns("mask")
    set_seed(config.seed)
    checkpoint = checkpoint_to_resume(config)
    repository = HubRepository.of(config)
    # Without the Trainer's own push, which takes all of the output folder and would come before the card.
    config = copy.copy(config)
    config.push_to_hub = False
    config.disable_tqdm |= not has_terminal()  # `TenthsCallback` logs instead
    model, image_processor, pairs, new_head = fit(arguments, pairs, needs_eager=config.second_order)
    if new_head and arguments.finetuned_share < 1:
        raise UserError(
            f"--finetuned_share mixes in the weights of {arguments.model}, whose head knows other classes than these "
            "images show: pass --finetuned_share 1."
        )
    check_settings(config, model)
    if repository and config.process_index == 0 and not arguments.dry_run:
        repository.create(config.output_dir)
    if validation_pairs is not None:
        indices = model_classes(validation_pairs.features["label"].names, model.config)
        if indices is None:
            raise UserError("The validation images show classes that the model does not know: remove them.")
        validation_pairs = relabel(validation_pairs, indices, model.config)
    readings = own_masks, own_masks if validation_pairs is None else reading
    selection, training, validation = choose_images(
        arguments, config, pairs, masker_options, gate, readings, validation_pairs, fetch
    )
    if arguments.masks in MASK_CONTROLS:  # the package has made these
        readings = None, None
    train_transform, eval_transform = (
        kind(image_processor, reading=how) for kind, how in zip((TrainTransform, EvalTransform), readings, strict=True)
    )
    for kind in shown:
        train_transform = kind(train_transform, training)
    record = {
        **described(arguments, masker_options, gate),
        "training_classes": selection.training_classes,
        "held_out_classes": selection.held_out_classes,
        **recorded_classes(selection, model.config),
        "prompt_template": getattr(model.config, "prompt_template", None),
        "training_images": training["image_id"][:],
        "validation_images": validation["image_id"][:],
        **reading.settings(),
    }
    original = copy.deepcopy(model) if arguments.finetuned_share < 1 else None
    trainer = RobustViTTrainer(
        model=model,
        args=config,
        new_head=new_head,
        record=record,
        train_dataset=AugmentedPairs(with_pair_transform(training, train_transform), config.seed),
        eval_dataset=with_pair_transform(validation, eval_transform),
        data_collator=collate_pairs,
        processing_class=image_processor,
    )
    trainer.check_resumption(checkpoint)
    if config.disable_tqdm:
        trainer.add_callback(TenthsCallback)
    return Prepared(trainer, checkpoint, original, repository, len(selection.training_indices))


def described(arguments: FinetuneArguments, masker_options: Any | None, gate: QualityGate) -> dict[str, Any]:
    """What robustvit.json records about the origin of the model, the images and the masks."""
    base_revision = commit_of(arguments.model, arguments.revision)
    settings = changed_settings(replace(arguments, revision=base_revision))
    if masker_options:
        settings |= changed_settings(masker_options) | changed_settings(gate)
    private = ("data_dir", "images_dir", "class_names", "streaming")
    return {
        "arguments": {name: value for name, value in settings.items() if name not in private},
        "base_model": arguments.model,
        "base_revision": base_revision,
        "base_licence": base_licence(arguments.model, arguments.revision),
        "dataset": arguments.dataset,
        "mask_source": arguments.masks,
        "swap_backgrounds": arguments.swap_backgrounds,
        "recombine_objects": arguments.recombine_objects,
        "samples_per_class": arguments.samples_per_class,
        "class_seed": arguments.class_seed,
    }


def fit(
    arguments: FinetuneArguments, pairs: datasets.Dataset, needs_eager: bool
) -> tuple[PreTrainedModel, BaseImageProcessor, datasets.Dataset, bool]:
    """Load the model, and bring the data set's labels and the model's classes together.

    Returns:
        The model, its image processor, the data set with the model's labels, and whether the model's head is new.
    """
    config = classifier_config(arguments.model, arguments.revision)
    class_names = pairs.features["label"].names
    indices, head = model_classes(class_names, config), arguments.text_head()
    if indices is None and family_of(config).is_zero_shot and not head["class_names"]:
        head["class_names"] = text_classes(class_names)
    named = head["class_names"]
    model, image_processor = load_classifier(
        arguments.model,
        revision=arguments.revision,
        attention="eager" if needs_eager else "auto",
        id2label=dict(enumerate(class_names)) if indices is None and named is None else None,
        image_size=arguments.input_size,
        **head,
    )
    logger.info("%s is trained with %s attention.", arguments.model, model.config._attn_implementation)
    if named:
        indices = model_classes(class_names, model.config)
        if indices is None:
            missing = sorted(set(class_names) - set(classes_by_name(model.config)))
            raise UserError(
                f"--class_names: {arguments.class_names} lacks {len(missing)} classes of the images, the first is "
                f"{missing[0]!r}: add them, or call the folders of images by the names in the file."
            )
    if indices is None:
        return model, image_processor, pairs, True
    return model, image_processor, relabel(pairs, indices, model.config), False


def train(
    trainer: RobustViTTrainer, checkpoint: str | None, original: PreTrainedModel | None, share: float
) -> tuple[dict[str, float], dict[str, float]]:
    """Train and save, and show the validation images' figures and maps before and after.

    Args:
        trainer: Ready to train.
        checkpoint: What it resumes from.
        original: The model as it was, to interpolate with; None where all weights are to be the fine-tuned ones.
        share: Of the fine-tuned weights.
    """
    validation = trainer.eval_dataset
    shown = collate_pairs([validation[row] for row in range(min(NUM_SHOWN, len(validation)))])
    how = {"pixel_values": shown["pixel_values"], "method": trainer.args.relevance_method}
    before, maps_before = trainer.evaluate(), explain_batch(trainer.model, **how)
    trainer.train(resume_from_checkpoint=checkpoint)
    if original is not None:
        mixed = interpolate_weights(original, trainer.model, share)
        trainer.model.load_state_dict(mixed.state_dict())
    after, maps_after = trainer.evaluate(), explain_batch(trainer.model, **how)
    trainer.record.validation = {
        when: {name: value for name, value in figures.items() if not name.endswith(("time", "_per_second"))}
        for when, figures in (("before", before), ("after", after))
    }
    best = trainer.state.best_model_checkpoint  # None where no evaluation came before the end
    trainer.record.best_checkpoint = trainer.args.load_best_model_at_end and best is not None
    trainer.save_model()
    trainer.save_state()
    if trainer.is_world_process_zero():
        maps = {"before": maps_before, "after": maps_after}
        names = distinct_class_names(trainer.model.config)
        pictures = ExplainedImages(
            denormalize(shown["pixel_values"], trainer.processing_class),
            [names[label] for label in shown["labels"].tolist()],
            maps,
            shown["masks"][:, 0].clamp(min=0).numpy(),
        )
        overlay_grid(pictures, f"{trainer.args.output_dir}/relevance.png")
    return before, after
