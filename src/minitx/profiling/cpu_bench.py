"""The constants of a CPU, measured in a minute: `CPUConstants`. Nothing here looks at a model or at an update.

Other programs make an operator slower, never faster, so the fastest of some repeats counts. One thread by itself is
timed by the seconds that it ran, so that programs beside it hardly matter; several need a quiet machine.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product as combinations
from math import inf, prod
from time import perf_counter, thread_time
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from minitx.profiling.cpu_pace import CPUConstants, Curve, Grid
from minitx.profiling.cpu_recorder import recording_cpu
from minitx.utils.console import Console
from minitx.utils.progress import Progress

CPU = torch.device("cpu")
PRODUCTS = ((16, 64, 256, 1024, 4096),) * 3  # rows, columns, inner
MOST_FLOP = 2**30  # of a product that is timed; larger ones run at the rate of the next smaller
BATCHED = ((8, 32, 128),) * 3
BATCH_FLOP = 2**24  # of a batch of small products
LSTM = ((8, 32, 128), (64, 128, 256, 512))  # sentences, width
STEPS = 8
ELEMENTS = tuple(2**n for n in range(6, 25, 3))  # of passes: 256 bytes to 64 MiB in fp32
FOOTPRINT, COPIES = 2**25, 32  # bytes, and pieces of work, that follow one another before data are used again
ROUNDS = 3
ENOUGH_S = 0.01  # of repeats in a round
CALLS = 100  # operators in a row
Work = Callable[[], object]
Shape = tuple[int, ...]
Key = TypeVar("Key")


@dataclass
class Bench:
    """Times pieces of work in turns, so that each gets quiet moments, and keeps the fastest of each."""

    progress: Progress

    def fastest(self, makers: Mapping[Key, Callable[[], Work]]) -> dict[Key, float]:
        """Return the seconds of each piece of work."""
        found = dict.fromkeys(makers, inf)
        for _ in range(ROUNDS):
            for key, make in makers.items():
                found[key] = min(found[key], one_after_another(make))
                self.progress(f"measuring single operators: {key}")
        return found


def one_after_another(make: Callable[[], Work]) -> float:
    """Return the seconds of a piece of work on data that were not used just before, as in an update.

    So it is done on several copies in turn, and results stay: as many as no cache holds, but of small ones `COPIES`.
    """
    first = make()
    copies = min(COPIES, 1 + FOOTPRINT // max(1, bytes_of(first)))
    works = [first, *(make() for _ in range(copies - 1))]
    results: list[object] = [None] * copies

    def turn() -> None:
        for number, work in enumerate(works):
            results[number] = work()

    turn()
    return min(repeats(turn, 2, ENOUGH_S)) / copies


def repeats(work: Work, least: int, enough_s: float) -> list[float]:
    """Return the seconds of each repeat of `work`: at least so many, and `enough_s` in all."""
    seconds = list[float]()
    while len(seconds) < least or sum(seconds) < enough_s:
        began = clock()
        work()
        seconds.append(clock() - began)
    return seconds


def clock() -> float:
    """Return a time in seconds: that this thread has run, or of the day where torch has several threads."""
    return thread_time() if torch.get_num_threads() == 1 else perf_counter()


def bytes_of(work: Work) -> int:
    """Return the bytes that a piece of work moves in its largest operator."""
    with recording_cpu() as recorder:
        work()
    return int(max(kernel.nbytes for kernel in recorder.kernels))


# --- products


def measure_products(bench: Bench) -> Grid:
    """Time x W' as a layer calls it, over a grid of shapes."""
    def times(rows: int, columns: int, inner: int) -> Work:
        x, weight = torch.full((rows, inner), 0.5), torch.full((columns, inner), 0.5)
        return lambda: x @ weight.t()

    shapes = list(combinations(*PRODUCTS))
    seconds = bench.fastest({shape: partial(times, *shape) for shape in shapes if 2 * prod(shape) <= MOST_FLOP})
    rates = dict[Shape, float]()
    for shape in shapes:  # the next smaller one comes before it
        rates[shape] = 2 * prod(shape) / seconds[shape] if shape in seconds else rates[smaller(shape)]
    return Grid(PRODUCTS, tuple(rates.values()))


def smaller(shape: Shape) -> Shape:
    """Return the next smaller shape of the grid: its largest number one place lower."""
    largest = shape.index(max(shape))
    axis = PRODUCTS[largest]
    return (*shape[:largest], axis[axis.index(shape[largest]) - 1], *shape[largest + 1:])


def measure_batched(bench: Bench) -> Grid:
    """Time batches of small products."""
    def times(rows: int, columns: int, inner: int) -> Work:
        batch = batch_of(rows, columns, inner)
        x, y = torch.full((batch, rows, inner), 0.5), torch.full((batch, columns, inner), 0.5).transpose(1, 2)
        return lambda: x @ y

    seconds = bench.fastest({shape: partial(times, *shape) for shape in combinations(*BATCHED)})
    return Grid(BATCHED, tuple(2 * prod(shape) * batch_of(*shape) / took for shape, took in seconds.items()))


def batch_of(rows: int, columns: int, inner: int) -> int:
    """Return the number of small products that are timed at once."""
    return max(1, BATCH_FLOP // (2 * rows * columns * inner))


# --- recurrence


def measure_lstm(bench: Bench) -> tuple[Grid, Grid]:
    """Time a layer of torch's LSTM, forwards and backwards, whose inputs are as wide as its states."""
    def forward(sentences: int, width: int) -> Work:
        layer, x = nn.LSTM(width, width, batch_first=True), torch.rand(sentences, STEPS, width, requires_grad=True)
        return lambda: layer(x)[0]

    def backward(sentences: int, width: int) -> Work:
        y: Any = forward(sentences, width)()
        grad = torch.ones_like(y)
        return lambda: y.backward(grad, retain_graph=True)

    grids = list[Grid]()
    for products, way in ((1, forward), (2, backward)):
        seconds = bench.fastest({shape: partial(way, *shape) for shape in combinations(*LSTM)})
        flop = {(B, R): 2 * products * B * STEPS * 4 * R * 2 * R for B, R in seconds}
        grids.append(Grid(LSTM, tuple(flop[shape] / took for shape, took in seconds.items())))
    return grids[0], grids[1]


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
    weights, gradients, means, squares = ([torch.rand(n)] for _ in range(4))
    return lambda: torch._fused_adamw_(weights, gradients, means, squares, [], [torch.ones(())], lr=1e-9, beta1=0.9,
                                       beta2=0.99, weight_decay=0.0, eps=1e-8, amsgrad=False, maximize=False)


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


def measure_passes(bench: Bench) -> dict[str, Curve]:
    """Time passes over memory by their size; the recorder says how many bytes each moves."""
    found = dict[str, Curve]()
    for name, work_of in PASSES.items():
        seconds = bench.fastest({(name, n): partial(work_of, n) for n in ELEMENTS})
        found[name] = Curve(tuple(bytes_of(work_of(n)) for n in ELEMENTS), tuple(seconds.values()))
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

    def fastest(work: Work) -> float:
        work()
        return min(repeats(work, 2, ENOUGH_S)) / CALLS

    def times(step: Callable[[Tensor], Tensor]) -> tuple[float, float]:
        y = chain(step)
        grad = torch.ones_like(y)
        return (fastest(lambda: chain(step)),
                fastest(lambda: torch.autograd.grad(y, x, grad, retain_graph=True)))

    forward, backward = times(lambda y: y * 0.5)
    called = {"forward": max(0.0, forward - operator_s), "backward": max(0.0, backward - operator_s), "optimizer": 0.0}
    return called, sum(times(lambda y: y.view(8))) / 2


def measure_constants(console: Console) -> CPUConstants:
    """Measure this CPU, with the threads that torch has."""
    timed = [shape for shape in combinations(*PRODUCTS) if 2 * prod(shape) <= MOST_FLOP]
    points = len(timed) + sum(prod(map(len, axes)) for axes in (BATCHED, LSTM, LSTM)) + len(PASSES) * len(ELEMENTS)
    bench = Bench(Progress(console, float(ROUNDS * points)))
    products, batched = measure_products(bench), measure_batched(bench)
    lstm_forward, lstm_backward = measure_lstm(bench)
    passes = measure_passes(bench)
    called, view_s = measure_calls(passes["add"].seconds[0])
    return CPUConstants(products, batched, lstm_forward, lstm_backward, passes, called, view_s)
