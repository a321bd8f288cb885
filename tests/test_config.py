"""The paper's defaults, and how they are filled in for a model."""

import logging

import pytest
from tiny_models import CHECKPOINTING
from transformers import HfArgumentParser

from hf_robustvit.config import RobustViTConfig
from hf_robustvit.errors import UserError


def parse(*flags: str) -> RobustViTConfig:
    return HfArgumentParser(RobustViTConfig).parse_args_into_dataclasses(["--output_dir", "out", *flags])[0]


def test_the_papers_defaults():
    config = parse()
    assert (config.per_device_train_batch_size, config.num_train_epochs, config.weight_decay) == (8, 50, 1e-4)
    assert (config.lambda_relevance, config.lambda_classification) == (0.8, 0.2)
    assert (config.lambda_background, config.lambda_foreground) == (2.0, 0.3)
    assert (config.lr_decay, config.lr_decay_epochs, config.lr_scheduler_type) == (0.85, 2, "step_decay")
    assert (config.second_order, config.max_grad_norm) == (False, 0)
    assert config.load_best_model_at_end and config.metric_for_best_model == "loss"
    assert config.greater_is_better is False


@pytest.mark.parametrize(
    "model, learning_rate, temperature",
    [
        ("google/vit-base-patch16-224", 3e-6, 1.0),
        ("google/vit-large-patch16-224", 9e-7, 1.0),
        ("timm/vit_small_patch16_224.augreg_in21k_ft_in1k", 2e-6, 1.0),
        ("timm/vit_base_patch16_224.augreg_in21k_ft_in1k", 6e-7, 1.0),
        ("timm/vit_large_patch16_224.augreg_in21k_ft_in1k", 9e-7, 1.0),
        ("facebook/deit-small-patch16-224", 1e-6, 0.55),
        ("facebook/deit-base-patch16-224", 8e-7, 0.65),
    ],
)
def test_a_model_of_the_paper_takes_its_settings_and_the_log_says_so(model, learning_rate, temperature, caplog):
    config = parse()
    with caplog.at_level(logging.INFO):
        config.complete(model)
    assert (config.learning_rate, config.temperature) == (learning_rate, temperature)
    assert config.classification_target == "predicted"
    assert f"learning_rate was left out and is set to {learning_rate} (the paper's for " in caplog.text


def test_what_the_loss_has_no_use_for_is_not_told(caplog):
    config = parse("--method", "finetune")
    with caplog.at_level(logging.INFO):
        config.complete("facebook/deit-base-patch16-224")
    assert "learning_rate was left out" in caplog.text
    assert "temperature" not in caplog.text and "classification_target" not in caplog.text


def test_what_is_given_is_kept():
    config = parse("--learning_rate", "1e-5", "--temperature", "2", "--lambda_background", "7", "--second_order")
    config.complete("facebook/deit-base-patch16-224")
    assert (config.learning_rate, config.temperature, config.lambda_background) == (1e-5, 2.0, 7.0)
    assert config.second_order is True


def test_a_model_outside_the_paper_takes_vit_bs_settings_and_the_log_says_so(caplog):
    config = parse()
    with caplog.at_level(logging.INFO):
        config.complete("someone/some-vit")
    assert config.learning_rate == 3e-6
    assert "the paper's for ViT-B, since someone/some-vit is not in its tables" in caplog.text


def test_a_new_head_learns_from_the_labels():
    config = parse()
    config.complete("google/vit-base-patch16-224", new_head=True)
    assert (config.learning_rate, config.classification_target) == (5e-5, "label")


@pytest.mark.parametrize(
    "method, model, weights, learning_rate",
    [
        ("rrr", "google/vit-base-patch16-224", (2e-6, 1e-10), 2e-6),
        ("rrr", "timm/vit_base_patch16_224.augreg_in21k_ft_in1k", (2e-7, 1e-8), 5e-7),
        ("rrr", "cutouts-vit", (2e-6, 1e-10), 2e-6),
        ("gradmask", "facebook/deit-small-patch16-224", (3e-9, 50), 5e-3),
        ("finetune", "facebook/deit-small-patch16-224", (None, None), 1e-6),
    ],
)
def test_the_baselines_settings(method, model, weights, learning_rate):
    config = parse("--method", method)
    config.complete(model)
    assert (config.lambda_classification, config.lambda_background) == weights
    assert config.learning_rate == learning_rate
    assert config.second_order == (method != "finetune")


def test_second_order_takes_a_value_or_none():
    assert parse("--second_order").second_order is True
    assert parse("--second_order", "false").second_order is False
    assert parse("--method", "rrr", "--second_order", "false").second_order is False


def test_mistakes_are_named():
    with pytest.raises(UserError, match="--temperature is 0.0.*positive"):
        parse("--temperature", "0")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--remove_unused_columns"], "would remove the masks: leave it out"),
        (["--label_smoothing_factor", "0.1"], "the classification loss is the method's own"),
        (["--bf16_full_eval", "--use_cpu"], "would leave the trained weights in bfloat16"),
        (["--fp16_full_eval", "--use_cpu"], "would leave the trained weights in float16"),
        (["--use_liger_kernel"], "no kernels for these classifiers"),
        (["--deepspeed", "zero3.json"], "have not been tried under it"),
        (["--relevance_method", "libra", f"--{CHECKPOINTING}"], "needs the activations that --activation_ch"),
        (["--relevance_method", "libra", "--gradient_checkpointing"], "needs the activations that --activation_ch"),
        (["--torch_compile"], "--method robustvit takes gradients inside the model"),
        (["--torch_compile_backend", "eager", "--method", "rrr"], "--method rrr takes gradients inside the model"),
    ],
)
def test_flags_that_cannot_work_are_refused(flags, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        parse(*flags)
    assert str(error.value).startswith("--torch_compile" if "compile" in flags[0] else flags[0])


def test_compilation_asked_for_through_accelerate_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    with pytest.raises(UserError, match="--dynamo_backend"):
        parse()
    assert parse("--method", "finetune").method == "finetune"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        *(
            ([f"--{name}", "0"], f"--{name} is 0.*: give a positive number")
            for name in (
                *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"),
                *("num_train_epochs", "lora_rank", "lr_decay", "lr_decay_epochs"),
                *("save_steps", "eval_steps", "logging_steps"),
            )
        ),
        *(
            ([f"--{name}", "-1"], f"--{name} is -1.*: give a number that is not negative")
            for name in ("learning_rate", "weight_decay", "max_grad_norm", "warmup_steps", "dataloader_num_workers")
        ),
        (["--num_train_epochs", "-2"], "--num_train_epochs is -2.0: give a positive number"),
        (["--learning_rate", "nan"], "--learning_rate is nan"),
        (
            ["--enable_jit_checkpoint"],
            "--enable_jit_checkpoint is set, but a run saves a checkpoint at SIGTERM anyway",
        ),
        (["--report_to", "wandbb"], "--report_to: there is no 'wandbb'. Did you mean wandb"),
        (
            ["--lr_scheduler_type", "step_decai"],
            "--lr_scheduler_type: there is no 'step_decai'. Did you mean step_dec",
        ),
        (
            ["--lr_scheduler_type", "constant", "--warmup_steps", "3"],
            "--warmup_steps is 3, but .* constant has no war",
        ),
        (["--lr_scheduler_type", "cosine", "--lr_decay", "0.5"], "--lr_decay is 0.5, but it belongs to .*step_decay"),
        (["--lr_scheduler_type", "linear", "--lr_decay_epochs", "3"], "--lr_decay_epochs is 3, but it belongs to"),
    ],
)
def test_settings_that_mean_nothing_are_refused(flags, sentence):
    with pytest.raises(UserError, match=sentence):
        parse(*flags)


def test_epochs_count_nothing_beside_steps():
    assert parse("--max_steps", "3", "--num_train_epochs", "0").max_steps == 3


def test_a_report_without_its_package_is_refused(monkeypatch):
    monkeypatch.setattr("transformers.integrations.integration_utils.is_wandb_available", lambda: False)
    with pytest.raises(UserError, match="--report_to wandb lacks its package: .*pip install wandb"):
        parse("--report_to", "wandb")


@pytest.mark.parametrize("schedule", ["constant", "linear", "constant_with_warmup", "step_decay"])
def test_schedules_keep_their_names(schedule):
    config = parse("--lr_scheduler_type", schedule)
    assert config.lr_scheduler_type == config.to_dict()["lr_scheduler_type"] == schedule


def test_bf16_needs_no_other_flag_on_a_cpu(monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    assert parse("--bf16").use_cpu and not parse().use_cpu
