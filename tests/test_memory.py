"""What a batch leaves behind: no tensor, however it is explained and however that ends."""

import gc
import itertools

import datasets
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from planted_benchmarks import box_masks, dataset_of, photographs, vit
from tiny_models import rerun_layers, tiny_model
from tiny_pairs import collate, make_trainer, pairs

from hf_robustvit import explain
from hf_robustvit.commands.app import Classifier, ask
from hf_robustvit.data.benchmark_rows import BenchmarkRows
from hf_robustvit.evaluation.benchmark import evaluate_benchmark
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.loop import LoopOptions
from hf_robustvit.evaluation.run import BenchmarkData
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


def growth(call, times: int = 10) -> int:
    """The tensors that some calls leave behind when nothing looks for cycles."""
    call()  # what is made once
    gc.collect()
    gc.disable()
    try:
        before = num_tensors()
        for _ in range(times):
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
    model = tiny_model("vit").train()
    model.set_attn_implementation(attention)
    if checkpointing:
        rerun_layers(model)

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
        rerun_layers(model)
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


def test_an_evaluation_and_the_app_leave_no_tensor(tmp_path):
    model, processor = vit(5)
    paths = photographs(tmp_path / "images", count=6)
    rows = dataset_of(paths, [0] * 6, [f"c{index}" for index in range(5)])
    masks = [{"path": str(mask), "bytes": None} for mask in box_masks(paths, tmp_path / "masks")]
    rows = rows.add_column("mask", masks, feature=datasets.Image())
    data = BenchmarkData.for_model(BenchmarkRows("toy", rows, tests_masks=True), model.config)
    checkpoint, counter = Checkpoint("tiny", None, model, processor), itertools.count()
    shown = Classifier("Model", model, processor, tuple(model.config.id2label.values()))
    picture = Image.open(paths[0]).convert("RGB")

    def evaluate():
        folder = tmp_path / str(next(counter))  # what is finished would not run again
        evaluate_benchmark(checkpoint, data, folder, Accelerator(cpu=True), LoopOptions(batch_size=2), oracle=True)

    assert growth(evaluate, times=3) == 0
    assert growth(lambda: ask(shown, picture)) == 0
