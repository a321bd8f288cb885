"""A small saliency network as an ONNX file: foreground is what is brighter than grey."""

from pathlib import Path

import numpy as np
from onnx import GraphProto, TensorProto, helper, numpy_helper, save


def save_saliency(
    path: Path,
    size: tuple[int | str, int | str] = (24, 32),
    batch: int | str | None = 1,
    channels_last: bool = False,
    dtype: int = TensorProto.FLOAT,
    takes: int | None = None,
    last: str = "Sigmoid",
) -> Path:
    """Write a 3x3 convolution over the three channels and an activation.

    Args:
        path: The file.
        size: (height, width) of the input; names where they are free.
        batch: How many images it takes; a name or None where it is free.
        channels_last: Whether the input is (batch, height, width, 3).
        dtype: Of weights and output, and of the input if `takes` says nothing else.
        takes: The input's type.
        last: The activation; without a sigmoid the output is not in [0, 1].
    """
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    weights = [numpy_helper.from_array(np.full((1, 3, 3, 3), 4, dtype=kind), "weight")]
    order = [0, 3, 1, 2] if channels_last else [0, 1, 2, 3]
    nodes = [
        helper.make_node("Cast", ["image"], ["numbers"], to=dtype),
        helper.make_node("Transpose", ["numbers"], ["channels_first"], perm=order),
        helper.make_node("Conv", ["channels_first", "weight"], ["convolved"], pads=[1, 1, 1, 1]),
        helper.make_node(last, ["convolved"], ["map"]),
        helper.make_node("Neg", ["map"], ["another"]),  # networks have further outputs, which are not used
    ]
    shape = [batch, *size, 3] if channels_last else [batch, 3, *size]
    image = helper.make_tensor_value_info("image", takes or dtype, shape)
    outputs = [helper.make_tensor_value_info(name, dtype, [batch, 1, *size]) for name in ("map", "another")]
    return save_model(path, helper.make_graph(nodes, "saliency", [image], outputs, weights))


def save_model(path: Path, graph: GraphProto) -> Path:
    """Write a graph in versions that every onnxruntime reads."""
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path
