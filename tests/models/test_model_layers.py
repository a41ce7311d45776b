"""The parts that models are built from, against the plain expressions that they stand for."""

import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitx.models.layers import (
    FeedForward,
    LayerNorm,
    LearnedPositions,
    Linear,
    RotaryPositions,
    SinusoidalPositions,
    Sublayer,
    Waves,
)
from minitx.models.precision import computing_in

MIXED = [(torch.float64, torch.float64, 1e-12), (torch.float32, torch.float32, 1e-5),
         (torch.float32, torch.bfloat16, 3e-2), (torch.bfloat16, torch.bfloat16, 3e-2)]  # weights, activations


def plain(module: nn.Module, x: Tensor) -> Tensor:
    """Say what the module stands for, in the numbers that it is given."""
    weight, bias, *narrow = (p.to(x.dtype).double() for p in module.parameters())
    if isinstance(module, LayerNorm):
        centred = x.double() - x.double().mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + module.eps).sqrt()
        return centred / deviation * weight + bias
    wide = x.double() @ weight.T + bias
    return wide.relu() @ narrow[0].T + narrow[1] if narrow else wide


@pytest.mark.parametrize(("weights", "activations", "tolerance"), MIXED, ids=["fp64", "fp32", "mixed", "bf16"])
@pytest.mark.parametrize("make", [lambda: FeedForward(16, 40), lambda: Linear(16, 24),
                                  lambda: Linear(16, 24, bias=False)], ids=["feed-forward", "linear", "without bias"])
@pytest.mark.parametrize("rows", [1, 33])
def test_a_search_computes_it_with_matrices_laid_out_in_advance_and_adds(
        make: Callable[[], FeedForward | Linear], weights: torch.dtype, activations: torch.dtype, tolerance: float,
        rows: int) -> None:
    torch.manual_seed(0)
    module, x = make().to(weights), torch.randn(rows, 16).to(activations)
    with torch.no_grad():
        expected = module(x)
    added = torch.randn_like(expected)
    with torch.inference_mode(), computing_in(None):
        for _ in range(2):
            out, total = module(x), module.add(x, added)
            assert out.dtype is total.dtype is activations
            torch.testing.assert_close(out, expected, atol=tolerance, rtol=tolerance)
            torch.testing.assert_close(total, expected + added, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("pre_norm", [True, False])
def test_a_step_of_a_sublayer_is_the_sublayer(pre_norm: bool) -> None:
    layer, inner, x = Sublayer(8, 0.1, pre_norm).double().eval(), Linear(8, 8).double(), torch.randn(3, 8).double()
    assert torch.equal(layer.step(x, inner.add), layer(x, inner))


@pytest.mark.parametrize(("weights", "activations", "tolerance"), MIXED, ids=["fp64", "fp32", "mixed", "bf16"])
@pytest.mark.parametrize("make", [lambda: FeedForward(16, 40), lambda: LayerNorm(16), lambda: Linear(16, 24)],
                         ids=["feed-forward", "norm", "linear"])
@pytest.mark.parametrize("shape", [(33, 16), (3, 5, 16)])
def test_it_is_what_it_stands_for_and_so_are_its_gradients(make: type[nn.Module], weights: torch.dtype,
                                                           activations: torch.dtype, tolerance: float,
                                                           shape: tuple[int, ...]) -> None:
    """Gradients have the type of what they are of; those of fp32 weights are summed as bf16 activations can be."""
    torch.manual_seed(0)
    module, x = make().to(weights), torch.randn(*shape).to(activations).requires_grad_()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.3 * torch.randn_like(p))
    inputs = [x, *module.parameters()]
    out, expected = module(x), plain(module, x)
    assert out.dtype is activations
    torch.testing.assert_close(out.double(), expected, atol=tolerance, rtol=tolerance)
    grad = torch.randn_like(out)
    ours, theirs = torch.autograd.grad(out, inputs, grad), torch.autograd.grad(expected, inputs, grad.double())
    for one, other, given in zip(ours, theirs, inputs, strict=True):
        assert one.dtype is given.dtype
        assert F.cosine_similarity(one.double().flatten(), other.double().flatten(), dim=0) > 1 - tolerance / 30
        torch.testing.assert_close(one.double().norm(), other.double().norm(), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("rows", [(1,), (7,), (300,), (3, 5)])
@pytest.mark.parametrize("make", [lambda: FeedForward(16, 40), lambda: Linear(16, 24),
                                  lambda: Linear(24, 8, bias=False)])
def test_without_gradients_it_computes_the_same(make: type[nn.Module], rows: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    module = make()
    x = torch.randn(*rows, next(module.parameters()).shape[1]).bfloat16()
    expected = module(x).detach()
    for context in (nullcontext(), computing_in(None)):
        with torch.inference_mode(), context:
            for _ in range(2):  # made once, and kept
                torch.testing.assert_close(module(x), expected, rtol=1e-2, atol=1e-2)
    with torch.no_grad():
        for p in module.parameters():
            p.zero_()
    with torch.inference_mode(), computing_in(None):
        assert not module(x).any()  # the block's own casts, not those of the last


def test_feed_forward_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    module, x = FeedForward(3, 4).double(), torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: module(x), (x, *module.parameters()))


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="what is asked for is a kind of x86")
def test_feed_forward_runs_in_bf16_where_the_cpu_has_no_units_for_it() -> None:
    code = ("import torch; from minitx.models.layers import FeedForward; x = torch.ones(3, 4).bfloat16()\n"
            "assert not torch.ops.mkldnn._is_mkldnn_bf16_supported(); FeedForward(4, 8)(x).sum().backward()")
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=300)


def test_sinusoids_have_the_published_values() -> None:
    table = SinusoidalPositions(6)(torch.arange(4), 4, torch.float64)
    assert table[0].tolist() == [0, 1, 0, 1, 0, 1]
    expected = [math.sin(3), math.cos(3), math.sin(3 / 10_000 ** (2 / 6)), math.cos(3 / 10_000 ** (2 / 6)),
                math.sin(3 / 10_000 ** (4 / 6)), math.cos(3 / 10_000 ** (4 / 6))]
    assert table[3].tolist() == pytest.approx(expected, abs=1e-12)


def test_positions_go_on_without_end() -> None:
    """What is kept of shorter sentences is kept for longer ones, and rounded only when it is taken."""
    positions, places = SinusoidalPositions(4), torch.tensor([0, 5, 4999, 70])
    assert positions(torch.tensor([5]), 6, torch.bfloat16).dtype is torch.bfloat16
    long = positions(places, 5000, torch.float64)
    expected = [[math.sin(p), math.cos(p), math.sin(p / 100), math.cos(p / 100)] for p in places.tolist()]
    torch.testing.assert_close(long, torch.tensor(expected, dtype=torch.float64), atol=1e-11, rtol=0)
    assert torch.equal(positions(torch.tensor([5]), 6, torch.float64)[0], long[1])


def test_waves_of_a_single_place_are_those_of_all_places() -> None:
    waves, places = Waves(6), torch.arange(201)
    assert torch.equal(waves(places[150:151], 201, torch.float32), waves(places, 201, torch.float32)[150:151])


class Overwritten(Waves):
    """Waves whose table another thread replaces by an empty one whenever it is stored."""

    table = property(lambda self: torch.empty(0), lambda self, table: None)  # type: ignore[assignment]


def test_positions_do_not_depend_on_what_other_threads_store() -> None:
    places = torch.tensor([0, 3, 200])
    assert torch.equal(Overwritten(6)(places, 201, torch.float32), Waves(6)(places, 201, torch.float32))


def test_learned_positions_are_rows_of_a_table() -> None:
    positions, places = LearnedPositions(4, 9), torch.tensor([3, 0, 8])
    assert torch.equal(positions(places, 9, torch.float32), positions.table.weight[places])
    assert positions(places, 9, torch.bfloat16).dtype is torch.bfloat16


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    rope, q, k = RotaryPositions(8), torch.randn(1, 1, 8).double(), torch.randn(1, 1, 8).double()

    def score(i: int, j: int) -> float:
        return float((rope(q, torch.tensor([i]), i + 1) * rope(k, torch.tensor([j]), j + 1)).sum())

    assert score(7, 4) == pytest.approx(score(103, 100), abs=1e-9)
    assert score(7, 4) == pytest.approx(score(1003, 1000), abs=1e-9)
    assert score(7, 4) != pytest.approx(score(7, 5), abs=1e-3)


def test_rotary_turns_each_token_by_its_own_place() -> None:
    rope, x, places = RotaryPositions(4), torch.randn(3, 2, 4).double(), torch.tensor([0, 2, 200])
    turned = rope(x, places, 201)
    assert torch.equal(turned[0], x[0])
    for row, place in enumerate(places):
        torch.testing.assert_close(turned[row:row + 1], rope(x[row:row + 1], place[None], int(place) + 1))
