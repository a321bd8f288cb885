"""Which parameters are trained, LoRA's (Hu et al., 2022) among them, and the names they are saved by."""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming

from hf_robustvit.errors import UserError
from hf_robustvit.models.families import attention_of, backbone_of, layers_of
from hf_robustvit.models.loading import is_head


def freeze_below(model: PreTrainedModel, trainable_layers: int) -> None:
    """Freeze a classifier's embeddings and all but its last layers.

    Raises:
        UserError: It has not so many layers.
    """
    layers = layers_of(model)
    if not 0 <= trainable_layers <= len(layers):
        raise UserError(f"--trainable_layers is {trainable_layers}, but the model has {len(layers)} layers.")
    # CLIP's first norm, and the position bias that all of a BEiT's layers may share, come before the layers too.
    before = ("embeddings", "pre_layrnorm", "shared_position_bias")
    embeddings = [module for name, module in backbone_of(model).named_children() if name in before]
    for frozen in (*embeddings, *layers[: len(layers) - trainable_layers]):
        frozen.requires_grad_(False)


def freeze_all_but_attention(model: PreTrainedModel, keep_head: bool) -> None:
    """Freeze what is still trained of a classifier but its layers' attention: queries, keys, values and the output.

    Touvron et al., "Three things everyone should know about Vision Transformers" (2022): attention alone suffices for
    fine-tuning. The weights that hold what the model knows of its classes, the MLPs and the head, then stay.

    Args:
        model: A classifier from `load_classifier`, perhaps already frozen below a layer.
        keep_head: Whether the head is trained too, as it must where it is new.

    Raises:
        UserError: No attention is trained.
    """
    attention = {id(weight) for layer in layers_of(model) for weight in attention_of(layer).parameters()}
    for name, weight in model.named_parameters():
        if id(weight) not in attention and not (keep_head and is_head(name)):
            weight.requires_grad_(False)
    if not any(weight.requires_grad for weight in model.parameters() if id(weight) in attention):
        raise UserError("--attention_only trains no weight with --trainable_layers 0: leave one of the two out.")


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
        # SigLIP's pooling has a linear layer of a class of its own, whose weight torch reads without calling it.
        if type(module) is nn.Linear and module.weight.requires_grad and not is_head(name)
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


def accept_saved_names(model: PreTrainedModel) -> None:
    """Let `load_state_dict` take the names that `save_pretrained` writes.

    transformers 5 saves a ViT under the names of version 4, and its Trainer, which resumes and returns to the best
    checkpoint through `load_state_dict`, would only warn of the missing weights and keep the ones it has.
    """
    renamings = [entry for entry in get_model_conversion_mapping(model) if isinstance(entry, WeightRenaming)]

    def rename(module: nn.Module, state_dict: dict[str, torch.Tensor], prefix: str, *args) -> None:
        for name in list(state_dict):
            renamed = name
            for entry in renamings:
                renamed, _ = entry.rename_source_key(renamed)
            state_dict[renamed] = state_dict.pop(name)

    model.register_load_state_dict_pre_hook(rename)
