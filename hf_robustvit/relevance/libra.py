"""LibraGrad's rules (Mehri et al., "LibraGrad: Balancing Gradient Flow for Universally Better Vision Transformer
Attributions", CVPR 2025) for the backward pass of a map, and for that one alone.

A ViT's gradient is out of balance where the factors that scale a signal depend on it. Held constant are the standard
deviation in LayerNorm (and the length in a cosine), the gate in the activation (GELU is x * gate(x), SiLU too) and
the attention weights: then every operation is affine in its input, and inputs and biases times their gradients add up
to the score.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch.autograd.graph import Node
from torch.utils.checkpoint import CheckpointError

from hf_robustvit.errors import UserError


Gradients = tuple[torch.Tensor | None, ...]
Rule = Callable[[Gradients, Gradients], Gradients]  # of a node, from those to its inputs and to its outputs


@contextlib.contextmanager
def libra_rules(score: torch.Tensor) -> Iterator[None]:
    """A context in which backward passes from a score follow LibraGrad's rules; others are as ever.

    The forward pass that the score is from needs no preparation: the rules are hooks on the nodes of its graph. So
    the same graph gives the loss its true gradient after the context.

    Args:
        score: Of any classifier of `models.families`, under eager or lean attention.

    Raises:
        UserError: The graph shows no attention or no LayerNorm, or, within the context, the model's activations are
            not kept (gradient checkpointing).
    """
    nodes = _nodes(score.grad_fn)
    factors = {child for node in nodes if node.name() in _COMBINES for child, _ in node.next_functions}
    rules = {node: rule for node in nodes if (rule := _rule(node, node in factors))}
    found = " ".join(node.name() for node in rules)
    if "LayerNorm" not in found or not any(name in found for name in ("Softmax", *_ATTENDS)):
        raise UserError(
            f"The method libra finds no attention or no LayerNorm in the graph of torch {torch.__version__}: take the "
            "method gae."
        )
    handles = [node.register_hook(rule) for node, rule in rules.items()]
    try:
        yield
    except CheckpointError as error:
        raise UserError(
            "The method libra needs the activations that gradient checkpointing throws away: switch checkpointing "
            "off, or take the method gae."
        ) from error
    finally:
        for handle in handles:
            handle.remove()


def _nodes(root: Node) -> set[Node]:
    """All nodes of the graph from one on."""
    found, waiting = {root}, [root]
    while waiting:
        new = {node for node, _ in waiting.pop().next_functions if node is not None} - found
        found |= new
        waiting += new
    return found


def _rule(node: Node, is_factor: bool) -> Rule | None:
    """What replaces the gradients that a node hands on; None where they stay."""
    name = node.name()
    if name.startswith(_ATTENDS):
        return _value_alone
    if name in _SCALES or name in _GATES and is_factor:
        return _constant
    return partial(_RULES[name], node) if name in _RULES else None


def _constant(to_inputs: Gradients, to_outputs: Gradients) -> Gradients:
    return (None,) * len(to_inputs)


def _value_alone(to_inputs: Gradients, to_outputs: Gradients) -> Gradients:
    """Of attention, whose inputs are query, key, value and, for some kernels, a mask."""
    return None, None, to_inputs[2], *(None,) * (len(to_inputs) - 3)


def _layer_norm(node: Node, to_inputs: Gradients, to_outputs: Gradients) -> Gradients:
    inverse_std = node._saved_result2
    if torch.is_grad_enabled():
        # For a second derivative: what was kept is no function of the input, and the epsilon in it is not told.
        variance = node._saved_input.to(inverse_std.dtype).var(dim=-1, correction=0, keepdim=True)
        inverse_std = (inverse_std.detach() ** -2 + variance - variance.detach()) ** -0.5
    gradient = to_outputs[0] * node._saved_weight * inverse_std
    return (gradient - gradient.mean(dim=-1, keepdim=True)).to(to_inputs[0].dtype), *to_inputs[1:]


def _gelu(node: Node, to_inputs: Gradients, to_outputs: Gradients) -> Gradients:
    hidden_states = node._saved_self
    if node._saved_approximate == "tanh":
        gate = (1 + (math.sqrt(2 / math.pi) * (hidden_states + 0.044715 * hidden_states**3)).tanh()) / 2
    else:
        gate = torch.special.ndtr(hidden_states)
    return (to_outputs[0] * gate,)


def _silu(node: Node, to_inputs: Gradients, to_outputs: Gradients) -> Gradients:
    return (to_outputs[0] * node._saved_self.sigmoid(),)


_RULES = {"NativeLayerNormBackward0": _layer_norm, "GeluBackward0": _gelu, "SiluBackward0": _silu}
# SDPA, and what lean attention takes in its place.
_ATTENDS = ("ScaledDotProduct", "_PlainAttention")
# Attention weights under eager attention, and where SDPA falls back on plain products; the length in a cosine.
_SCALES = ("SoftmaxBackward0", "SafeSoftmaxBackward0", "LinalgVectorNormBackward0")
# Where one of these is a factor of a product (1 + tanh(x) too) it is a gate: of quick_gelu, gelu_new, SwiGLU.
_GATES = ("SigmoidBackward0", "TanhBackward0", "ErfBackward0", "SiluBackward0")
_COMBINES = ("MulBackward0", "AddBackward0")
