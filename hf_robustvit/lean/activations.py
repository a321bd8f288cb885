"""Activations that the backward pass computes again, because that is much cheaper than keeping them."""

from dataclasses import dataclass

import torch
from torch.autograd.graph import Node, saved_tensors_hooks
from torch.nn import functional as F


def recompute_cheap_activations() -> saved_tensors_hooks:
    """A context in whose forward passes the results of GELU and LayerNorm are not kept for the backward pass.

    Both operations keep their inputs, and the linear layers after them would keep their results: in a ViT six of the
    sixteen numbers that are kept for each token, layer and hidden unit. A backward pass computes these again, to
    rounding error. Its gradients cannot be differentiated again.
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
    # From the mean and the inverse standard deviation, which are kept: the epsilon inside of it is not.
    hidden_states = node._saved_input
    dtype = torch.promote_types(hidden_states.dtype, torch.float32)
    normalized = (hidden_states.to(dtype) - node._saved_result1).mul_(node._saved_result2)
    return torch.addcmul(node._saved_bias.to(dtype), normalized, node._saved_weight.to(dtype)).to(hidden_states.dtype)


_RECOMPUTE = {"GeluBackward0": _gelu, "NativeLayerNormBackward0": _layer_norm}


def _pack(tensor: torch.Tensor) -> torch.Tensor | _Recipe:
    # Linear layers keep a view of what they are given, of shape (batch * tokens, features).
    node = (tensor if tensor._base is None else tensor._base).grad_fn
    if node is None or node.name() not in _RECOMPUTE:
        # Not the tensor itself: an operation that keeps its own result, as SDPA does, would then keep itself for ever.
        return tensor.detach()
    return _Recipe(node, tensor.size(), tensor.stride(), tensor.storage_offset())


def _unpack(packed: torch.Tensor | _Recipe) -> torch.Tensor:
    if isinstance(packed, torch.Tensor):
        return packed
    with torch.no_grad():
        result = _RECOMPUTE[packed.node.name()](packed.node)
    return result.as_strided(packed.size, packed.stride, packed.storage_offset)
