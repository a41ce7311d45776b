"""ONNX graphs built an operator at a time, and the one file in which several graphs keep their weights.

No tracing: a graph holds what is asked for here, for any batch and any length.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

OPSET, IR_VERSION = 18, 10  # of 2022 and 2024, which runtimes have had time to learn
MICROSOFT = "com.microsoft"  # onnxruntime's own operators
FLOAT, DOUBLE, INT32, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT32, TensorProto.INT64
ALIGNMENT = 4096  # bytes: a runtime can then map each tensor into memory as it lies in the file
INLINE = 1024  # bytes; what is smaller is stored in the graph itself

Value = str  # the name of a tensor
Shape = Sequence[str | int]  # a name = any size, the same wherever it stands


def identity(tensor: Tensor) -> tuple[object, ...]:
    """Return what two tensors share if they are one, as tied weights are; as long as both are held."""
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


class Weights:
    """A file beside the graphs, which holds a tensor once, however many of them read it."""

    def __init__(self, path: Path, names: Mapping[int, str]) -> None:
        """names: what the model calls a tensor, by where it lies in memory; for those who look at a graph"""
        self.path, self.names, self._file = path, names, path.open("wb")
        self._places: dict[object, int] = {}
        self._rounded: dict[object, tuple[Tensor, Tensor]] = {}
        self._held: list[Tensor] = []

    def __enter__(self) -> "Weights":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def place(self, tensor: Tensor) -> int:
        """Write a tensor if it is new. --> the byte at which it begins"""
        key = identity(tensor)
        if key not in self._places:
            self._held.append(tensor)
            self._file.write(bytes(-self._file.tell() % ALIGNMENT))
            self._places[key] = self._file.tell()
            self._file.write(tensor.contiguous().numpy().tobytes())
        return self._places[key]

    def rounded(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Round to int8, each row's largest number to 127. [..., rows, D] --> int8 of that shape, scales [..., rows]"""
        matrix = matrix.detach()
        key = identity(matrix)
        if key not in self._rounded:
            self._held.append(matrix)
            scale = matrix.abs().amax(-1).clamp_min(1e-30) / 127
            self._rounded[key] = (matrix / scale[..., None]).round().char(), scale
        return self._rounded[key]


class Graph:
    """One graph in the making. A method that adds an operator returns the names of what it computes."""

    def __init__(self, name: str, weights: Weights, quantization: str | None = None) -> None:
        """quantization: None, or "int8" = products with matrices in int8"""
        self.name, self.weights, self.int8 = name, weights, quantization == "int8"
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: list[TensorProto] = []
        self._names: dict[object, Value] = {}  # of these
        self._held: list[Tensor] = []

    def input(self, name: str, shape: Shape, dtype: int = FLOAT) -> Value:
        """Declare an input."""
        self._inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, name: str, value: Value, shape: Shape) -> None:
        """Name an output, of float."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, FLOAT, shape))

    def weight(self, tensor: Tensor) -> Value:
        """Read a tensor of the model, or one made of it."""
        tensor = tensor.detach()
        key = identity(tensor)
        if key not in self._names:
            self._held.append(tensor)
            kind = self.weights.names.get(tensor.data_ptr(), "weight")
            name = self._names[key] = f"{kind}_{len(self._tensors)}"
            self._tensors.append(self._stored(name, tensor))
        return self._names[key]

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> Value:
        """Read a number, or a small array of them."""
        array = np.asarray(value, dtype)
        key = array.tobytes(), array.shape, array.dtype
        if key not in self._names:
            name = self._names[key] = f"constant_{len(self._tensors)}"
            self._tensors.append(numpy_helper.from_array(array, name))
        return self._names[key]

    def ints(self, *values: int) -> Value:
        """Read a list of integers: a shape, or axes."""
        return self.constant(values, np.int64)

    def op(self, kind: str, *inputs: Value, **attributes: Any) -> Value:
        """Add an operator with one result."""
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(self, kind: str, results: int, *inputs: Value, **attributes: Any) -> list[Value]:
        """Add an operator with several results."""
        names = [f"{kind}_{len(self._nodes)}_{i}" for i in range(results)]
        self._nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def model(self) -> onnx.ModelProto:
        """Return the finished graph."""
        graph = helper.make_graph(self._nodes, self.name, self._inputs, self._outputs, self._tensors)
        own = {MICROSOFT: 1} if any(node.domain == MICROSOFT for node in self._nodes) else {}
        return helper.make_model(graph, producer_name="minitx", ir_version=IR_VERSION, opset_imports=[
            helper.make_opsetid(domain, version) for domain, version in {"": OPSET, **own}.items()])

    def _stored(self, name: str, tensor: Tensor) -> TensorProto:
        if tensor.nbytes < INLINE:
            return numpy_helper.from_array(tensor.contiguous().numpy(), name)
        place = {"location": self.weights.path.name, "offset": self.weights.place(tensor), "length": tensor.nbytes}
        dtype = helper.np_dtype_to_tensor_dtype(tensor[:0].numpy().dtype)
        stored = TensorProto(name=name, dims=tensor.shape, data_type=dtype, data_location=TensorProto.EXTERNAL)
        for key, value in place.items():
            stored.external_data.add(key=key, value=str(value))
        return stored
