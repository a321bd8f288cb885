"""Activations that the backward pass computes again, because that is much cheaper than keeping them."""

import contextlib
import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.autograd.graph import Node, saved_tensors_hooks
from torch.nn import functional as F

from hf_robustvit.errors import first_line


logger = logging.getLogger(__name__)


class Recomputation:
    """What the backward passes of some forward passes do about the activations that were not kept."""

    def __init__(self):
        self._are_read = True

    @contextlib.contextmanager
    def left_out(self) -> Iterator[None]:
        """A context for backward passes that ask for no weight's gradient: nothing is computed again in them.

        Autograd hands a linear layer its input in any case, but only the gradient of its weight depends on it. NaN
        stands for it. Other operations may need what they kept, and some would hide a NaN: clipping makes its gradient
        0. A linear layer's input is told from theirs by its shape, that of a matrix.
        """
        self._are_read = False
        try:
            yield
        finally:
            self._are_read = True

    def unpack(self, packed: "torch.Tensor | _Recipe") -> torch.Tensor:
        """The tensor behind what was kept of it."""
        if self._are_read or isinstance(packed, torch.Tensor) or len(packed.size) != 2:
            return _unpack(packed)
        return torch.full((), torch.nan, dtype=packed.dtype, device=packed.device).expand(packed.size)


@contextlib.contextmanager
def recompute_cheap_activations() -> Iterator[Recomputation]:
    """A context in whose forward passes the results of GELU and LayerNorm are not kept for the backward pass.

    Both operations keep their inputs, and the linear layers after them would keep their results: in a ViT six of the
    sixteen numbers that are kept for each token, layer and hidden unit. A backward pass computes these again, to
    rounding error. Its gradients cannot be differentiated again. With a torch whose graph does not look as expected,
    the context does nothing.
    """
    recomputation = Recomputation()
    hooks = saved_tensors_hooks(_pack, recomputation.unpack) if _graph_is_as_expected() else contextlib.nullcontext()
    with hooks:
        yield recomputation


@functools.cache
def _graph_is_as_expected() -> bool:
    """Whether autograd's private names, which the recipes below read, are there and give the results back."""
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        inputs = torch.linspace(-2, 2, 12).view(1, 3, 4).requires_grad_()
        weight, bias = torch.linspace(0.5, 1, 4), torch.linspace(-1, 1, 4)
        results = [F.gelu(inputs), F.gelu(inputs, approximate="tanh"), F.layer_norm(inputs, (4,), weight, bias)]
        try:
            for result in results:
                packed = _pack(result.view(3, 4))
                if not isinstance(packed, _Recipe):
                    raise RuntimeError(f"unknown node {result.grad_fn.name()}")
                torch.testing.assert_close(_unpack(packed), result.detach().view(3, 4))
        except (AttributeError, TypeError, RuntimeError, AssertionError) as error:
            logger.warning(
                f"torch {torch.__version__} keeps other things for the backward pass than expected "
                f"({first_line(error)}): activations are kept instead of recomputed, which takes more memory."
            )
            return False
    return True


@dataclass(frozen=True)
class _Recipe:
    """How to get a tensor back: it views the result of a GELU or LayerNorm node of the graph."""

    node: Node
    dtype: torch.dtype
    device: torch.device
    size: torch.Size
    stride: tuple[int, ...]
    storage_offset: int


def _gelu(node: Node) -> torch.Tensor:
    return F.gelu(node._saved_self, approximate=node._saved_approximate)


def _layer_norm(node: Node) -> torch.Tensor:
    # From the mean and the inverse standard deviation, which are kept: the epsilon inside of it is not.
    # Its result is contiguous, whatever its input is: without a CLS token the patches come as a transposed view.
    hidden_states = node._saved_input.contiguous()
    dtype = torch.promote_types(hidden_states.dtype, torch.float32)
    normalized = (hidden_states.to(dtype) - node._saved_result1).mul_(node._saved_result2)
    return torch.addcmul(node._saved_bias.to(dtype), normalized, node._saved_weight.to(dtype)).to(hidden_states.dtype)


_RECOMPUTE = {"GeluBackward0": _gelu, "NativeLayerNormBackward0": _layer_norm}


def _pack(tensor: torch.Tensor) -> torch.Tensor | _Recipe:
    # Linear layers keep a view of what they are given, of shape (batch * tokens, features).
    node = (tensor if tensor._base is None else tensor._base).grad_fn
    if node is None or node.name() not in _RECOMPUTE:
        # Not the tensor itself: an operation that keeps its own result, as SDPA does, would then never be freed.
        return tensor.detach()
    return _Recipe(node, tensor.dtype, tensor.device, tensor.size(), tensor.stride(), tensor.storage_offset())


def _unpack(packed: torch.Tensor | _Recipe) -> torch.Tensor:
    if isinstance(packed, torch.Tensor):
        return packed
    with torch.no_grad():
        result = _RECOMPUTE[packed.node.name()](packed.node)
    return result.as_strided(packed.size, packed.stride, packed.storage_offset)
