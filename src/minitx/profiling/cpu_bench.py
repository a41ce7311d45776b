"""The constants of a CPU, measured in a minute: `CPUConstants`. Nothing here looks at a model or at an update.

Other programs make an operator slower, never faster, so the fastest of some repeats counts.
"""

from collections.abc import Callable, Sequence
from itertools import product as combinations
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from minitx.profiling.cpu_pace import CPUConstants, Curve, Grid
from minitx.profiling.cpu_recorder import recording_cpu
from minitx.profiling.peak import timings
from minitx.utils.console import Console
from minitx.utils.progress import Progress

CPU = torch.device("cpu")
PRODUCTS = ((16.0, 64.0, 256.0, 1024.0, 4096.0),) * 3  # rows, columns, inner
MOST_FLOP = 2**33  # of a product that is timed; larger ones run at the rate of the next smaller
BATCHED = ((8.0, 32.0, 128.0),) * 3
BATCH_FLOP = 2**24  # of a batch of small products
LSTM = ((8.0, 64.0, 128.0), (64.0, 128.0, 256.0, 512.0, 1024.0))  # sentences, width
STEPS = 8
ELEMENTS = tuple(2**n for n in range(6, 25, 3))  # of passes: 256 bytes to 64 MiB in fp32
ENOUGH_S = 0.04  # of repeats
CALLS = 100  # operators in a row
Work = Callable[[], object]


# --- products


def measure_products(progress: Progress) -> Grid:
    """Time x W' as a layer calls it, over a grid of shapes."""
    rates = dict[tuple[float, ...], float]()
    for shape in combinations(*PRODUCTS):
        flop = 2 * prod(shape)
        if flop <= MOST_FLOP:
            rows, columns, inner = map(int, shape)
            x, weight = torch.rand(rows, inner), torch.rand(columns, inner)
            rates[shape] = flop / fastest(lambda x=x, weight=weight: x @ weight.t())  # type: ignore[misc]
        else:  # halving the largest number leads to one that was timed, for these come first
            rates[shape] = rates[smaller(shape)]
        progress(f"products of {' x '.join(f'{n:g}' for n in shape)}")
    return Grid(PRODUCTS, tuple(rates.values()))


def smaller(shape: tuple[float, ...]) -> tuple[float, ...]:
    """Return the next smaller shape of the grid: its largest number one place lower."""
    largest = shape.index(max(shape))
    axis = PRODUCTS[largest]
    return (*shape[:largest], axis[axis.index(shape[largest]) - 1], *shape[largest + 1:])


def measure_batched(progress: Progress) -> Grid:
    """Time batches of small products."""
    rates = list[float]()
    for rows, columns, inner in combinations(*(map(int, axis) for axis in BATCHED)):
        batch = max(1, BATCH_FLOP // (2 * rows * columns * inner))
        x, y = torch.rand(batch, rows, inner), torch.rand(batch, columns, inner).transpose(1, 2)
        rates.append(2 * batch * rows * columns * inner / fastest(lambda x=x, y=y: x @ y))  # type: ignore[misc]
        progress(f"batches of {rows} x {columns} x {inner}")
    return Grid(BATCHED, tuple(rates))


# --- recurrence


def measure_lstm(progress: Progress) -> tuple[Grid, Grid]:
    """Time a layer of torch's LSTM, forwards and backwards, whose inputs are as wide as its states."""
    forward, backward = list[float](), list[float]()
    for sentences, width in combinations(*(map(int, axis) for axis in LSTM)):
        layer, x = nn.LSTM(width, width, batch_first=True), torch.rand(sentences, STEPS, width, requires_grad=True)
        flop = 2 * sentences * STEPS * 4 * width * 2 * width
        y = layer(x)[0]
        grad = torch.ones_like(y)
        forward.append(flop / fastest(lambda layer=layer, x=x: layer(x)))  # type: ignore[misc]
        backward.append(2 * flop / fastest(lambda y=y, grad=grad: y.backward(grad, retain_graph=True)))  # type: ignore[misc]
        progress(f"LSTM of width {width}, {sentences} sentences", 2.0)
    return Grid(LSTM, tuple(forward)), Grid(LSTM, tuple(backward))


# --- passes


def rows_of(n: int, width: int = 64) -> Tensor:
    """Return n random numbers in rows."""
    return torch.rand(max(1, n // width), min(n, width))


def lookup(n: int) -> Work:
    """Take all rows in another order."""
    x = rows_of(n)
    order = torch.randperm(len(x))
    return lambda: x.index_select(0, order)


def softmax(n: int, width: int = 32) -> tuple[Work, Work]:
    """Take the softmax of rows, and its gradient."""
    x = rows_of(n, width)
    y = x.softmax(-1)
    return lambda: torch.softmax(x, -1), lambda: torch._softmax_backward_data(x, y, -1, x.dtype)


def norm(n: int) -> tuple[Work, Work]:
    """Normalise rows, and take the gradient."""
    x = rows_of(n, 256)
    shape, weight = [x.shape[1]], torch.rand(x.shape[1])
    _, mean, deviation = torch.native_layer_norm(x, shape, weight, weight, 1e-5)
    return (lambda: torch.native_layer_norm(x, shape, weight, weight, 1e-5),
            lambda: torch.ops.aten.native_layer_norm_backward(x, x, shape, mean, deviation, weight, weight, [True] * 3))


def adamw(n: int) -> Work:
    """Take a step of the fused optimizer."""
    lists = [[torch.rand(n)] for _ in range(4)]
    settings = {"lr": 1e-9, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.0, "eps": 1e-8, "amsgrad": False,
                "maximize": False}
    return lambda: torch._fused_adamw_(*lists, [], [torch.ones(())], **settings)  # type: ignore[arg-type]


def compare(n: int) -> Work:
    """Make a mask from small integers."""
    words, mask = torch.randint(-1000, 1000, (n,), dtype=torch.int16), torch.empty(n)
    return lambda: torch.ge(words, 0, out=mask)


def add(n: int) -> Work:
    """Add two tensors."""
    x, y = torch.rand(n), torch.rand(n)
    return lambda: x + y


def alone(operator: Callable[[Tensor], object]) -> Callable[[int], Work]:
    """Return what makes an operator's work on n random numbers."""
    def of(n: int) -> Work:
        x = torch.rand(n)
        return lambda: operator(x)

    return of


PASSES: dict[str, Callable[[int], Work]] = {
    "add": add, "fill": alone(torch.zeros_like), "copy": alone(torch.clone), "lookup": lookup, "compare": compare,
    "tanh": alone(torch.tanh), "sigmoid": alone(torch.sigmoid), "softmax": lambda n: softmax(n)[0],
    "softmax_backward": lambda n: softmax(n)[1], "norm": lambda n: norm(n)[0], "norm_backward": lambda n: norm(n)[1],
    "sum": lambda n: (lambda x: lambda: x.sum(0))(rows_of(n, 256)), "adamw": adamw,
    "random": lambda n: lambda: np.random.SFC64(1).random_raw(n // 2),
}


def measure_passes(progress: Progress) -> dict[str, Curve]:
    """Time passes over memory by their size; the recorder says how many bytes each moves."""
    found = dict[str, Curve]()
    for name, work_of in PASSES.items():
        nbytes, seconds = list[float](), list[float]()
        for n in ELEMENTS:
            work = work_of(n)
            with recording_cpu() as recorder:
                work()
            nbytes.append(max(kernel.nbytes for kernel in recorder.kernels))
            seconds.append(fastest(work))
            progress(f"{name}, {n:,} numbers")
        found[name] = Curve(tuple(nbytes), tuple(seconds))
    return found


# --- calls


def measure_calls(operator_s: float) -> tuple[dict[str, float], float]:
    """Time small operators in a row that need gradients, and views. operator_s: of one without. --> by phase; a view"""
    x = torch.ones(8, requires_grad=True)

    def chain(step: Callable[[Tensor], Tensor]) -> Tensor:
        y = x
        for _ in range(CALLS):
            y = step(y)
        return y

    def times(step: Callable[[Tensor], Tensor]) -> tuple[float, float]:
        y = chain(step)
        grad = torch.ones_like(y)
        return (fastest(lambda: chain(step)) / CALLS,
                fastest(lambda: torch.autograd.grad(y, x, grad, retain_graph=True)) / CALLS)

    forward, backward = times(lambda y: y * 0.5)
    called = {"forward": max(0.0, forward - operator_s), "backward": max(0.0, backward - operator_s), "optimizer": 0.0}
    return called, sum(times(lambda y: y.view(8))) / 2


def fastest(work: Work) -> float:
    """Return the seconds of the fastest of some repeats."""
    work()
    return min(timings(work, CPU, ENOUGH_S))


def measure_constants(console: Console) -> CPUConstants:
    """Measure this CPU, with the threads that torch has."""
    points = [prod(map(len, axes)) for axes in (PRODUCTS, BATCHED, LSTM, LSTM)]
    progress = Progress(console, float(sum(points) + len(PASSES) * len(ELEMENTS)))
    products, batched = measure_products(progress), measure_batched(progress)
    lstm_forward, lstm_backward = measure_lstm(progress)
    passes = measure_passes(progress)
    called, view_s = measure_calls(passes["add"].seconds[0])
    return CPUConstants(products, batched, lstm_forward, lstm_backward, passes, called, view_s)
