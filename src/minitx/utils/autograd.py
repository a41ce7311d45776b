"""A typed call of functions that define their own gradient."""

from typing import Any

from torch.autograd import Function


def apply_function(function: type[Function], *arguments: Any) -> Any:
    """Call `function.apply`, which torch leaves untyped: the result is recorded for the backward pass."""
    return function.apply(*arguments)
