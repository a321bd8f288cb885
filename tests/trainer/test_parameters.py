"""LoRA: little is trained, what is saved is an ordinary model, and a resumed run ends like an undisturbed one."""

import pytest
import torch
from safetensors.torch import load_file
from test_trainer import StopAfter
from tiny_models import FAMILIES, tiny_model
from tiny_pairs import collate, make_trainer, pairs
from torch import nn

from hf_robustvit.config import RobustViTConfig
from hf_robustvit.errors import UserError
from hf_robustvit.models.families import head_reads
from hf_robustvit.models.loading import is_head
from hf_robustvit.relevance import explain
from hf_robustvit.trainer.parameters import add_lora, merge_lora


def linear_layers(model) -> set[str]:
    """Without CLIP's frozen text tower, and SigLIP's head, which a classifier that reads the mean does not use."""
    unused = () if head_reads(model) == "attention pooling" else ("vision_model.head",)
    return {
        f"{name}.weight"
        for name, module in model.named_modules()
        if type(module) is nn.Linear and not name.startswith(("text_", *unused))
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_the_saved_model_is_an_ordinary_one(family, tmp_path):
    model = tiny_model(family)
    before, linear = {name: weight.clone() for name, weight in model.state_dict().items()}, linear_layers(model)
    trainer = make_trainer(tmp_path, model=model, lora_rank=2)
    trainer.train()
    trainer.save_model()
    saved = type(model).from_pretrained(tmp_path, attn_implementation="eager").state_dict()
    moved = {name for name in saved if not torch.equal(saved[name], before[name])}
    assert moved == linear | {name for name in before if is_head(name)}
    for name in linear:
        if not is_head(name):
            assert torch.linalg.matrix_rank(saved[name] - before[name], rtol=1e-3) <= 2, name
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(saved[name], weight), name


def test_it_starts_as_the_model_and_trains_little():
    model, pixel_values = tiny_model("vit"), collate(pairs(3))["pixel_values"]
    wanted = explain(model, pixel_values)
    add_lora(model, rank=2, alpha=16)
    found = explain(model, pixel_values)
    torch.testing.assert_close(found.relevance, wanted.relevance)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all("lora_" in name or is_head(name) for name in trained)
    assert found.relevance.requires_grad


def test_merging_changes_nothing_but_the_form():
    model, pixel_values = tiny_model("vit"), collate(pairs(3))["pixel_values"]
    names = set(model.state_dict())
    add_lora(model, rank=2, alpha=16)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    wanted = explain(model, pixel_values)
    merge_lora(model)
    assert set(model.state_dict()) == names
    torch.testing.assert_close(explain(model, pixel_values).relevance, wanted.relevance, rtol=1e-4, atol=1e-5)


def test_the_last_layers_alone(tmp_path):
    model = tiny_model("vit", num_hidden_layers=3)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    make_trainer(tmp_path, model=model, lora_rank=2, trainable_layers=1).train()
    moved = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
    assert moved == {name for name in linear_layers(model) if "layers.2." in name or is_head(name)} | {
        "classifier.bias"
    }


def test_a_resumed_run_ends_like_an_undisturbed_one(tmp_path):
    settings = {"num_train_epochs": 4, "per_device_train_batch_size": 4, "lora_rank": 2, "seed": 5}

    def run(folder, callbacks=None, resume=None):
        torch.manual_seed(5)  # the matrices start at random
        trainer = make_trainer(tmp_path / folder, callbacks=callbacks, **settings)
        trainer.train(resume_from_checkpoint=resume)
        trainer.save_model()
        return load_file(tmp_path / folder / "model.safetensors"), trainer.state.log_history[-2]["eval_loss"]

    wanted, wanted_loss = run("undisturbed")
    run("stopped", callbacks=[StopAfter(6)])
    found, loss = run("stopped", resume=True)
    assert loss == wanted_loss
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert torch.equal(found[name], wanted[name]), name


def test_a_rank_of_zero_is_an_error(tmp_path):
    with pytest.raises(UserError, match="--lora_rank is 0: give a positive number"):
        RobustViTConfig(output_dir=str(tmp_path), lora_rank=0)


def test_a_peft_model_is_explained_as_the_classifier_inside():
    peft = pytest.importorskip("peft")
    pixel_values = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    target, model = torch.tensor([1, 2]), tiny_model("vit")
    before = explain(model, pixel_values, target).patch_relevance
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"])).eval()
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data += 0.1
    found = explain(wrapped, pixel_values, target).patch_relevance
    expected = explain(wrapped.merge_and_unload(), pixel_values, target).patch_relevance
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6) and not torch.allclose(found, before, rtol=1e-2)
