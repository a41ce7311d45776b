"""The Transformer against slower ways of computing the same, and what it must and must not sense."""

import math

import pytest
import torch
from torch import Tensor, nn
from toys import POSITIONS, tiny_transformer

from minitx.batch import collate
from minitx.models.layers import (
    CrossAttention,
    Dropout,
    RotaryPositions,
    SelfAttention,
    SinusoidalPositions,
    attend,
)


def reference_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = (q.double() @ k.double().transpose(-2, -1)) / math.sqrt(q.shape[-1])
    return scores.masked_fill(~mask, -math.inf).softmax(-1) @ v.double()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_attention_is_the_float64_reference(dtype: torch.dtype, tolerance: float, causal: bool) -> None:
    q, k, v = (torch.randn(3, 2, 5, 8, dtype=dtype) for _ in range(3))
    lengths = torch.tensor([5, 3, 1]).view(3, 1, 1, 1)
    mask = torch.ones(5, 5, dtype=torch.bool).tril() if causal else torch.arange(5) < lengths
    out = attend(q, k, v, causal=True) if causal else attend(q, k, v, mask)
    torch.testing.assert_close(out.double(), reference_attention(q, k, v, mask), atol=tolerance, rtol=tolerance)


def test_attention_is_torch_multihead_attention_with_the_same_weights() -> None:
    ours, theirs = SelfAttention(16, 4).double(), nn.MultiheadAttention(16, 4, bias=False, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.out_proj.weight.copy_(ours.out.weight)
    x, mask = torch.randn(3, 7, 16).double(), torch.arange(7) < torch.tensor([7, 4, 1])[:, None]
    expected, _ = theirs(x, x, x, key_padding_mask=~mask)
    torch.testing.assert_close(ours(x, mask[:, None, None, :]), expected, atol=1e-12, rtol=1e-12)


def test_cross_attention_is_torch_multihead_attention() -> None:
    ours, theirs = CrossAttention(16, 4).double(), nn.MultiheadAttention(16, 4, bias=False, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.q.weight, ours.kv.weight]))
        theirs.out_proj.weight.copy_(ours.out.weight)
    x, memory = torch.randn(2, 3, 16).double(), torch.randn(2, 5, 16).double()
    mask = torch.arange(5) < torch.tensor([5, 2])[:, None]
    expected, _ = theirs(x, memory, memory, key_padding_mask=~mask)
    out = ours(x, *ours.keys_values(memory), mask[:, None, None, :])
    torch.testing.assert_close(out, expected, atol=1e-12, rtol=1e-12)


def test_worked_example_of_softmax_weights() -> None:
    """Unscaled scores .14, .40, .31 weigh 29, 37 and 34 %; attention's scale, 1/sqrt(2) here, makes it 30, 36, 34."""
    scores = torch.tensor([0.14, 0.40, 0.31])
    assert (100 * scores.softmax(0)).round().tolist() == [29, 37, 34]
    q, k = torch.tensor([[[[1.0, 0.0]]]]), torch.stack([scores, torch.zeros(3)], dim=1)[None, None]
    weights = attend(q, k, torch.eye(3)[None, None])
    assert (100 * weights.flatten()).round().tolist() == [30, 36, 34]


def test_sinusoids_have_the_published_values() -> None:
    table = SinusoidalPositions(6)(0, 4, like=torch.empty(0, dtype=torch.float64))
    assert table[0].tolist() == [0, 1, 0, 1, 0, 1]
    expected = [math.sin(3), math.cos(3), math.sin(3 / 10_000 ** (2 / 6)), math.cos(3 / 10_000 ** (2 / 6)),
                math.sin(3 / 10_000 ** (4 / 6)), math.cos(3 / 10_000 ** (4 / 6))]
    assert table[3].tolist() == pytest.approx(expected, abs=1e-12)


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    rope, q, k = RotaryPositions(), torch.randn(1, 1, 1, 8).double(), torch.randn(1, 1, 1, 8).double()
    def score(i: int, j: int) -> float:
        return float((rope(q, i) * rope(k, j)).sum())
    assert score(7, 4) == pytest.approx(score(103, 100), abs=1e-9)
    assert score(7, 4) != pytest.approx(score(7, 5), abs=1e-3)


@pytest.mark.parametrize("pos_encoding", POSITIONS)
def test_source_order_is_sensed_with_positions_alone(pos_encoding: str) -> None:
    """Permuted source token ids give the same logits without positions, and other ones with any encoding."""
    model = tiny_transformer(pos_encoding=pos_encoding).double()
    batch = collate([[3, 4, 5, 6, 7, 8]], [[9, 10, 11]], pad_id=0, bos_id=1, eos_id=2)
    order = torch.tensor([3, 1, 6, 0, 5, 2, 4])
    change = (model(batch.src[:, order], batch.src_mask, batch.tgt_in)
              - model(batch.src, batch.src_mask, batch.tgt_in)).abs().max().item()
    assert change < 1e-9 if pos_encoding == "none" else change > 1e-3


def test_target_order_is_sensed_even_without_positions() -> None:
    """A causal decoder of two layers tells prefixes apart that hold the same tokens in another order."""
    model = tiny_transformer(pos_encoding="none").double()
    src, mask = torch.tensor([[3, 4, 2]]), torch.ones(1, 3, dtype=torch.bool)
    one, other = (model(src, mask, torch.tensor([prefix]))[:, -1] for prefix in ([1, 5, 6, 7], [1, 6, 5, 7]))
    assert (one - other).abs().max() > 1e-3


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
