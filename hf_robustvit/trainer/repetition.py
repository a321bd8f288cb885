"""What a run records of its settings, and what a run that is resumed is compared in."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from transformers import TrainingArguments
from transformers.trainer_pt_utils import AcceleratorConfig

from hf_robustvit import __version__
from hf_robustvit.config import STEP_DECAY, RobustViTConfig
from hf_robustvit.errors import UserError
from hf_robustvit.record import TRAINING_RECORD, TrainingRecord, package_versions


# Where a run writes and what it reports are not settings of it, and may hold private paths and names.
NOT_RECORDED = {
    *("output_dir", "resume_from_checkpoint", "local_rank", "do_train", "do_eval", "do_predict", "debug"),
    *("report_to", "run_name", "project", "disable_tqdm", "log_level", "log_level_replica", "log_on_each_node"),
    *("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "dataloader_pin_memory"),
    *("push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push"),
    *("hub_revision", "gradient_checkpointing", "gradient_checkpointing_kwargs"),  # older names of others
}
# Recorded also where they have their defaults: what a reader of the record looks for.
ALWAYS_RECORDED = {
    *("learning_rate", "lr_scheduler_type", "weight_decay", "num_train_epochs", "max_steps", "seed", "optim"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "max_grad_norm"),
    *("metric_for_best_model", "greater_is_better"),
    *({field.name for field in fields(RobustViTConfig)} - {field.name for field in fields(TrainingArguments)}),
} - {"relevance_method"}  # which records of earlier versions lack

# What may change when a run is resumed, because the weights do not depend on it: how long it goes on, what is
# evaluated, logged and saved, and where it computes. bf16 and fp16 are compared as `precision`, which accelerate may
# set too. Everything else must stay.
MAY_CHANGE = {
    *("eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "per_device_eval_batch_size"),
    *("eval_accumulation_steps", "logging_strategy", "logging_steps", "logging_first_step", "logging_nan_inf_filter"),
    *("save_strategy", "save_steps", "save_total_limit", "save_only_model", "save_on_each_node"),
    *("load_best_model_at_end", "restore_callback_states_from_checkpoint"),
    *("use_cpu", "bf16", "fp16", "fsdp", "fsdp_config", "ddp_backend", "ddp_timeout", "ddp_bucket_cap_mb"),
    *("ddp_broadcast_buffers", "ddp_find_unused_parameters", "ddp_static_graph", "torch_empty_cache_steps"),
    *("activation_checkpointing", "activation_checkpointing_kwargs", "dataloader_num_workers"),
    *("dataloader_persistent_workers", "dataloader_prefetch_factor", "dataloader_multiprocessing_context"),
    *("dataloader_in_order", "skip_memory_metrics", "skip_unreadable"),
    *("base_licence", "versions", "validation", "best_checkpoint"),
}

# The names under which records keep these flags since the first version.
_FLAGS = {"base_model": "model", "base_revision": "revision", "mask_source": "masks"}
# Schedules whose rate at a step does not depend on how many steps are to follow.
_ENDLESS = (STEP_DECAY, "constant", "constant_with_warmup", "inverse_sqrt", "reduce_lr_on_plateau", "greedy")
_LEFT_OUT = "left out"


def changed_settings(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass whose values differ from the defaults."""
    return {
        field.name: value for field in fields(settings) if (value := getattr(settings, field.name)) != _default(field)
    }


def training_record(config: RobustViTConfig, precision: str, record: Mapping[str, Any]) -> TrainingRecord:
    """What robustvit.json says of a run.

    Args:
        config: Its settings, completed for the model.
        precision: "no" (float32), "bf16" or "fp16".
        record: Where the model and the images come from, see `commands.finetune`.

    Returns:
        `record` with `method`, `hyper_parameters`, `num_processes`, `precision` and `versions`, as JSON has them.
    """
    resolved = {"accelerator_config": AcceleratorConfig().to_dict(), "activation_checkpointing": False}
    resolved["accelerator_config"].pop("use_configured_state")
    defaults = {field.name: _default(field) for field in fields(config)} | resolved
    needless = NOT_RECORDED | {"method"}
    needless |= set() if config.lora_rank else {"lora_alpha"}
    needless |= set() if config.lr_scheduler_type == STEP_DECAY else {"lr_decay", "lr_decay_epochs"}
    hyper_parameters = {
        name: value
        for name, value in config.to_dict().items()
        if name not in needless and (name in ALWAYS_RECORDED or value != defaults[name])
    }
    content = {
        "method": config.method,
        "hyper_parameters": hyper_parameters,
        "num_processes": config.world_size,
        "precision": precision,
        **record,
        "versions": {"hf_robustvit": __version__} | package_versions(),
    }
    return TrainingRecord.of(json.loads(json.dumps(content)))


def refuse_another_run(checkpoint: str | os.PathLike, record: TrainingRecord) -> None:
    """Check that a run continues from a checkpoint with the settings that made it.

    What `MAY_CHANGE` names may differ, and so may the number of epochs unless the learning rate's schedule depends on
    it, and the processes, batch size and accumulation as long as a step takes as many images.

    Args:
        checkpoint: Its folder. One without a record is not checked.
        record: The run's, from `training_record`.

    Raises:
        UserError: Something else differs; the message says what.
    """
    if not os.path.isfile(os.path.join(checkpoint, TRAINING_RECORD)):
        return
    stored = TrainingRecord.read(checkpoint)
    try:
        then, now = _decisive(stored), _decisive(record)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{os.path.join(checkpoint, TRAINING_RECORD)} does not say how the checkpoint was made "
            f"({type(error).__name__}: {error}): name another --output_dir."
        ) from error
    # Before records had versions they left out much, and "constant" was decayed.
    names = [name for name in now | then if stored.versions or name in then.keys() & now.keys()]
    if not stored.versions and then.get("lr_scheduler_type") == "constant":
        then["lr_scheduler_type"] = STEP_DECAY
    differences = [
        "{} was {}, now it is {}".format(name, *_shown(then.get(name, _LEFT_OUT), now.get(name, _LEFT_OUT)))
        for name in names
        if then.get(name, _LEFT_OUT) != now.get(name, _LEFT_OUT)
    ]
    if differences:
        raise UserError(
            f"{checkpoint} cannot be resumed with other settings ({'; '.join(differences)}): give those it was made "
            "with, or name another --output_dir."
        )


def _decisive(record: TrainingRecord) -> dict[str, Any]:
    """What decides the weights of a run, by flag."""
    settings = record.arguments | record.hyper_parameters
    nested = ("arguments", "hyper_parameters")
    settings |= {_FLAGS.get(name, name): value for name, value in record.content().items() if name not in nested}
    parts = ("per_device_train_batch_size", "gradient_accumulation_steps", "num_processes")
    batch = math.prod([settings.pop(name) for name in parts])
    if not settings.get("auto_find_batch_size"):  # with it, a resumed run keeps the batch size that was found
        settings["per_device_train_batch_size x gradient_accumulation_steps x processes"] = batch
    free = set(MAY_CHANGE)
    if settings["lr_scheduler_type"] in _ENDLESS and not 0 < settings.get("warmup_steps", 0) < 1:
        free |= {"num_train_epochs", "max_steps"}
    return {name: value for name, value in settings.items() if name not in free}


def _shown(then: Any, now: Any) -> tuple[Any, Any]:
    """Two values for a message; of two long lists the first entries that only one of them has."""
    if not (isinstance(then, list) and isinstance(now, list)):
        return then, now
    return tuple(
        f"{len(ours)} with {', '.join(map(str, only[:3]))}"
        if (only := [item for item in ours if item not in others])
        else f"{len(ours)} of these"
        for ours, others in ((then, now), (now, then))
    )


def _default(field: Field) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
