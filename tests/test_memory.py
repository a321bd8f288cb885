"""What a batch leaves behind: no tensor, however it is explained and however that ends."""

import gc

import pytest
import torch
from tiny_models import tiny_model
from tiny_pairs import collate, make_trainer, pairs

from hf_robustvit import explain
from hf_robustvit.losses import FinetuneLoss, GradMaskLoss, RobustViTLoss, RRRLoss


BATCH = collate(pairs(2))
IMAGES = BATCH["pixel_values"]


def explained(model):
    explain(model, IMAGES)


def loss_of(loss):
    return lambda model: loss(model, IMAGES, BATCH["masks"], BATCH["labels"])


CALLS = {
    "explain": explained,
    "robustvit": loss_of(RobustViTLoss()),
    "gradmask": loss_of(GradMaskLoss(second_order=False)),
    "rrr": loss_of(RRRLoss(second_order=False)),
    "finetune": loss_of(FinetuneLoss()),
}


def growth(call) -> int:
    """The tensors that ten calls leave behind when nothing looks for cycles."""
    call()  # what is made once
    gc.collect()
    gc.disable()
    try:
        before = num_tensors()
        for _ in range(10):
            call()
        return num_tensors() - before
    finally:
        gc.enable()


def num_tensors() -> int:
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


@pytest.fixture(params=[False, True], ids=["kept", "checkpointing"])
def checkpointing(request):
    return request.param


@pytest.mark.parametrize("attention", ["eager", "lean"])
@pytest.mark.parametrize("gradients", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", CALLS)
def test_a_batch_leaves_no_tensor(name, gradients, attention, checkpointing):
    if gradients is torch.inference_mode and name in ("gradmask", "rrr"):
        pytest.skip("gradients in the pixels are not for inference mode")
    model = tiny_model("vit").train()
    model.set_attn_implementation(attention)
    if checkpointing:
        model.activation_checkpointing_enable()

    def call():
        with gradients():
            CALLS[name](model)

    assert growth(call) == 0


@pytest.mark.parametrize("attention", ["eager", "lean"])
@pytest.mark.parametrize("place", ["layernorm", "classifier"])
def test_an_exception_leaves_no_tensor_and_the_model_as_it_was(attention, place, checkpointing):
    model = tiny_model("vit").train()
    model.set_attn_implementation(attention)
    if checkpointing:
        model.activation_checkpointing_enable()
    wanted = explain(model, IMAGES).relevance

    def fail(*args):
        raise RuntimeError("stopped")

    def call():
        with pytest.raises(RuntimeError, match="stopped"):
            explain(model, IMAGES)

    module = model.vit.layernorm if place == "layernorm" else model.classifier
    with module.register_forward_hook(fail):
        assert growth(call) == 0
    torch.testing.assert_close(explain(model, IMAGES).relevance, wanted)


@pytest.mark.parametrize("attention", ["eager", "lean"])
@pytest.mark.parametrize("method", ["robustvit", "finetune"])
def test_evaluating_leaves_no_tensor(tmp_path, method, attention):
    model = tiny_model("vit")
    model.set_attn_implementation(attention)
    trainer = make_trainer(tmp_path, model=model, method=method, per_device_eval_batch_size=1, report_to="none")
    assert growth(trainer.evaluate) == 0
