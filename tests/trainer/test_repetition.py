"""robustvit.json: a run is repeated from it, and no other run goes on from its checkpoints."""

import json
import sys

import pytest
import torch
from photo_folder import save_model, save_photos
from safetensors.torch import load_file
from tiny_pairs import make_trainer

import run_finetune
from hf_robustvit.errors import UserError
from hf_robustvit.record import TrainingRecord
from hf_robustvit.trainer.repetition import refuse_another_run, training_record


def finetune(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["run_finetune.py", *map(str, arguments)])
    run_finetune.main()


def record_of(folder):
    return json.loads((folder / "robustvit.json").read_text(encoding="utf-8"))


@pytest.fixture
def sources(tmp_path):
    """A model and photos, with flags that are none of the defaults."""
    flags = ("--model", save_model(tmp_path / "model"), "--dataset", save_photos(tmp_path / "photos"))
    flags += ("--num_classes", 2, "--samples_per_class", 3, "--class_seed", 1, "--per_device_train_batch_size", 2)
    return (*flags, "--use_cpu", "--disable_tqdm", "true")


def test_a_run_is_repeated_from_its_record(sources, tmp_path, monkeypatch):
    flags = ("--method", "gradmask", "--second_order", "false", "--masks", "random", "--num_train_epochs", 2)
    flags += ("--learning_rate", 3e-3, "--max_grad_norm", 0.5, "--adam_beta2", 0.9, "--optim", "adamw_torch", "--bf16")
    flags += ("--lr_scheduler_type", "cosine", "--warmup_steps", 2, "--metric_for_best_model", "accuracy", "--seed", 5)
    flags += ("--dataloader_drop_last", "true", "--hub_token", "hf_secret", "--images_dir", tmp_path / "photos/images")
    finetune(monkeypatch, *sources, *flags, "--output_dir", tmp_path / "one")
    record = record_of(tmp_path / "one")
    settings = {"method": record["method"]} | record["arguments"] | record["hyper_parameters"]
    (tmp_path / "again.json").write_text(json.dumps(settings))
    finetune(monkeypatch, tmp_path / "again.json", "--output_dir", tmp_path / "two")
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.equal(two[name], weight) for name, weight in one.items())
    again = record_of(tmp_path / "two")
    del again["validation"], record["validation"]  # which have times
    assert again == record
    assert (record["precision"], record["hyper_parameters"]["max_grad_norm"]) == ("bf16", 0.5)
    assert record["versions"].keys() >= {"hf_robustvit", "torch", "transformers"}
    text = (tmp_path / "one" / "robustvit.json").read_text()
    assert not any(word in text for word in ("secret", "TOKEN", str(tmp_path / "one"), "photos/images"))


@pytest.fixture
def stopped(sources, tmp_path, monkeypatch):
    """The flags of a run that left checkpoints."""
    flags = (*sources, "--learning_rate", 1e-3, "--output_dir", tmp_path / "out")
    finetune(monkeypatch, *flags, "--num_train_epochs", 1)
    return (*flags, "--num_train_epochs", 2, "--resume_from_checkpoint", "true")


@pytest.mark.parametrize(
    ("flags", "difference"),
    [
        (("--method", "finetune"), "method was robustvit, now it is finetune"),
        (("--learning_rate", 2e-3), "learning_rate was 0.001, now it is 0.002"),
        (("--weight_decay", 0), "weight_decay was 0.0001, now it is 0.0"),
        (("--lambda_background", 7), "lambda_background was 2.0, now it is 7.0"),
        (("--num_classes", 3), "num_classes was 2, now it is 3"),
        (("--samples_per_class", 4), "training_images was 6 of these, now it is 8 with "),
        (("--class_seed", 2), "class_seed was 1, now it is 2"),
        (("--masks", "whole"), "masks was annotated, now it is whole"),
        (("--swap_backgrounds",), "swap_backgrounds was False, now it is True"),
        (("--seed", 1), "seed was 42, now it is 1"),
        (("--bf16",), "precision was no, now it is bf16"),
        (("--optim", "sgd"), "optim was adamw_torch_fused, now it is sgd"),
        (("--adam_beta2", 0.9), "adam_beta2 was left out, now it is 0.9"),
        (("--lr_scheduler_type", "cosine"), "lr_scheduler_type was step_decay, now it is cosine"),
        (("--lora_rank", 2), "lora_rank was None, now it is 2"),
        (("--trainable_layers", 1), "trainable_layers was None, now it is 1"),
        (("--metric_for_best_model", "accuracy"), "metric_for_best_model was loss, now it is accuracy"),
        (("--per_device_train_batch_size", 4), "accumulation_steps x processes was 2, now it is 4"),
    ],
)
def test_another_run_does_not_go_on_from_a_checkpoint(flags, difference, stopped, tmp_path, monkeypatch):
    before = record_of(tmp_path / "out")
    with pytest.raises(UserError, match=r"checkpoint-3 cannot be resumed with other settings \(.*") as error:
        finetune(monkeypatch, *stopped, *flags)
    assert difference in str(error.value)
    assert record_of(tmp_path / "out") == before


def test_what_may_change_is_recorded_as_it_is_now(stopped, tmp_path, monkeypatch):
    flags = ("--per_device_train_batch_size", 1, "--gradient_accumulation_steps", 2, "--logging_strategy", "no")
    finetune(monkeypatch, *stopped, *flags, "--save_total_limit", 1, "--dataloader_num_workers", 1)
    settings = record_of(tmp_path / "out")["hyper_parameters"]
    assert (settings["num_train_epochs"], settings["gradient_accumulation_steps"]) == (2, 2)
    assert (settings["save_total_limit"], settings["dataloader_num_workers"]) == (1, 1)


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"lr_scheduler_type": "step_decay"}, False),
        ({"lr_scheduler_type": "step_decay", "warmup_steps": 0.1}, True),
        ({"lr_scheduler_type": "constant"}, False),
        ({"lr_scheduler_type": "linear"}, True),
    ],
)
def test_more_epochs_are_refused_where_the_rate_depends_on_them(settings, refused, tmp_path):
    make_trainer(tmp_path, record={"dataset": "x"}, num_train_epochs=1, **settings).train()
    longer = make_trainer(tmp_path, record={"dataset": "x"}, num_train_epochs=2, **settings)
    if refused:
        with pytest.raises(UserError, match="num_train_epochs was 1, now it is 2"):
            longer.train(resume_from_checkpoint=True)
    else:
        longer.train(resume_from_checkpoint=True)
        assert longer.state.global_step == 4


def test_a_checkpoint_of_an_earlier_version_is_compared_in_what_it_records(tmp_path):
    make_trainer(tmp_path, record={"dataset": "x"}, num_train_epochs=1).train()
    path = tmp_path / "checkpoint-2" / "robustvit.json"
    record = json.loads(path.read_text())
    for name in ("versions", "precision"):
        del record[name]
    del record["hyper_parameters"]["optim"]
    record["hyper_parameters"]["lr_scheduler_type"] = "constant"  # which was decayed
    path.write_text(json.dumps(record))
    make_trainer(tmp_path, record={"dataset": "x", "arguments": {"num_classes": 3}}).train(resume_from_checkpoint=True)
    with pytest.raises(UserError, match="learning_rate was 0.001, now it is 0.1"):
        make_trainer(tmp_path, record={"dataset": "x"}, learning_rate=0.1).train(
            resume_from_checkpoint=str(path.parent)
        )


def test_nothing_that_differs_from_the_defaults_is_forgotten(tmp_path):
    config = make_trainer(tmp_path, adam_epsilon=1e-6, lr_scheduler_type="cosine", data_seed=0).args
    record = training_record(config, "no", {})
    assert record.hyper_parameters.items() >= {"adam_epsilon": 1e-6, "data_seed": 0}.items()
    assert record.hyper_parameters.keys().isdisjoint({"lr_decay", "accelerator_config", "output_dir", "lora_alpha"})


@pytest.mark.parametrize("batch_size", [{}, {"per_device_train_batch_size": "2"}])
def test_a_record_that_does_not_say_how_a_checkpoint_was_made_is_told(tmp_path, batch_size):
    TrainingRecord(hyper_parameters={"gradient_accumulation_steps": 1, **batch_size}).write(tmp_path)
    with pytest.raises(UserError, match="robustvit.json does not say how the checkpoint was made .KeyError: .*: name"):
        refuse_another_run(tmp_path, TrainingRecord())
