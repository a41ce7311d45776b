"""Dropout: what it drops, what it keeps the mean of, and one pass for what takes two."""

import math

import pytest
import torch
from torch import Tensor

from minitx.models.dropout import Dropout


@pytest.mark.parametrize("p", [0.0, 0.1, 0.3, 0.5])
def test_dropout_keeps_the_mean_and_drops_its_share(p: float) -> None:
    torch.manual_seed(0)
    dropout, x = Dropout(p), torch.ones(1000, 1001)
    out = dropout(x)
    assert (out == 0).float().mean().item() == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / x.numel()) + 1e-5)
    assert out[out != 0].unique().tolist() == pytest.approx([1 / (1 - p)], rel=1e-4)
    assert torch.equal(dropout.eval()(x), x)


def test_dropout_masks_differ_by_row_and_draw() -> None:
    """Neighbours share random words; their fates must not be linked."""
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(200_000)) > 0).double()
    for lag in (1, 2, 3, 4, 8):
        correlation = torch.corrcoef(torch.stack([kept[:-lag], kept[lag:]]))[0, 1]
        assert abs(correlation) < 5 / math.sqrt(len(kept)), lag
    assert not torch.equal(kept, (Dropout(0.5)(torch.ones(200_000)) > 0).double())


def test_dropout_passes_gradients_where_it_kept() -> None:
    x = torch.ones(4, 33, requires_grad=True)
    out = Dropout(0.4)(x)
    out.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, out.detach())


@pytest.mark.parametrize("p", [0.1, 0.3])
@pytest.mark.parametrize("added", [False, True])
def test_the_mean_is_exact_in_bf16_too(p: float, added: bool) -> None:
    """What is kept is scaled by 1 / (1 - p), not by the nearest number of 8 bits, which may be 0.16 % off."""
    torch.manual_seed(0)
    dropout, y = Dropout(p), (1 + torch.rand(1_000_000)).bfloat16()
    out = dropout.add(torch.zeros_like(y), y) if added else dropout(y)
    kept = out != 0
    assert out.dtype is torch.bfloat16
    scale = out[kept].double().sum() / y[kept].double().sum()
    assert scale.item() == pytest.approx(1 / (1 - p), rel=1e-4)


def seeded(dropout: Dropout, *tensors: Tensor) -> Tensor:
    torch.manual_seed(7)
    return dropout(*tensors) if len(tensors) == 1 else dropout.add(*tensors)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_adding_is_dropping_and_adding(dtype: torch.dtype) -> None:
    dropout, x, y = Dropout(0.3), torch.randn(5, 7, dtype=dtype), torch.randn(5, 7, dtype=dtype)
    torch.testing.assert_close(seeded(dropout, x, y), x + seeded(dropout, y))
    assert (seeded(dropout, x, y) == x).any()


def test_gradients_are_those_of_finite_differences() -> None:
    x, y = (torch.randn(3, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda *both: seeded(Dropout(0.4), *both), (x, y))
    assert torch.autograd.gradcheck(lambda one: seeded(Dropout(0.4), one), y)


@pytest.mark.parametrize("dropout", [Dropout(0.0), Dropout(0.5).eval()])
def test_nothing_is_dropped_at_0_nor_when_the_model_serves(dropout: Dropout) -> None:
    x, y, before = torch.randn(9), torch.randn(9), torch.get_rng_state()
    assert dropout(x) is x
    assert torch.equal(dropout.add(x, y), x + y)
    assert torch.equal(torch.get_rng_state(), before), "and nothing is drawn"
