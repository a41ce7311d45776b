"""The measurement of a CPU's constants, with clocks that are made up: times themselves are not tested."""

from math import prod

import pytest
import torch

from minitx.profiling import cpu_bench
from minitx.profiling.cpu_bench import (
    BATCHED,
    COPIES,
    FOOTPRINT,
    LSTM,
    PASSES,
    PRODUCTS,
    Bench,
    bytes_of,
    measure_batched,
    measure_lstm,
    measure_products,
    one_after_another,
    smaller,
)
from minitx.profiling.cpu_pace import CURVES
from minitx.utils.console import Console
from minitx.utils.progress import Progress


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Every piece of work takes a second, and is not run."""
    monkeypatch.setattr(cpu_bench, "one_after_another", lambda make: 1.0)
    return Bench(Progress(Console(), 1e6))


def test_rates_are_operations_over_seconds(bench: Bench) -> None:
    grid = measure_products(bench)
    assert grid.at(16, 64, 256) == pytest.approx(2 * 16 * 64 * 256)
    assert grid.at(4096, 4096, 4096) == grid.at(1024, 1024, 256), "too large to be timed"
    assert len(measure_batched(bench).rates) == prod(map(len, BATCHED))
    forward, backward = measure_lstm(bench)
    sentences, width = LSTM[0][0], LSTM[1][0]
    assert forward.at(sentences, width) == pytest.approx(2 * sentences * 8 * 4 * width * 2 * width)
    assert backward.at(sentences, width) == pytest.approx(2 * forward.at(sentences, width))


def test_the_next_smaller_shape_comes_before() -> None:
    assert smaller((4096, 16, 4096)) == (1024, 16, 4096)
    assert smaller((64, 256, 1024)) == (64, 256, PRODUCTS[2][2])


@pytest.mark.parametrize("name", PASSES)
def test_each_pass_is_one_that_operators_are_like(name: str) -> None:
    assert name in CURVES or name in ("add", "copy")
    assert bytes_of(PASSES[name](1024)) >= 1024 * 2


def test_every_likeness_is_measured() -> None:
    assert CURVES.keys() <= PASSES.keys()


@pytest.mark.parametrize(("numbers", "copies"), [(64, COPIES), (2**24, 1 + FOOTPRINT // (3 * 4 * 2**24))])
def test_work_is_done_on_as_many_copies_as_no_cache_holds(numbers: int, copies: int,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    made, runs = list[int](), list[int]()

    def make() -> cpu_bench.Work:
        number = len(made)
        made.append(number)
        x = torch.empty(numbers)

        def work() -> torch.Tensor:
            runs.append(number)
            return x + x.clone()[:1] if number < 0 else torch.add(x, torch.empty(numbers))

        return work

    ticks = iter(range(1000))
    monkeypatch.setattr(cpu_bench, "clock", lambda: float(next(ticks)))
    assert one_after_another(make) == pytest.approx(1 / copies), "a turn of all takes a tick"
    assert made == list(range(copies))
    assert runs == [0, *made * 3], "one to count bytes, a turn to warm up, two that are timed"
