"""The settings of a fine-tuning run, with the paper's defaults, and every refusal of one."""

import logging
import os
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn
from transformers import SchedulerType, Trainer, TrainingArguments
from transformers.integrations import INTEGRATION_TO_CALLBACK
from transformers.utils import ExplicitEnum, is_torch_xla_available

from hf_robustvit import paper
from hf_robustvit.errors import UserError, unknown_name
from hf_robustvit.flags.finetune import MethodSettings
from hf_robustvit.losses import LOSSES
from hf_robustvit.relevance import check_training_method


logger = logging.getLogger(__name__)

# Flags of `TrainingArguments` that would be ignored or would spoil a run, and why.
_REFUSED = {
    "remove_unused_columns": "it would remove the masks",
    "label_smoothing_factor": "the classification loss is the method's own, which has none",
    "bf16_full_eval": "the evaluation before training would leave the trained weights in bfloat16 (--bf16 does not)",
    "fp16_full_eval": "the evaluation before training would leave the trained weights in float16 (--fp16 does not)",
    "use_liger_kernel": "it has no kernels for these classifiers",
    "deepspeed": "gradients in the attentions have not been tried under it (--fsdp shards too)",
    "enable_jit_checkpoint": "a run saves a checkpoint at SIGTERM anyway, and two would be written at once",
}

_POSITIVE = (
    *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "num_train_epochs"),
    *("save_steps", "eval_steps", "logging_steps", "temperature", "lora_rank", "lr_decay", "lr_decay_epochs"),
)
_NOT_NEGATIVE = ("learning_rate", "weight_decay", "max_grad_norm", "warmup_steps", "dataloader_num_workers")


# What an evaluation measures beside the loss, by method.
METRICS = {
    "robustvit": (
        *("accuracy", "relevance_in_mask", "background_loss", "foreground_loss", "relevance_loss"),
        "classification_loss",
    ),
    "gradmask": ("accuracy", "background_loss", "classification_loss"),
    "rrr": ("accuracy", "background_loss", "classification_loss"),
    "finetune": ("accuracy", "classification_loss"),
}


class PaperSchedule(ExplicitEnum):
    """The paper's schedule, which transformers does not have: beside `SchedulerType`, for `lr_scheduler_type`."""

    STEP_DECAY = "step_decay"


STEP_DECAY = PaperSchedule.STEP_DECAY
# Schedules that leave warm-up steps out.
_WITHOUT_WARMUP = ("constant", "reduce_lr_on_plateau", "greedy")


@dataclass
class RobustViTConfig(MethodSettings, TrainingArguments):
    r"""Settings of `RobustViTTrainer`: every field of `transformers.TrainingArguments`, and those of the method.

    A field left at `None` takes the paper's value for the method and the model; the log says which.

    Attributes:
        method: "robustvit" (the paper's loss), "gradmask", "rrr" (its baselines) or "finetune" (plain cross-entropy).
        lambda_relevance, lambda_classification: Weights of these two losses (Eq. 5). Paper: 0.8 and 0.2.
        lambda_background, lambda_foreground: Weights of these two losses (Eq. 3). Paper: 2 and 0.3.
        temperature: Divides the logits in the classification loss. Released code: 0.65 for DeiT-B, 0.55 for DeiT-S,
            else 1.
        classification_target: Class that the classification loss asks for: "predicted" (Eq. 4), or "label" (the
            ground-truth ablation, and the default for a model whose head is new).
        relevance_target: Class whose relevance map is moved: "label" or "predicted".
        second_order: Whether the gradients inside the mask term are differentiated too. Off for "robustvit", on for
            the baselines.
        start_layer: First layer that counts in the relevance map. Paper: all layers count.
        relevance_method: Rule that makes the relevance map: "gae" (the paper's) or "libra" (the same with LibraGrad's
            gradients).
        penalty: Of "gradmask": "mean_square" (the released code's) or "norm" (Eq. 9 to the letter).
        trainable_layers: Number of last layers that are trained, with the final norm and the head; the rest is frozen.
            All weights if left out, as in the paper.
        attention_only: Whether of these only the layers' attention is trained (queries, keys, values and output
            projection), and the head only where it is new.
        lora_rank: Rank of the low-rank matrices that are trained instead of the layers' weights (LoRA, through peft),
            with the head. They are merged into the weights after training. No LoRA if left out.
        lora_alpha: The product of the two matrices is multiplied by `lora_alpha / lora_rank`.
        lr_decay, lr_decay_epochs: Factor on the learning rate, and the number of epochs after which it is applied
            again, with `lr_scheduler_type="step_decay"`.

    NOTE: these defaults differ from those of `TrainingArguments`: `learning_rate` (by model), `num_train_epochs` (50),
    `weight_decay` (1e-4), `max_grad_norm` (0: no clipping), `lr_scheduler_type` ("step_decay", after `warmup_steps` if
    there are any; all of transformers' names mean what they mean there), `eval_strategy`, `save_strategy` and
    `logging_strategy` ("epoch"), `save_total_limit` (2), `load_best_model_at_end` (True, by the validation loss),
    `hub_strategy` ("end": nothing unfinished is pushed), `remove_unused_columns` (False: the masks are not an argument
    of the model) and `label_names` (["labels"]). `bf16` sets `use_cpu` on a machine without an accelerator.
    """

    def __post_init__(self):
        for name, value in paper.METHOD_DEFAULTS.get(self.method, {}).items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        self._refuse_what_cannot_work()
        self._check_schedule()
        # Without an accelerator a run is on the CPU, but transformers refuses bf16 there unless use_cpu is set.
        has_accelerator = torch.accelerator.is_available() or is_torch_xla_available()
        self.use_cpu = self.use_cpu or (self.bf16 and not has_accelerator)
        decays = self.lr_scheduler_type == STEP_DECAY
        self.lr_scheduler_type = SchedulerType.CONSTANT if decays else self.lr_scheduler_type
        super().__post_init__()
        if decays:  # which `TrainingArguments` would not take for a schedule
            self.lr_scheduler_type = STEP_DECAY
        # Without an accelerator there is nothing to pin memory for, and torch warns at every epoch.
        self.dataloader_pin_memory = self.dataloader_pin_memory and torch.accelerator.is_available()
        for name in self.report_to:
            if name not in INTEGRATION_TO_CALLBACK:
                raise unknown_name("--report_to", name, INTEGRATION_TO_CALLBACK)
            try:
                INTEGRATION_TO_CALLBACK[name]()
            except (ImportError, RuntimeError) as error:
                raise UserError(f"--report_to {name} lacks its package: {error}") from error

    def _check_schedule(self) -> None:
        schedules = [STEP_DECAY.value, *(schedule.value for schedule in SchedulerType)]
        if self.lr_scheduler_type not in schedules:
            raise unknown_name("--lr_scheduler_type", self.lr_scheduler_type, schedules)
        if self.lr_scheduler_type in _WITHOUT_WARMUP and self.warmup_steps:
            raise UserError(
                f"--warmup_steps is {self.warmup_steps:g}, but --lr_scheduler_type "
                f"{SchedulerType(self.lr_scheduler_type).value} has no warm-up: leave it out, or take "
                "constant_with_warmup or step_decay."
            )
        for name in ("lr_decay", "lr_decay_epochs"):
            default = type(self).__dataclass_fields__[name].default
            if self.lr_scheduler_type != STEP_DECAY and getattr(self, name) != default:
                raise UserError(
                    f"--{name} is {getattr(self, name)}, but it belongs to --lr_scheduler_type step_decay: leave one "
                    "of the two out."
                )

    def _refuse_what_cannot_work(self) -> None:
        for name, reason in _REFUSED.items():
            if getattr(self, name):
                raise UserError(f"--{name} is set, but {reason}: leave it out.")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not value > 0 and not (name == "num_train_epochs" and self.max_steps > 0):
                raise UserError(f"--{name} is {value}: give a positive number.")
        for name in _NOT_NEGATIVE:
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise UserError(f"--{name} is {value}: give a number that is not negative.")
        check_training_method(self.relevance_method, "--relevance_method")
        if self.relevance_method != "gae" and self.method != "robustvit":
            raise UserError(
                f"--relevance_method is {self.relevance_method}, but --method {self.method} looks at no map: leave "
                "one of the two out."
            )
        # transformers before 5.23 has but the older name.
        checkpoints = getattr(self, "activation_checkpointing", None) or self.gradient_checkpointing
        if self.relevance_method == "libra" and checkpoints:
            raise UserError(
                "--relevance_method is libra, which needs the activations that --activation_checkpointing throws "
                "away: leave one of the two out."
            )
        if self.attention_only and self.lora_rank is not None:
            raise UserError(
                "--lora_rank trains the head too, and --attention_only does not: leave one of the two out."
            )
        compiled = self.torch_compile or self.torch_compile_backend or self.torch_compile_mode
        compiled = compiled or os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no"
        if compiled and self.method != "finetune":
            raise UserError(
                f"--torch_compile (accelerate's --dynamo_backend) is set, but --method {self.method} takes gradients "
                "inside the model, which a compiled model does not give: leave it out."
            )

    def __getstate__(self) -> dict[str, Any]:
        # The Trainer pickles its settings into training_args.bin, where a token would be found by whoever reads it.
        return self.__dict__ | {"hub_token": None}

    def complete(self, model_name: str, new_head: bool = False) -> None:
        """Fill what was left out with the paper's settings for a model, and log it.

        A model that the paper does not have takes ViT-B's.

        Args:
            model_name: Name the model was loaded by, for example "google/vit-base-patch16-224".
            new_head: Whether its head starts from random weights, so that its predictions mean nothing yet.
        """
        paper_model = paper.SHORT_NAMES.get(model_name, "ViT-B")
        settings = {"temperature": 1.0, "classification_target": "predicted"}
        tuned = paper.SETTINGS.get(self.method, paper.SETTINGS["finetune"])  # a method that the paper does not have
        settings.update(tuned.get(paper_model, tuned["ViT-B"]))
        source = f"the paper's for {paper_model}"
        if model_name not in paper.SHORT_NAMES:
            source += f", since {model_name} is not in its tables"
        if new_head:
            settings.update(classification_target="label", learning_rate=paper.NEW_HEAD_LEARNING_RATE)
            source = "for a new head"
        used = {"learning_rate", *(field.name for field in fields(LOSSES[self.method]))}
        for name, value in settings.items():
            if getattr(self, name) is None:
                setattr(self, name, value)
                if name in used:
                    logger.info("%s was left out and is set to %s (%s).", name, value, source)


def check_settings(config: RobustViTConfig, model: nn.Module, own_metrics: bool = False) -> None:
    """Check, before any image is read, what a run would otherwise fail on: processes, optimizer and metric.

    Args:
        config: The settings.
        model: What is trained.
        own_metrics: Whether evaluations measure more than `METRICS`.

    Raises:
        UserError: As `check_processes`; or the optimizer's package is missing or does not take its settings, or the
            best checkpoint is to be chosen by a figure that is not measured.
    """
    check_processes(config)
    try:
        Trainer.get_optimizer_cls_and_kwargs(config, model)
    except (ImportError, ValueError, TypeError, NotImplementedError) as error:
        raise UserError(f"--optim {config.optim.value} cannot be used: {error}") from error
    metric, known = config.metric_for_best_model, METRICS.get(config.method)
    if metric is None or own_metrics or known is None:
        return
    if metric.removeprefix("eval_") not in ("loss", *known):
        raise unknown_name("--metric_for_best_model", metric, ("loss", *known))


def check_processes(config: RobustViTConfig) -> None:
    """Check that attentions can be differentiated on the processors that the run is spread over.

    Raises:
        UserError: It is not, or a setting would have no effect.
    """
    if config.n_gpu > 1:
        raise UserError(
            f"One process sees {config.n_gpu} GPUs, and torch's DataParallel cannot differentiate attentions: "
            "start the run with `accelerate launch`, or show it one GPU with CUDA_VISIBLE_DEVICES=0."
        )
    if config.fp16 and config.device.type == "cpu":
        raise UserError("--fp16 has no effect on a CPU: take --bf16, or leave it out.")
    if not (config.fsdp or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"):
        return
    version = config.fsdp_plugin_args["fsdp_version"] if config.fsdp else int(os.environ.get("FSDP_VERSION", 1))
    if config.device.type == "cpu":
        raise UserError("--fsdp shards over GPUs alone, and this run is on CPUs: leave it out.")
    if version != 2:
        raise UserError(
            f"FSDP version {version} frees weights that the attentions' gradients need: take version 2 "
            "(`accelerate launch --fsdp_version 2`)."
        )
    if config.second_order:
        raise UserError("--second_order under FSDP: its weights are freed before the second derivative needs them.")
    if config.lora_rank is not None:
        raise UserError("--lora_rank under FSDP: the sharded matrices cannot be merged; leave one of the two out.")
