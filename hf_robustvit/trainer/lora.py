"""LoRA (Hu et al., 2022) through peft: low-rank matrices are trained in place of the layers' weights."""

from torch import nn
from transformers import PreTrainedModel

from hf_robustvit.errors import UserError
from hf_robustvit.models.loading import is_head


def add_lora(model: PreTrainedModel, rank: int, alpha: float) -> None:
    """Freeze a classifier but for its heads, and give every linear layer that was trained a pair of small matrices.

    One of the two starts at zero, so the model computes what it did before.

    Args:
        model: A classifier from `load_classifier`; it is changed in place and stays of its class.
        rank: Rows of the one matrix and columns of the other.
        alpha: Their product counts `alpha / rank`.

    Raises:
        UserError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError("--lora_rank needs the package peft: pip install peft.") from error
    trained = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.weight.requires_grad and not is_head(name)
    ]
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=trained), model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "lora_" in name or is_head(name)


def merge_lora(model: PreTrainedModel) -> None:
    """Add the products of the trained matrices to the weights; the classifier is then an ordinary one again."""
    from peft.tuners.lora import LoraLayer

    layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    for name, layer in layers.items():
        layer.merge()
        model.set_submodule(name, layer.get_base_layer())
