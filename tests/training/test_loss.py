"""The summed loss against torch's own, and its gradient against finite differences."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from minitx.training.loss import cross_entropy


@given(rows=st.integers(1, 9), vocab=st.integers(2, 30), smoothing=st.sampled_from([0.0, 0.1, 0.5]),
       seed=st.integers(0, 99))
def test_it_is_torchs_loss_and_gradient(rows: int, vocab: int, smoothing: float, seed: int) -> None:
    torch.manual_seed(seed)
    ours = (3 * torch.randn(rows, vocab, dtype=torch.float64)).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    labels = torch.randint(vocab, (rows,))
    loss, nll = cross_entropy(ours, labels, smoothing)
    expected = F.cross_entropy(theirs, labels, label_smoothing=smoothing, reduction="sum")
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(nll, F.cross_entropy(theirs, labels, reduction="sum").detach())
    (loss / 7).backward()
    (expected / 7).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([0, 3, 3])
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: cross_entropy(x, labels, 0.1)[0], logits)


def test_bf16_logits_are_summed_in_fp32() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2000, 50, dtype=torch.bfloat16), torch.randint(50, (2000,))
    loss, _ = cross_entropy(logits, labels, 0.1)
    assert loss.dtype is torch.float32
    expected = F.cross_entropy(logits.double(), labels, label_smoothing=0.1, reduction="sum")
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_unsmoothed_sum_is_for_reading_only() -> None:
    _, nll = cross_entropy(torch.randn(3, 4, requires_grad=True), torch.tensor([0, 1, 2]), 0.1)
    assert not nll.requires_grad
