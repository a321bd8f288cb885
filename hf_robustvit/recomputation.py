"""Activations that the backward pass computes again, because that is much cheaper than keeping them."""

from dataclasses import dataclass

import torch
from torch.autograd.graph import Node, saved_tensors_hooks
from torch.nn import functional as F


def recompute_cheap_activations() -> saved_tensors_hooks:
    """A context in whose forward passes the results of GELU and LayerNorm are not kept for the backward pass.

    Both operations keep their own inputs, and the linear layers that follow them keep their results, which in a ViT
    are six of the sixteen activations per token and layer (in units of the hidden size). A backward pass computes
    these again from what the operations keep, to rounding error. The gradients cannot be differentiated again.
    """
    return saved_tensors_hooks(_pack, _unpack)


@dataclass(frozen=True)
class _Recipe:
    """How to get a tensor back: it views the result of a GELU or LayerNorm node of the graph."""

    node: Node
    size: torch.Size
    stride: tuple[int, ...]
    storage_offset: int


def _gelu(node: Node) -> torch.Tensor:
    return F.gelu(node._saved_self, approximate=node._saved_approximate)


def _layer_norm(node: Node) -> torch.Tensor:
    mean, inverse_deviation = node._saved_result1, node._saved_result2
    tensors = (node._saved_input, node._saved_weight, node._saved_bias)
    hidden_states, weight, bias = (tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors)
    return torch.addcmul(bias, (hidden_states - mean).mul_(inverse_deviation), weight).to(tensors[0].dtype)


_RECOMPUTE = {"GeluBackward0": _gelu, "NativeLayerNormBackward0": _layer_norm}


def _pack(tensor: torch.Tensor) -> torch.Tensor | _Recipe:
    node = (tensor if tensor._base is None else tensor._base).grad_fn
    if node is None or node.name() not in _RECOMPUTE:
        return tensor
    return _Recipe(node, tensor.size(), tensor.stride(), tensor.storage_offset())


def _unpack(packed: torch.Tensor | _Recipe) -> torch.Tensor:
    if isinstance(packed, torch.Tensor):
        return packed
    with torch.no_grad():
        result = _RECOMPUTE[packed.node.name()](packed.node)
    return result.as_strided(packed.size, packed.stride, packed.storage_offset)
