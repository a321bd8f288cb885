"""The trainer: what moves, what is logged, and that splitting a batch changes nothing."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import datasets
import pytest
import torch
from accelerate.state import AcceleratorState
from golden_numbers import relative_error
from safetensors.torch import load_file
from tiny_models import CHECKPOINTING, FAMILIES, tiny_model
from tiny_pairs import collate, make_trainer, pairs, train_once
from transformers import EarlyStoppingCallback, TrainerCallback, default_data_collator

from hf_robustvit.config import METRICS, RobustViTConfig, check_processes
from hf_robustvit.data import AugmentedPairs
from hf_robustvit.errors import UserError
from hf_robustvit.losses import LOSSES, FinetuneLoss, RobustViTLoss
from hf_robustvit.trainer.trainer import RobustViTTrainer, make_loss


METHODS = ("robustvit", "gradmask", "rrr", "finetune")


def weights(model) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def assert_same_weights(found, wanted, tolerance=1e-5):
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert relative_error(found[name], wanted[name]) < tolerance, name


@pytest.mark.parametrize("method", METHODS)
def test_training_moves_every_parameter(method, tmp_path):
    trainer = make_trainer(tmp_path, method=method)
    before = weights(trainer.model)
    trainer.train()
    for name, weight in weights(trainer.model).items():
        assert not torch.equal(weight, before[name]), name


def test_frozen_parameters_stay(tmp_path):
    model = tiny_model("vit")
    for parameter in model.vit.layers[0].parameters():
        parameter.requires_grad = False
    before = weights(model)
    make_trainer(tmp_path, model=model).train()
    for name, weight in weights(model).items():
        assert torch.equal(weight, before[name]) == name.startswith("vit.layers.0."), name


@pytest.mark.parametrize("family", FAMILIES)
def test_trainable_layers_leaves_the_rest_as_it_is(family, tmp_path):
    model = tiny_model(family, num_hidden_layers=3)
    before = weights(model)
    make_trainer(tmp_path, model=model, trainable_layers=1, start_layer=2, num_train_epochs=1).train()
    moved = {name for name, weight in weights(model).items() if not torch.equal(weight, before[name])}
    heads = ("classifier", "visual_projection.", "vision_model.head.")
    assert any(head in name for head in heads for name in moved)
    assert any("layers.2." in name for name in moved) or any("layer.2." in name for name in moved)
    assert not [name for name in moved if "embeddings" in name or "layers.0." in name or "layers.1." in name]


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_only_moves_queries_keys_values_and_outputs(family, tmp_path):
    model = tiny_model(family, num_hidden_layers=3)
    before = weights(model)
    make_trainer(tmp_path, model=model, trainable_layers=2, attention_only=True, num_train_epochs=1).train()
    moved = {name for name, weight in weights(model).items() if not torch.equal(weight, before[name])}
    image_tower = [name for name in before if not name.startswith("text_model.")]
    wanted = {name for name in image_tower if re.search(r"layers?\.[12]\.(attention|self_attn)\.", name)}
    # A bias of the keys shifts all scores of a query alike, so it has no gradient but rounding's; BEiT has none.
    assert len(wanted) == 2 * (7 if family == "beit" else 8)
    assert {name for name in wanted if "k_proj.bias" not in name} <= moved <= wanted


def test_attention_only_trains_a_head_that_is_new(tmp_path):
    model = tiny_model("vit")
    before = weights(model)
    make_trainer(tmp_path, model=model, new_head=True, attention_only=True, num_train_epochs=1).train()
    moved = {name for name, weight in weights(model).items() if not torch.equal(weight, before[name])}
    assert {name for name in moved if "attention" not in name} == {"classifier.weight", "classifier.bias"}


def test_attention_only_of_no_layer_is_an_error(tmp_path):
    with pytest.raises(UserError, match="--attention_only trains no weight with --trainable_layers 0"):
        make_trainer(tmp_path, trainable_layers=0, attention_only=True)


def test_too_many_trainable_layers_are_an_error(tmp_path):
    with pytest.raises(UserError, match="--trainable_layers is 3, but the model has 2 layers"):
        make_trainer(tmp_path, trainable_layers=3)


def test_logs_are_means_over_the_images_of_each_epoch(tmp_path):
    model, rows = tiny_model("vit"), pairs(10)
    trainer = make_trainer(
        tmp_path, train=rows, model=model, learning_rate=0.0, per_device_train_batch_size=4, num_train_epochs=1
    )
    trainer.train()
    train_log, eval_log = trainer.state.log_history[:2]

    for log, prefix, seen in ((train_log, "", rows), (eval_log, "eval_", pairs(5, seed=1))):
        batch = collate(seen)
        out = RobustViTLoss()(model, batch["pixel_values"], batch["masks"], batch["labels"])
        for term in ("background", "foreground", "relevance", "classification"):
            assert log[f"{prefix}{term}_loss"] == pytest.approx(out.terms[term].item(), rel=1e-5), term
        accuracy = (out.logits.argmax(-1) == batch["labels"]).float().mean().item()
        assert log[f"{prefix}accuracy"] == pytest.approx(accuracy, rel=1e-5)
        inside = (out.relevance * batch["masks"]).sum((1, 2, 3)) / out.relevance.sum((1, 2, 3))
        assert log[f"{prefix}relevance_in_mask"] == pytest.approx(inside.mean().item(), rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_accumulated_gradients_equal_those_of_the_whole_batch(method, tmp_path):
    # 12 images: parts of 5, 5 and 2 are one step, as is the whole batch.
    settings = {"method": method, "optim": "sgd", "num_train_epochs": 1, "weight_decay": 0}
    whole = make_trainer(tmp_path / "whole", per_device_train_batch_size=12, **settings)
    whole.train()
    parts = make_trainer(tmp_path / "parts", per_device_train_batch_size=5, gradient_accumulation_steps=3, **settings)
    parts.train()
    assert whole.state.global_step == parts.state.global_step == 1
    assert_same_weights(weights(parts.model), weights(whole.model))
    assert parts.state.log_history[0]["loss"] == pytest.approx(whole.state.log_history[0]["loss"], rel=1e-5)


def test_two_processes_equal_one(tmp_path):
    tests, methods = Path(__file__).parents[1], ["robustvit", "rrr"]
    environment = {**os.environ, "PYTHONPATH": f"{tests.parent}:{tests}", "ACCELERATE_USE_CPU": "true"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run([*launch, tests / "tiny_pairs.py", tmp_path / "two", "3", *methods], check=True, env=environment)
    for method in methods:
        folders = tmp_path / "one" / method, tmp_path / "two" / method
        train_once(folders[0], method, batch_size=6)
        one, two = (load_file(folder / "model.safetensors") for folder in folders)
        assert_same_weights(two, one)
        states = [json.loads((folder / "trainer_state.json").read_text()) for folder in folders]
        wanted, found = (state["log_history"][0] for state in states)
        for key in ("background_loss", "classification_loss", "accuracy", "loss"):
            assert found[key] == pytest.approx(wanted[key], rel=1e-4), (method, key)


def test_a_loss_that_is_not_a_number_names_the_images(tmp_path):
    rows = pairs(8)
    rows[5]["pixel_values"][0, 0, 0] = float("nan")
    trainer = make_trainer(tmp_path, train=rows, per_device_train_batch_size=2)
    with pytest.raises(UserError, match=r"loss became nan at step \d+ on the images .*class-0/5\.png") as error:
        trainer.train()
    assert str(error.value).count(".png") == 2


def test_the_learning_rate_decays_every_two_epochs(tmp_path):
    trainer = make_trainer(tmp_path, num_train_epochs=5, per_device_train_batch_size=5, learning_rate=1e-4)
    trainer.train()
    rates = [log["learning_rate"] for log in trainer.state.log_history if "learning_rate" in log]
    # The rate that is logged is that of the epoch's last step.
    assert rates == pytest.approx([1e-4, 1e-4, 0.85e-4, 0.85e-4, 0.85**2 * 1e-4])


def rates(trainer, num_steps):
    """The learning rate of each step, as a share of the first."""
    trainer.create_optimizer_and_scheduler(num_steps)
    found = []
    for _ in range(num_steps):
        found.append(trainer.lr_scheduler.get_last_lr()[0] / trainer.args.learning_rate)
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    return found


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # 12 images in batches of 5 are 3 steps an epoch, and 2 when the last one is dropped.
        ({"lr_decay_epochs": 1}, [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]),
        ({"lr_decay_epochs": 1, "dataloader_drop_last": True}, [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]),
        ({"lr_decay_epochs": 2, "gradient_accumulation_steps": 2}, [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5]),
        ({"lr_decay_epochs": 2, "warmup_steps": 4}, [0, 0.25, 0.5, 0.75, 1, 1, 0.5, 0.5]),
        ({"lr_decay_epochs": 2, "warmup_steps": 0.5}, [0, 0.25, 0.5, 0.75, 1, 1, 0.5, 0.5]),
        ({"lr_scheduler_type": "constant"}, [1] * 8),
        ({"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 2}, [0, 0.5, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_schedules(settings, expected, tmp_path):
    settings = settings if "lr_scheduler_type" in settings else settings | {"lr_decay": 0.5}
    assert rates(make_trainer(tmp_path, per_device_train_batch_size=5, **settings), 8) == pytest.approx(expected)


def test_an_evaluation_is_of_all_images(tmp_path):
    whole, dropping = (
        make_trainer(tmp_path, per_device_eval_batch_size=3, dataloader_drop_last=drop) for drop in (False, True)
    )
    assert dropping.evaluate()["eval_loss"] == whole.evaluate()["eval_loss"]
    assert dropping.args.dataloader_drop_last


@pytest.mark.parametrize("method", METRICS)
def test_the_best_checkpoint_is_chosen_by_what_is_measured(method, tmp_path):
    measured = make_trainer(tmp_path, method=method).evaluate().keys()
    times = {"runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "epoch"}
    assert {name.removeprefix("eval_") for name in measured} - times == {"loss", *METRICS[method]}
    for name in METRICS[method]:
        make_trainer(tmp_path, method=method, metric_for_best_model=name)
        make_trainer(tmp_path, method=method, metric_for_best_model=f"eval_{name}")
    with pytest.raises(UserError, match="--metric_for_best_model: there is no 'acuracy'. Did you mean accuracy"):
        make_trainer(tmp_path, method=method, metric_for_best_model="acuracy")


def test_a_metric_of_ones_own_may_choose_the_best_checkpoint(tmp_path):
    config = RobustViTConfig(output_dir=str(tmp_path), use_cpu=True, metric_for_best_model="sharpness")
    rows = pairs(5)
    RobustViTTrainer(
        tiny_model("vit"), config, eval_dataset=rows, compute_metrics=lambda predictions: {"sharpness": 1}
    )


def test_an_optimizer_without_its_package_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.trainer_optimizer.is_bitsandbytes_available", lambda: False)
    with pytest.raises(UserError, match="--optim adamw_bnb_8bit cannot be used: .*pip install -U bitsandbytes"):
        make_trainer(tmp_path, optim="adamw_bnb_8bit")


def test_a_model_is_given_itself(tmp_path):
    config = RobustViTConfig(output_dir=str(tmp_path), use_cpu=True)
    for given in ({}, {"model_init": lambda: tiny_model("vit")}):
        with pytest.raises(UserError, match="does not take model_init.*pass `model`"):
            RobustViTTrainer(args=config, **given)


def test_rows_without_masks_are_told(tmp_path):
    rows = [{name: row[name] for name in ("pixel_values", "labels")} for row in pairs(4)]
    trainer = make_trainer(tmp_path, train=rows)
    trainer.data_collator = default_data_collator
    with pytest.raises(UserError, match="The batch has no masks, found pixel_values, labels: .*collate_pairs"):
        trainer.train()


@pytest.mark.parametrize("label", [5, -1])
def test_a_label_outside_the_head_is_told_at_once(label, tmp_path):
    rows = datasets.Dataset.from_dict({"label": [0, 4, label]})
    for train in (rows, AugmentedPairs(rows, seed=0)):
        with pytest.raises(UserError, match=f"The label of row 2 is {label}, but the model has 5 classes"):
            make_trainer(tmp_path, train=train)


def test_every_parameter_decays(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.create_optimizer()
    decays = {
        group["weight_decay"]: len(group["params"]) for group in trainer.optimizer.param_groups if group["params"]
    }
    assert decays == {1e-4: len(list(trainer.model.parameters()))}


class StopAfter(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


def test_a_resumed_run_ends_like_an_undisturbed_one(tmp_path):
    settings = {"num_train_epochs": 4, "per_device_train_batch_size": 4, "load_best_model_at_end": False}
    undisturbed = make_trainer(tmp_path / "undisturbed", **settings)
    undisturbed.train()
    make_trainer(tmp_path / "stopped", callbacks=[StopAfter(6)], **settings).train()
    resumed = make_trainer(tmp_path / "stopped", model=tiny_model("vit", seed=9), **settings)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == undisturbed.state.global_step == 12
    for name, weight in weights(undisturbed.model).items():
        assert torch.equal(weights(resumed.model)[name], weight), name


def test_a_run_resumed_where_max_steps_ended_it_is_over(tmp_path):
    settings = {"max_steps": 5, "per_device_train_batch_size": 4}  # in the middle of the second epoch
    ended = make_trainer(tmp_path, **settings)
    ended.train()
    resumed = make_trainer(tmp_path, model=tiny_model("vit", seed=9), **settings)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 5
    assert resumed.state.log_history[:-1] == ended.state.log_history[:-1]  # the last one has the time
    assert_same_weights(weights(resumed.model), weights(ended.model), tolerance=1e-12)


def test_the_schedule_begins_anew_at_each_training(tmp_path):
    trainer = make_trainer(tmp_path, num_train_epochs=3, lr_decay_epochs=1, learning_rate=1e-4)
    for _ in range(2):
        trainer.train()
        rates = [log["learning_rate"] for log in trainer.state.log_history if "learning_rate" in log]
        assert rates == pytest.approx([1e-4, 0.85e-4, 0.85**2 * 1e-4])


def test_the_best_checkpoint_comes_back_and_training_stops_early(tmp_path):
    trainer = make_trainer(
        tmp_path, num_train_epochs=30, learning_rate=0.1, callbacks=[EarlyStoppingCallback(early_stopping_patience=1)]
    )
    trainer.train()
    losses = [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log]
    assert len(losses) < 30
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(losses), rel=1e-5)


def test_tensorboard_gets_every_term(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    trainer = make_trainer(tmp_path / "out", report_to="tensorboard", num_train_epochs=1)
    trainer.evaluate()
    trainer.train()
    (events,) = tmp_path.rglob("events.out.tfevents*")
    assert events.is_relative_to(tmp_path / "out" / "runs")
    accumulator = EventAccumulator(str(events.parent))
    accumulator.Reload()
    assert {"train/background_loss", "eval/relevance_in_mask"} <= set(accumulator.Tags()["scalars"])


def test_the_record_is_saved_beside_the_weights(tmp_path):
    trainer = make_trainer(tmp_path, record={"training_classes": ["café"]}, num_train_epochs=1)
    trainer.train()
    trainer.save_model()
    for folder in (tmp_path, tmp_path / "checkpoint-2"):
        record = json.loads((folder / "robustvit.json").read_text(encoding="utf-8"))
        assert record["training_classes"] == ["café"]
        assert record["method"] == "robustvit"
        assert record["hyper_parameters"]["lambda_background"] == 2.0
        assert record["hyper_parameters"]["learning_rate"] == 1e-3


def test_the_record_has_the_batch_size_that_was_found(tmp_path, monkeypatch):
    settings = {
        "per_device_train_batch_size": 8,
        "auto_find_batch_size": True,
        "num_train_epochs": 1,
        "record": {"a": 1},
    }
    ours = RobustViTTrainer.compute_loss

    def compute_loss(self, model, inputs, *args, **kwargs):
        if model.training and len(inputs["labels"]) > 4:
            raise RuntimeError("CUDA out of memory.")
        return ours(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(RobustViTTrainer, "compute_loss", compute_loss)
    trainer = make_trainer(tmp_path, **settings)
    trainer.train()
    recorded = json.loads((tmp_path / f"checkpoint-{trainer.state.global_step}" / "robustvit.json").read_text())
    found = recorded["hyper_parameters"]["per_device_train_batch_size"]
    assert 1 <= found <= 4 and trainer.state.global_step == -(-12 // found)
    make_trainer(tmp_path, **settings).check_resumption(True)


def test_a_model_of_several_classes_an_image_becomes_one_of_a_single_class(tmp_path, caplog):
    model = tiny_model("vit")
    model.config.problem_type = "multi_label_classification"
    make_trainer(tmp_path, model=model)
    assert model.config.problem_type == "single_label_classification"
    assert "was trained for multi_label_classification; each image here has one class" in caplog.text


def test_predict_gives_the_logits_alone(tmp_path):
    trainer = make_trainer(tmp_path)
    predictions = trainer.predict(pairs(5))
    batch = collate(pairs(5))
    torch.testing.assert_close(
        torch.from_numpy(predictions.predictions), trainer.model(batch["pixel_values"]).logits.detach()
    )


def test_gradients_of_a_model_sharded_by_fsdp2_equal_those_of_a_whole_one():
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{tests.parent}:{tests}"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*launch, tests / "sharded.py"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_fsdp_is_refused_where_it_would_have_no_effect(tmp_path):
    with pytest.raises(UserError, match="--fsdp shards over GPUs alone"):
        make_trainer(tmp_path, fsdp=True)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"fsdp_config": {"version": 1}}, "FSDP version 1 .* --fsdp_version 2"),
        ({"lora_rank": 2}, "--lora_rank under FSDP"),
        ({"method": "rrr"}, "--second_order under FSDP"),
    ],
)
def test_fsdp_without_what_explaining_needs_is_refused(settings, sentence, tmp_path, monkeypatch):
    config = RobustViTConfig(output_dir=str(tmp_path), fsdp=True, use_cpu=True, **settings)
    monkeypatch.setattr(RobustViTConfig, "device", torch.device("cuda"))
    with pytest.raises(UserError, match=sentence):
        check_processes(config)


@pytest.mark.parametrize(
    ("attention", "settings"),
    [
        ("eager", {}),
        ("lean", {}),
        ("eager", {"second_order": True}),
        ("eager", {"method": "rrr"}),
        ("lean", {"lora_rank": 2}),
    ],
)
def test_activation_checkpointing_changes_nothing(attention, settings, tmp_path):
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = tiny_model("vit")
        model.set_attn_implementation(attention)
        make_trainer(
            tmp_path / str(checkpointing),
            model=model,
            optim="sgd",
            num_train_epochs=1,
            **{CHECKPOINTING: checkpointing},
            **settings,
        ).train()
        found.append(weights(model))
    assert_same_weights(found[1], found[0])


@pytest.mark.parametrize("attention", ["eager", "lean"])
def test_bf16_moves_the_weights_alike(attention, tmp_path):
    moves = []
    for bf16 in (False, True):
        AcceleratorState._reset_state(reset_partial_state=True)
        model = tiny_model("vit")
        model.set_attn_implementation(attention)
        before = weights(model)
        make_trainer(tmp_path / str(bf16), model=model, optim="sgd", num_train_epochs=1, bf16=bf16).train()
        moves.append(torch.cat([(weight - before[name]).flatten() for name, weight in weights(model).items()]))
    AcceleratorState._reset_state(reset_partial_state=True)
    assert not torch.equal(*moves)
    assert relative_error(moves[1], moves[0]) < 0.1


def test_fp16_is_refused_on_a_cpu(tmp_path):
    with pytest.raises(UserError, match="--fp16 has no effect on a CPU: take --bf16"):
        make_trainer(tmp_path, fp16=True)


def test_several_gpus_in_one_process_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(RobustViTConfig, "n_gpu", 2)
    with pytest.raises(UserError, match="One process sees 2 GPUs.*accelerate launch"):
        make_trainer(tmp_path)


def test_a_new_loss_is_a_file_and_a_row(monkeypatch):
    @dataclass(frozen=True)
    class Doubled(FinetuneLoss):
        factor: float = 2.0
        lambda_background: float = 7.0

    monkeypatch.setitem(LOSSES, "doubled", Doubled)
    monkeypatch.setattr(RobustViTConfig, "factor", None, raising=False)
    config = RobustViTConfig(method="doubled", output_dir="unused", learning_rate=1e-5, use_cpu=True)
    config.complete("some/model")
    assert make_loss(config) == Doubled(factor=2.0, lambda_background=7.0)  # None leaves the loss its own default
    config.lambda_background = 0.0
    assert make_loss(config).lambda_background == 0.0
