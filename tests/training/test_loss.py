"""The summed loss of a projection against torch's own, and its gradients against torch's and finite differences."""

import math
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from played_cuda import played_gpu
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from minitx.training import loss as module
from minitx.training.loss import linear_cross_entropy

D = 6


def drawn(n: int, filler: int, vocab: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Features of n tokens and of filler that is wild, weights, labels."""
    torch.manual_seed(0)
    features = torch.cat([torch.randn(n, D, dtype=dtype), 1e4 * torch.randn(filler, D, dtype=dtype)])
    weight = 2 * torch.randn(vocab, D, dtype=dtype)
    return features.requires_grad_(), weight.requires_grad_(), torch.randint(vocab, (n,))


def reference(features: Tensor, weight: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Let torch project and compare, in float64."""
    logits = features[:len(labels)].double() @ weight.double().T
    return F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")


@settings(max_examples=60)
@given(n=st.integers(1, 20), filler=st.integers(0, 5), vocab=st.integers(2, 30),
       smoothing=st.sampled_from([0.0, 0.1, 0.5]), at_once=st.sampled_from([1, 20, 90, module.AT_ONCE]))
def test_it_is_torchs_loss_and_gradient(n: int, filler: int, vocab: int, smoothing: float, at_once: int) -> None:
    """However many rows are taken at once, and whatever stands in those beyond the labels."""
    features, weight, labels = drawn(n, filler, vocab)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "AT_ONCE", at_once)
        loss, nll = linear_cross_entropy(features, weight, labels, smoothing)
    expected = reference(features, weight, labels, smoothing)
    torch.testing.assert_close(loss, expected, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(nll, reference(features, weight, labels, 0.0).detach(), atol=1e-10, rtol=1e-10)
    ours, theirs = (torch.autograd.grad(total / 7, (features, weight)) for total in (loss, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)
    assert (ours[0][n:] == 0).all()


@pytest.mark.parametrize(("place", "chunks"), [("cpu", 4), ("cuda", 2)])
def test_a_gpu_takes_more_rows_at_once(place: str, chunks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its chunks are larger, the loss and the gradients are the same."""
    monkeypatch.setattr(module, "AT_ONCE", 4 * 8)
    monkeypatch.setattr(module, "AT_ONCE_ON_GPU", 8 * 8)
    softmax, taken = torch.softmax, list[int]()
    monkeypatch.setattr(torch, "softmax", lambda x, *given, **out: (taken.append(len(x)), softmax(x, *given, **out))[1])
    features, weight, labels = drawn(14, 2, 8)
    with played_gpu() if place == "cuda" else nullcontext():
        loss, _ = linear_cross_entropy(features, weight, labels, 0.1)
    assert len(taken) == chunks
    expected = reference(features, weight, labels, 0.1)
    torch.testing.assert_close(loss, expected, atol=1e-10, rtol=1e-10)
    for one, other in zip(*(torch.autograd.grad(total, (features, weight)) for total in (loss, expected)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


def test_gradients_are_those_of_finite_differences() -> None:
    features, weight, labels = drawn(3, 0, 4)
    assert torch.autograd.gradcheck(lambda x, w: linear_cross_entropy(x, w, labels, 0.1)[0], (features, weight))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("at_once", [2**12, 2**23])
def test_in_fp32_it_is_exact_but_for_rounding(monkeypatch: pytest.MonkeyPatch, at_once: int, smoothing: float) -> None:
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    features, weight, labels = drawn(2000, 9, 50, torch.float32)
    loss, _ = linear_cross_entropy(features, weight, labels, smoothing)
    expected = reference(features, weight, labels, smoothing)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    ours, theirs = (torch.autograd.grad(total, (features, weight)) for total in (loss, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(("half", "weights"), [
    (torch.bfloat16, torch.float32), (torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32)])
def test_logits_in_16_bits_are_summed_in_fp32(half: torch.dtype, weights: torch.dtype) -> None:
    """Each token's rounding is its own: the sum is far more exact than a token is."""
    features, weight, labels = drawn(2000, 9, 50, torch.float32)
    x, w = features.detach().to(half).requires_grad_(), weight.detach().to(weights).requires_grad_()
    loss, nll = linear_cross_entropy(x, w, labels, 0.1)
    assert loss.dtype is nll.dtype is torch.float32
    expected = reference(x, w.to(half), labels, 0.1)
    assert loss.item() == pytest.approx(expected.item(), rel=5e-5)
    ours, theirs = torch.autograd.grad(loss, (x, w)), torch.autograd.grad(expected, (x, w))
    assert [gradient.dtype for gradient in ours] == [half, weights]
    for one, other in zip(ours, theirs, strict=True):
        assert F.cosine_similarity(one.double().flatten(), other.double().flatten(), dim=0) > 0.9999


def test_fp16_knows_the_loss_of_a_label_whose_probability_it_does_not_have() -> None:
    """Below 6e-8 there is only 0; the sum of all exponentials is known from the likeliest entry."""
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float16, requires_grad=True)
    weight = torch.tensor([[0.0, 0.0], [25.0, 0.5], [12.0, 1.0], [24.0, 0.25]], dtype=torch.float16)
    labels = torch.tensor([0, 2])
    loss, nll = linear_cross_entropy(features, weight, labels, 0.1)
    assert loss.dtype is torch.float32
    assert nll.item() == pytest.approx(reference(features, weight, labels, 0.0).item(), rel=1e-4)
    assert loss.item() == pytest.approx(reference(features, weight, labels, 0.1).item(), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_label_that_cannot_be_costs_much_but_not_infinity(dtype: torch.dtype) -> None:
    features = torch.full((1, 4), 1e3, dtype=dtype, requires_grad=True)
    weight = torch.tensor([[1.0] * 4, [-1.0] * 4], dtype=dtype, requires_grad=True)
    loss, nll = linear_cross_entropy(features, weight, torch.tensor([1]), 0.1)
    assert loss.isfinite()
    assert 80 < nll.item() < 1e4
    gradients = torch.autograd.grad(loss, (features, weight))
    for one, other in zip(gradients, torch.autograd.grad(reference(features, weight, torch.tensor([1]), 0.1),
                                                         (features, weight)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)


def test_the_unsmoothed_sum_is_for_reading_only() -> None:
    loss, nll = linear_cross_entropy(*drawn(3, 1, 4), 0.1)
    assert loss.requires_grad
    assert not nll.requires_grad


def test_the_loss_alone_is_the_same_number() -> None:
    """As validation asks for it: exactly, and without the products that make gradients."""
    features, weight, labels = drawn(9, 2, 5)
    loss, nll = linear_cross_entropy(features, weight, labels, 0.1)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        torch.testing.assert_close(linear_cross_entropy(features, weight, labels, 0.1), (loss, nll))
    assert counter.get_total_flops() == 2 * features.shape[0] * weight.numel()
    (gradient,) = torch.autograd.grad(loss, features)
    frozen, _ = linear_cross_entropy(features, weight.detach(), labels, 0.1)
    assert torch.equal(torch.autograd.grad(frozen, features)[0], gradient)


def test_a_sure_label_has_its_exact_loss_where_no_gradient_is_asked_for() -> None:
    """In bf16 its probability rounds to 1."""
    features, weight = torch.tensor([[7.0]]).bfloat16(), torch.tensor([[1.0], [0.0]]).bfloat16()
    with torch.inference_mode():
        _, nll = linear_cross_entropy(features, weight, torch.tensor([0]))
    assert nll.item() == pytest.approx(math.log1p(math.exp(-7)), rel=1e-3)  # fp32 of 7
