"""Functions that define their own gradient: a typed call, and where the CPU's are used."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def apply_function(function: type[Function], *arguments: Any) -> Any:
    """Call `function.apply`, which torch leaves untyped: the result is recorded for the backward pass."""
    return function.apply(*arguments)


def on_cpu(x: Tensor) -> bool:
    """Return whether what was written for CPUs is used. A compiler gets what GPUs run, and writes its own for CPUs."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()
