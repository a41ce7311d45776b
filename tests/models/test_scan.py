"""The scan against a plain loop in float64, the way of a CPU and that of a GPU, forwards and backwards."""

from contextlib import nullcontext

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from played_cuda import played_gpu
from torch import Tensor

from minitx.models.scan import doubling, scan

GATES = ("any", "zero", "one", "either")
DEVICES = pytest.mark.parametrize("on_gpu", [False, True], ids=["CPU", "GPU"])


def plain(a: Tensor, b: Tensor, start: Tensor | None) -> Tensor:
    """The recurrence as its equation stands; torch finds the gradient."""
    state, states = torch.zeros_like(b[0]) if start is None else start, []
    for factor, term in zip(a, b, strict=True):
        state = factor * state + term
        states.append(state)
    return torch.stack(states)


def drawn(T: int, shape: tuple[int, ...], gates: str, begun: bool, seed: int) -> list[Tensor]:
    """Factors from 0 to 1, both of which occur, terms, and a state to begin with, if there is one."""
    torch.manual_seed(seed)
    a = {"any": torch.rand(T, *shape), "zero": torch.zeros(T, *shape), "one": torch.ones(T, *shape),
         "either": torch.randint(2, (T, *shape))}[gates].double()
    return [t.requires_grad_() for t in (a, torch.randn(T, *shape).double(), *[torch.randn(shape).double()] * begun)]


def results(computed: Tensor, inputs: list[Tensor], weights: Tensor) -> list[Tensor]:
    return [computed.detach(), *torch.autograd.grad((weights * computed).sum(), inputs)]


def assert_near(found: list[Tensor], expected: list[Tensor]) -> None:
    """To 1e-12 of the largest: where states are sums of thousands of terms, so are their errors."""
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, atol=1e-12 * max(1.0, float(other.abs().max())), rtol=0)


@DEVICES
@given(T=st.integers(1, 40) | st.sampled_from([63, 64, 65, 200]), gates=st.sampled_from(GATES), begun=st.booleans(),
       shape=st.sampled_from([(1,), (3, 2), (2, 2, 3)]), seed=st.integers(0, 99))
@example(T=4096, gates="any", begun=True, shape=(2, 1), seed=0)
@example(T=4095, gates="one", begun=False, shape=(1, 2), seed=1)
@example(T=4096, gates="either", begun=True, shape=(3,), seed=2)
def test_it_is_the_loop_forwards_and_backwards(on_gpu: bool, T: int, gates: str, begun: bool, shape: tuple[int, ...],
                                               seed: int) -> None:
    inputs = drawn(T, shape, gates, begun, seed)
    a, b, start = inputs if begun else [*inputs, None]
    weights = torch.randn(T, *shape).double()
    expected = results(plain(a, b, start), inputs, weights)
    with played_gpu() if on_gpu else nullcontext():
        found = results(scan(a, b, start), inputs, weights)
    assert_near(found, expected)


@DEVICES
def test_its_gradient_is_that_of_small_differences(on_gpu: bool) -> None:
    with played_gpu() if on_gpu else nullcontext():
        for begun in (False, True):
            assert torch.autograd.gradcheck(scan, drawn(5, (2, 3), "any", begun, 0))


@settings(max_examples=20)
@given(T=st.integers(1, 70), seed=st.integers(0, 99))
def test_a_state_can_be_handed_on(T: int, seed: int) -> None:
    """Two scans, the second beginning where the first ended, are one: so decoding goes on step by step."""
    a, b = (t.detach() for t in drawn(T, (2, 3), "any", False, seed))
    whole = scan(a, b)
    for cut in {1, T // 2, T - 1} - {0, T}:
        halves = scan(a[:cut], b[:cut]), scan(a[cut:], b[cut:], whole[cut - 1])
        torch.testing.assert_close(torch.cat(halves), whole, atol=1e-12, rtol=1e-12)


@given(T=st.integers(1, 300))
def test_it_takes_as_many_rounds_as_there_are_doublings(T: int) -> None:
    """Each is one addition of everything; so of T steps it takes log2(T), rounded up."""
    with torch.profiler.profile() as profile:
        doubling(torch.rand(T, 1), torch.rand(T, 1))
    rounds = sum(event.count for event in profile.key_averages() if event.key == "aten::addcmul")
    assert rounds == (T - 1).bit_length()


@DEVICES
def test_what_comes_later_reaches_nothing_before_it(on_gpu: bool) -> None:
    """Not even as NaN: padding stands behind what is real."""
    a, b = (t.detach() for t in drawn(40, (2, 3), "any", False, 0))
    with played_gpu() if on_gpu else nullcontext():
        expected = scan(a, b)[:23]
        a[23:] = b[23:] = torch.nan
        assert torch.equal(scan(a, b)[:23], expected)


@DEVICES
def test_it_takes_a_gradient_that_is_laid_out_otherwise(on_gpu: bool) -> None:
    inputs = drawn(6, (2, 3), "any", True, 0)
    with played_gpu() if on_gpu else nullcontext():
        found = torch.autograd.grad(scan(*inputs).sum(), inputs)  # one number, expanded
        turned = torch.autograd.grad((scan(*inputs).permute(2, 1, 0) * torch.ones(3, 2, 6)).sum(), inputs)
    expected = torch.autograd.grad(plain(*inputs).sum(), inputs)
    assert_near(list(found), list(expected))
    assert_near(list(turned), list(expected))
