"""`RobustViTTrainer`: a `transformers.Trainer` whose loss looks at the relevance map."""

import logging
from collections import defaultdict
from dataclasses import fields
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, EvalLoopOutput, TrainOutput, get_last_checkpoint

from hf_robustvit.config import STEP_DECAY, RobustViTConfig, check_settings
from hf_robustvit.data import AugmentedPairs
from hf_robustvit.errors import UserError
from hf_robustvit.losses import LOSSES, FinetuneLoss, GradMaskLoss, LossOutput, RobustViTLoss, RRRLoss
from hf_robustvit.losses.output import foreground_of
from hf_robustvit.trainer.callbacks import EpochCallback, InterruptionCallback, place_tensorboard
from hf_robustvit.trainer.checkpoints import begin_checkpoint, check_room, raise_if_full
from hf_robustvit.trainer.parameters import (
    accept_saved_names,
    add_lora,
    freeze_all_but_attention,
    freeze_below,
    merge_lora,
)
from hf_robustvit.trainer.repetition import refuse_another_run, training_record


logger = logging.getLogger(__name__)


def make_loss(config: RobustViTConfig) -> RobustViTLoss | GradMaskLoss | RRRLoss | FinetuneLoss:
    """The loss a completed config describes; what that leaves open is the loss's own default."""
    loss = LOSSES[config.method]
    # A config's `method` is the loss itself.
    flags = {item.name: "relevance_method" if item.name == "method" else item.name for item in fields(loss)}
    settings = {name: getattr(config, flag) for name, flag in flags.items()}
    return loss(**{name: value for name, value in settings.items() if value is not None})


def check_labels(dataset: Any, num_labels: int) -> None:
    """Check that a data set's labels are classes of the head, where they can be had without reading its images.

    Raises:
        UserError: One is not.
    """
    rows = dataset.dataset if isinstance(dataset, AugmentedPairs) else dataset
    if not isinstance(rows, datasets.Dataset) or "label" not in rows.column_names:
        return
    labels = np.asarray(rows.with_format(None)["label"][:])
    wrong = np.flatnonzero((labels < 0) | (labels >= num_labels))
    if len(wrong):
        raise UserError(
            f"The label of row {wrong[0]} is {labels[wrong[0]]}, but the model has {num_labels} classes, counted from "
            "0: load it with one class for each label (`load_classifier(..., id2label=...)`), or mend the labels."
        )


class StepDecay(LambdaLR):
    """The paper's schedule, as `RobustViTTrainer` makes it."""


class RobustViTTrainer(Trainer):
    """Fine-tunes a classifier on image-mask pairs.

    Everything a `Trainer` does works as usual: `accelerate launch`, resuming, callbacks, TensorBoard, pushing to the
    Hub. Each log holds the terms of the loss, the accuracy and, where the method makes a map, the share of the
    relevance inside the mask, each as the mean over the images since the last log or the resumption. Ctrl-C and
    SIGTERM raise an `Interruption` after the step's checkpoint is saved. LoRA's matrices are merged into the weights
    after training.

    Args:
        model: A classifier from `load_classifier`; it must be given, `model_init` is refused.
        args: The settings. What they leave open is filled with the paper's values for `model`.
        new_head: Whether the classifier's head starts from random weights.
        record: Where the images come from, to be kept beside the weights in robustvit.json, at every save, together
            with the method and its settings (`training_record`), and compared with that of a checkpoint which is
            resumed; `None` writes no such file.
        kwargs: Any other argument of `Trainer`: `train_dataset` and `eval_dataset` give rows for
            `data_collator=collate_pairs`, and `processing_class` is the image processor.

    Example:
        >>> model, image_processor = load_classifier("google/vit-base-patch16-224")
        >>> trainer = RobustViTTrainer(
        ...     model=model,
        ...     args=RobustViTConfig(output_dir="out"),
        ...     train_dataset=train_dataset,
        ...     eval_dataset=eval_dataset,
        ...     data_collator=collate_pairs,
        ...     processing_class=image_processor,
        ... )
        >>> trainer.train()
    """

    # `compute_loss` divides by the number of images in the whole accumulated batch itself.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: nn.Module | None = None,
        args: RobustViTConfig | None = None,
        new_head: bool = False,
        record: dict[str, Any] | None = None,
        **kwargs,
    ):
        if model is None or kwargs.get("model_init") is not None:
            raise UserError(
                "RobustViTTrainer does not take model_init, as its settings are completed for one model: pass `model`."
            )
        args = args or RobustViTConfig()
        check_settings(args, model, own_metrics=kwargs.get("compute_metrics") is not None)
        args.complete(model.config.name_or_path, new_head)
        for name in ("train_dataset", "eval_dataset"):
            check_labels(kwargs.get(name), model.config.num_labels)
        if model.config.problem_type not in (None, "single_label_classification"):
            logger.warning(
                "%s was trained for %s; each image here has one class, so problem_type becomes "
                "single_label_classification, and the scores add up to 1.",
                model.config.name_or_path,
                model.config.problem_type,
            )
            model.config.problem_type = "single_label_classification"
        if isinstance(model, PreTrainedModel):
            accept_saved_names(model)
        if args.trainable_layers is not None:
            freeze_below(model, args.trainable_layers)
        if args.attention_only:
            freeze_all_but_attention(model, keep_head=new_head)
        if args.lora_rank is not None:
            add_lora(model, args.lora_rank, args.lora_alpha)
        if args.should_save:
            check_room(args, model)
        super().__init__(model=model, args=args, **kwargs)
        self.interruption = InterruptionCallback(self.accelerator)
        self.add_callback(self.interruption)
        self.add_callback(EpochCallback)
        place_tensorboard(self.callback_handler.callbacks, args.output_dir)
        self.model_accepts_loss_kwargs = True  # so that the images of the whole accumulated batch are counted
        self.loss = make_loss(args)
        self.record = record and training_record(args, self.accelerator.mixed_precision, record)
        self._sums: dict[str, dict[str, torch.Tensor]] = {"train": defaultdict(float), "eval": defaultdict(float)}

    def check_resumption(self, checkpoint: str | bool | None) -> None:
        """Check that this run is the one that left a checkpoint; `True` is the last one in the output folder.

        Raises:
            UserError: As `refuse_another_run`.
        """
        checkpoint = get_last_checkpoint(self.args.output_dir) if checkpoint is True else checkpoint
        if checkpoint and self.record is not None:
            refuse_another_run(checkpoint, self.record)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs) -> TrainOutput:
        self.check_resumption(resume_from_checkpoint)
        if not self.is_fsdp_enabled:
            # An earlier evaluation has marked the model as prepared, though not for training: accelerate would leave
            # DistributedDataParallel out, and each process would train a model of its own.
            self.model._is_accelerate_prepared = False
        self._sums["train"].clear()
        with self.interruption.catching_signals():
            output = super().train(resume_from_checkpoint, **kwargs)
        if self.args.lora_rank is not None:
            merge_lora(self.model)
        return output

    def get_batch_samples(self, *args, **kwargs) -> tuple[list[dict[str, Any]], torch.Tensor | int | None]:
        is_over = self.state.global_step >= self.state.max_steps  # resumed where --max_steps had ended it
        return ([], None) if is_over else super().get_batch_samples(*args, **kwargs)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if missing := [name for name in ("pixel_values", "masks", "labels") if name not in inputs]:
            raise UserError(
                f"The batch has no {' and no '.join(missing)}, found {', '.join(inputs)}: give rows with masks, as "
                "`with_pair_transform` makes them, and data_collator=collate_pairs."
            )
        labels, masks = inputs["labels"], inputs["masks"]
        num_images = len(labels) if num_items_in_batch is None else num_items_in_batch
        output = self.loss(model, inputs["pixel_values"], masks, labels, num_images=num_images)
        if not output.loss.isfinite():
            raise UserError(
                f"The loss became {output.loss.item()} at step {self.state.global_step} on the images "
                f"{', '.join(inputs.get('image_ids', ['(no names given)']))}: look at these and their masks, or lower "
                f"the learning rate (now {self.args.learning_rate})."
            )
        self._add_to_log("train" if model.training else "eval", output, labels, masks, num_images)
        loss = output.loss
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # the processes' gradients are averaged, not summed
        return (loss, {"loss": loss, "logits": output.logits}) if return_outputs else loss

    def _add_to_log(
        self, mode: str, output: LossOutput, labels: torch.Tensor, masks: torch.Tensor, num_images: torch.Tensor | int
    ) -> None:
        """Add one batch to the sums that the next log turns into means over images."""
        sums = self._sums[mode]
        sums["images"] += torch.tensor(len(labels), dtype=torch.float32, device=labels.device)
        for name, term in output.terms.items():
            sums[f"{name}_loss"] += term.float() * num_images
        sums["accuracy"] += (output.logits.argmax(dim=-1) == labels).float().sum()
        if output.relevance is not None:
            inside = output.relevance * foreground_of(masks)
            in_mask, total = (maps.sum(dim=(1, 2, 3)) for maps in (inside, output.relevance * (masks >= 0)))
            sums["relevance_in_mask"] += (in_mask / total.clamp(min=1e-12)).sum()  # a constant map has no relevance

    def _logged_means(self, mode: str) -> dict[str, float]:
        """The means over images since the last call, over all processes."""
        sums = self._sums[mode]
        if not sums:
            return {}
        totals = self.accelerator.reduce(torch.stack(list(sums.values())), reduction="sum").tolist()
        means = dict(zip(sums, totals, strict=True))
        sums.clear()
        num_images = means.pop("images")
        return {name: total / num_images for name, total in means.items()}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs.update(self._logged_means("train"))
        super().log(logs, start_time)

    def get_eval_dataloader(self, *args, **kwargs) -> DataLoader:
        # --dataloader_drop_last is for training: an evaluation is of all images.
        drop_last, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            return super().get_eval_dataloader(*args, **kwargs)
        finally:
            self.args.dataloader_drop_last = drop_last

    def evaluation_loop(self, *args, metric_key_prefix: str = "eval", **kwargs) -> EvalLoopOutput:
        self._sums["eval"].clear()
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        output.metrics.update(
            {f"{metric_key_prefix}_{name}": mean for name, mean in self._logged_means("eval").items()}
        )
        return output

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        # The released code decays every parameter, biases and norms too.
        return [name for name, _ in model.named_parameters()]

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        is_ours = self.lr_scheduler is None or isinstance(self.lr_scheduler, StepDecay)
        if is_ours and self.args.lr_scheduler_type == STEP_DECAY:  # anew at each training
            _, steps_per_epoch, *_ = self.set_initial_training_values(self.args, self.get_train_dataloader())
            steps_per_decay = self.args.lr_decay_epochs * steps_per_epoch
            warmup_steps = self.args.get_warmup_steps(num_training_steps)

            def factor(step: int) -> float:
                warmth = step / warmup_steps if step < warmup_steps else 1
                return warmth * self.args.lr_decay ** (step // steps_per_decay)

            self.lr_scheduler = StepDecay(optimizer or self.optimizer, factor)
        return super().create_scheduler(num_training_steps, optimizer)

    def save_model(self, output_dir: str | None = None, *args, **kwargs) -> None:
        if self.record is not None and self.args.should_save:
            if self.args.auto_find_batch_size:
                self.record.hyper_parameters["per_device_train_batch_size"] = self.state.train_batch_size
            self.record.write(output_dir or self.args.output_dir)
        super().save_model(output_dir, *args, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self.args.should_save:
            begin_checkpoint(Path(self.args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"))
        try:
            super()._save_checkpoint(model, trial)
        except Exception as error:  # the libraries that write each have their own for a full disk
            raise_if_full(self.args, self.model, error)
            raise
