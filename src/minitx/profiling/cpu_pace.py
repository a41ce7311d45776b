"""How long an operator takes on a CPU, from what was measured there: products by shape, passes over memory by size.

A CPU works on one operator after the other, so an update takes the sum of its operators, and of what calling each costs
on top. Between measured sizes, times are interpolated along straight lines of logarithms.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from math import exp, log, prod

from minitx.profiling.kernels import Kernel
from minitx.profiling.timeline import Taken

CURVES = {  # of operators by name; of all other copies it is "copy", of all others "add"
    "fill": {"zeros", "zeros_like", "new_zeros", "fill_", "zero_", "full", "ones", "ones_like"},
    "lookup": {"embedding", "index_select", "index", "take", "put_", "index_put", "index_put_", "index_add_"},
    "tanh": {"tanh", "log", "exp", "sin", "cos"}, "sigmoid": {"sigmoid"}, "compare": {"ge", "eq", "bitwise_not"},
    "softmax": {"softmax", "_softmax"}, "softmax_backward": {"_softmax_backward_data"},
    "norm": {"native_layer_norm"}, "norm_backward": {"native_layer_norm_backward"},
    "sum": {"sum", "mean"}, "adamw": {"_fused_adamw_"}, "random": {"numpy.random_raw"},
}


@dataclass(frozen=True)
class Grid:
    """A rate, measured at each combination of some sizes; beyond them it is that of the nearest."""

    axes: tuple[tuple[float, ...], ...]
    rates: tuple[float, ...]  # the last axis varies fastest

    def at(self, *sizes: float) -> float:
        """Return the rate at these sizes."""
        ends = [_ends(axis, size) for axis, size in zip(self.axes, sizes, strict=True)]
        return exp(sum(prod(weight for _, weight in corner) * log(self.rates[self._place(n for n, _ in corner)])
                       for corner in product(*ends)))

    def _place(self, numbers: Iterable[int]) -> int:
        place = 0
        for axis, number in zip(self.axes, numbers, strict=True):
            place = place * len(axis) + number
        return place


@dataclass(frozen=True)
class Curve:
    """Seconds of one operator over the bytes that it moves: as long as the smallest at least, then in proportion."""

    nbytes: tuple[float, ...]
    seconds: tuple[float, ...]

    def at(self, nbytes: float) -> float:
        """Return the seconds for so many bytes."""
        if nbytes >= self.nbytes[-1]:
            return self.seconds[-1] * nbytes / self.nbytes[-1]
        return exp(sum(weight * log(self.seconds[n]) for n, weight in _ends(self.nbytes, nbytes)))

    @property
    def bytes_s(self) -> float:
        """Return the bytes a second of the largest size, which no cache holds."""
        return self.nbytes[-1] / self.seconds[-1]


def _ends(axis: tuple[float, ...], size: float) -> list[tuple[int, float]]:
    """Return the places on an axis between which a size lies, and their weights."""
    if not axis[0] < size < axis[-1]:
        return [(0 if size <= axis[0] else len(axis) - 1, 1.0)]
    upper = bisect_right(axis, size)
    share = log(size / axis[upper - 1]) / log(axis[upper] / axis[upper - 1])
    return [(upper - 1, 1 - share), (upper, share)]


@dataclass(frozen=True)
class CPUConstants:
    """What was measured on a CPU (`cpu_bench.py`)."""

    products: Grid  # FLOP/s by rows, columns, inner
    batched: Grid  # as many small ones at once
    lstm_forward: Grid  # FLOP/s of a layer by sentences and width
    lstm_backward: Grid
    passes: Mapping[str, Curve]
    called_s: Mapping[str, float]  # of an operator on top, by phase
    view_s: float


@dataclass(frozen=True)
class CPUParts:
    """Which parts of the model of a CPU are on; each is left out to see what it is worth."""

    shapes: bool = True  # small and narrow products run at a rate of their own; else all at the best
    recurrence: bool = True  # so does the recurrence of an LSTM; else at that of its products
    passes: bool = True  # what is no product takes time
    cache: bool = True  # less does what is small enough for a cache; else all comes from memory
    kinds: bool = True  # exponentials, rows, random numbers have a rate of their own; else all are as fast as a sum
    calls: bool = True  # an operator takes time to call


ALL = CPUParts()


@dataclass(frozen=True)
class CPUPace:
    """A CPU under measured constants: how long a kernel takes there."""

    constants: CPUConstants
    parts: CPUParts = ALL

    def kernel(self, kernel: Kernel) -> Taken:
        """Return how long an operator takes, and how long it takes to call."""
        if kernel.kind == "view":
            return Taken(0.0, self.constants.view_s if self.parts.calls else 0.0, 0.0)
        work_s = self.pass_s(kernel) if kernel.product is None or is_pass(kernel) else self.product_s(kernel)
        return Taken(work_s, self.constants.called_s[kernel.phase] if self.parts.calls else 0.0, 1.0)

    def product_s(self, kernel: Kernel) -> float:
        """Return the seconds of products."""
        assert kernel.product is not None
        batch, rows, columns, inner = kernel.product
        constants = self.constants
        if not self.parts.shapes:
            rate = max(constants.products.rates)
        elif kernel.name.startswith("onednn.lstm") and self.parts.recurrence:
            grid = constants.lstm_forward if kernel.name.endswith("forward") else constants.lstm_backward
            rate = grid.at(rows, inner / 2)
        else:
            rate = (constants.products if batch == 1 else constants.batched).at(rows, columns, inner)
        return kernel.flop / rate

    def pass_s(self, kernel: Kernel) -> float:
        """Return the seconds of a pass over memory, or of one over each tensor of a list."""
        if not self.parts.passes:
            return 0.0
        curve = self.constants.passes[curve_of(kernel) if self.parts.kinds else "add"]
        if not self.parts.cache:
            return kernel.nbytes / curve.bytes_s
        return kernel.launches * curve.at(kernel.nbytes / kernel.launches)


def is_pass(kernel: Kernel) -> bool:
    """Tell whether a product with one vector takes as long as its matrix takes to read."""
    return kernel.product is not None and kernel.product[2] == 1


def curve_of(kernel: Kernel) -> str:
    """Return which of the measured passes an operator is like."""
    name = kernel.name.removeprefix("aten.")
    return next((curve for curve, names in CURVES.items() if name in names), "copy" if kernel.kind == "copy" else "add")


def seconds_by_kind(kernels: Iterable[Kernel], pace: CPUPace) -> dict[str, float]:
    """Predict an update: the seconds of its operators by kind, and of all calls."""
    found = defaultdict[str, float](float)
    for kernel in kernels:
        taken = pace.kernel(kernel)
        found["recurrence" if kernel.steps > 1 else kernel.kind] += taken.work_s
        found["calls"] += taken.floor_s
    return {kind: seconds for kind, seconds in found.items() if seconds}
