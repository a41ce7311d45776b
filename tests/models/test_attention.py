"""Attention against slower ways of computing the same, sentence by sentence."""

from collections.abc import Callable
from inspect import Parameter, signature

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from played_cuda import reference_attention, varlen_attn
from torch import Tensor, nn
from torch.nn.attention import varlen
from toys import some

from minitx.data.batch import Packed, pack
from minitx.experiments.studies.growth import PeakBytes
from minitx.models import attention, cpu_attention
from minitx.models.attention import (
    CrossAttention,
    SelfAttention,
    attend,
    cross_attention,
    from_heads,
    self_attention,
    source_bias,
    to_heads,
)


def packed_of(*lengths: int, recurring: bool = False) -> Packed:
    return pack([[5] * length for length in lengths], 0, recurring=recurring)


def doubles(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


DTYPES = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)])


def assert_same(ours: Tensor, reference: Tensor, inputs: tuple[Tensor, ...], tolerance: float = 1e-12) -> None:
    """Compare what the reference has, the first rows, and its gradients: what filler holds has none."""
    grad, ours = torch.randn_like(ours[:len(reference)]), ours[:len(reference)]
    torch.testing.assert_close(ours.double(), reference, atol=tolerance, rtol=tolerance)
    found, expected = torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(reference, inputs, grad.double())
    for one, other in zip(found, expected, strict=True):
        assert one.dtype is ours.dtype
        torch.testing.assert_close(one, other, atol=2 * tolerance, rtol=tolerance)


@DTYPES
def test_attention_is_the_float64_reference_and_so_is_its_gradient(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 2, 5, 8, dtype=dtype, requires_grad=True) for _ in range(3))
    packed = packed_of(5, 3, 1)
    expected = reference_attention(q, k, v, packed.mask[:, None, None])
    assert_same(attend(q, k, v, packed.bias), expected, (q, k, v), tolerance)
    assert_same(attend(q, k, v), reference_attention(q, k, v, torch.ones(5, 5, dtype=torch.bool)), (q, k, v), tolerance)


def test_fewer_queries_than_keys() -> None:
    """A step's: one new position, or the hypotheses of a sentence, look at all that there is."""
    q, k, v, packed = doubles(2, 1, 2, 3), doubles(2, 1, 4, 3), doubles(2, 1, 4, 3), packed_of(4, 1)
    expected = reference_attention(q, k, v, packed.mask[:, None, None])
    torch.testing.assert_close(attend(q, k, v, packed.bias), expected, atol=1e-12, rtol=1e-12)
    assert torch.autograd.gradcheck(lambda *qkv: attend(*qkv, packed.bias), (q, k, v))


def test_worked_example_of_softmax_weights() -> None:
    """Unscaled scores .14, .40, .31 weigh 29, 37 and 34 %; attention's scale, 1/sqrt(2) here, makes it 30, 36, 34."""
    scores = torch.tensor([0.14, 0.40, 0.31])
    assert (100 * scores.softmax(0)).round().tolist() == [29, 37, 34]
    q, k = torch.tensor([[[[1.0, 0.0]]]]), torch.stack([scores, torch.zeros(3)], dim=1)[None, None]
    weights = attend(q, k, torch.eye(3)[None, None])
    assert (100 * weights.flatten()).round().tolist() == [30, 36, 34]


# --- packed sentences

LENGTHS = some(st.tuples(st.integers(1, 6), st.integers(1, 6)))
WINDOWS = st.none() | st.integers(1, 7)


def by_sentence(q: Tensor, k: Tensor, v: Tensor, tgt: Packed, src: Packed, n_heads: int, causal: bool,
                window: int | None = None) -> Tensor:
    """Attend in one sentence after the other, no padding anywhere. [N, D] --> [n, D]"""
    found = []
    for (a, b), (c, d) in zip(*(zip(s, s[1:], strict=False) for s in (tgt.starts[:-1], src.starts[:-1])), strict=True):
        heads = (rows.unflatten(1, (n_heads, -1)).transpose(0, 1) for rows in (q[a:b], k[c:d], v[c:d]))
        offset = torch.arange(d - c) - torch.arange(b - a)[:, None]
        mask = (offset <= 0) | torch.tensor(not causal)
        mask &= offset.abs() <= (len(q) + len(k) if window is None else window)
        found.append(reference_attention(*heads, mask).transpose(0, 1).flatten(1))
    return torch.cat(found)


class Elsewhere(Tensor):
    """Say that it lies on a GPU, and compute here."""

    device = torch.device("cuda")


def test_the_kernel_that_is_played_takes_what_torchs_takes() -> None:
    """torch 2.11's alone: what later ones take beside that is not asked for."""
    played, real = (signature(function).parameters for function in (varlen_attn, varlen.varlen_attn))
    assert [(name, real[name].kind, real[name].default) for name in played] == [
        (name, parameter.kind, parameter.default) for name, parameter in played.items()]
    assert all(real[name].default is not Parameter.empty for name in real.keys() - played.keys())


Placed = Callable[[Tensor], Tensor]


def take_blocks(monkeypatch: pytest.MonkeyPatch, least: int = 2, scores: int = 12, *, kernel: bool = False) -> None:
    """Have a CPU take every sentence, but of a few tokens, in blocks of few queries; or by torch's kernel if it can."""
    for name, value in (("LONG", 0), ("LEAST", least), ("SCORES", scores)):
        monkeypatch.setattr(cpu_attention, name, value)
    if not kernel:
        monkeypatch.setattr(cpu_attention, "has_kernel", lambda x, reach: False)


@pytest.fixture(params=["cpu", "cpu by blocks", "cpu by torch's kernel", "gpu", "gpu with varlen"])
def placed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Placed:
    """Have a tensor attend as on a CPU, or as on a GPU, whose kernel for packed sentences is played."""
    if request.param.startswith("cpu by"):
        take_blocks(monkeypatch, kernel=request.param.endswith("kernel"))
    monkeypatch.setattr(attention, "has_varlen", lambda q, head_dim: request.param == "gpu with varlen")
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    return Tensor.clone if request.param.startswith("cpu") else lambda x: x.as_subclass(Elsewhere)


@pytest.mark.parametrize("recurring", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_is_that_of_each_sentence(placed: Placed, causal: bool, recurring: bool) -> None:
    @settings(max_examples=8)
    @given(LENGTHS, WINDOWS)
    @example([(1, 1)] * 130, None)  # more filler than a sentence is long
    @example([(1, 1)] * 130 + [(6, 1)], 2)  # and padding from which no token is near
    def holds(lengths: list[tuple[int, int]], window: int | None) -> None:
        packed = packed_of(*(length for length, _ in lengths), recurring=recurring)
        qkv = doubles(len(packed.ids), 3 * 8)
        out = self_attention(placed(qkv), packed, 2, causal=causal, window=window)
        assert out.shape == (len(packed.ids), 8)
        assert out.isfinite().all(), "filler's rows are numbers too"
        expected = by_sentence(*qkv.chunk(3, 1), packed, packed, 2, causal, window)
        assert_same(out.as_subclass(Tensor), expected, (qkv,))

    holds()


@pytest.mark.parametrize("recurring", [False, True])
def test_cross_attention_is_that_of_each_pair(placed: Placed, recurring: bool) -> None:
    @settings(max_examples=8)
    @given(LENGTHS)
    @example([(1, 1)] * 130)  # more filler than a sentence is long
    def holds(lengths: list[tuple[int, int]]) -> None:
        tgt, src = (packed_of(*side, recurring=recurring) for side in zip(*lengths, strict=True))
        q, kv = doubles(len(tgt.ids), 8), doubles(len(src.ids), 2 * 8)
        out = cross_attention(placed(q), placed(kv), tgt, src, 2)
        assert out.isfinite().all()
        assert_same(out.as_subclass(Tensor), by_sentence(q, *kv.chunk(2, 1), tgt, src, 2, False), (q, kv))

    holds()


@DTYPES
@pytest.mark.parametrize("causal", [False, True])
def test_packed_attention_keeps_to_its_number_format(dtype: torch.dtype, tolerance: float, causal: bool) -> None:
    torch.manual_seed(0)
    packed = packed_of(5, 3, 1)
    qkv = torch.randn(len(packed.ids), 3 * 16, dtype=dtype, requires_grad=True)
    expected = by_sentence(*qkv.chunk(3, 1), packed, packed, 2, causal)
    assert_same(self_attention(qkv, packed, 2, causal=causal), expected, (qkv,), tolerance)


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_are_those_of_finite_differences(causal: bool) -> None:
    tgt, src = packed_of(3, 1), packed_of(1, 2)
    qkv, kv = doubles(len(tgt.ids), 3 * 4), doubles(len(src.ids), 2 * 4)
    assert torch.autograd.gradcheck(lambda x: self_attention(x, tgt, 2, causal=causal)[:4], qkv)
    assert torch.autograd.gradcheck(lambda q, kv: cross_attention(q, kv, tgt, src, 2)[:4], (doubles(5, 4), kv))
    q, k, v = (doubles(2, 1, 3, 2) for _ in range(3))
    later = torch.full((3, 3), -torch.inf).triu(1)
    assert torch.autograd.gradcheck(lambda *qkv: attend(*qkv, tgt.bias + later if causal else tgt.bias), (q, k, v))


def test_heads_are_set_side_by_side_and_laid_end_to_end() -> None:
    packed, x = packed_of(3, 1, 2), doubles(7, 2 * 6)
    heads = to_heads(x, packed, 3, 2)
    expected = x.view(7, 2, 3, 2)[packed.rows].permute(2, 0, 3, 1, 4)  # --> [parts, B, H, L, d]
    assert torch.equal(heads, expected)
    assert torch.equal(torch.cat([from_heads(part, packed)[:6] for part in heads], dim=1), x[:6])
    real = packed.mask[:, None, :, None]
    assert torch.autograd.gradcheck(lambda x: to_heads(x, packed, 3, 2) * real, x)
    assert torch.autograd.gradcheck(lambda y: from_heads(y, packed)[:6], doubles(3, 3, 3, 2))


# --- long sentences, and windows

def test_a_window_that_holds_every_sentence_is_none_to_the_bit() -> None:
    packed = packed_of(9, 4, 1)
    qkv = torch.randn(len(packed.ids), 3 * 16)
    for causal in (False, True):
        whole = self_attention(qkv, packed, 2, causal=causal)
        assert torch.equal(self_attention(qkv, packed, 2, causal=causal, window=8), whole)
        assert not torch.equal(self_attention(qkv, packed, 2, causal=causal, window=7)[:9], whole[:9])


@DTYPES
@pytest.mark.parametrize("kernel", [False, True])
@pytest.mark.parametrize("reach", [cpu_attention.ALL, cpu_attention.CAUSAL, (70, 70), (3, 0)])
def test_blocks_are_the_whole(dtype: torch.dtype, tolerance: float, reach: cpu_attention.Reach, kernel: bool,
                              monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the size that blocks have, in sentences that they do not divide."""
    torch.manual_seed(0)
    take_blocks(monkeypatch, 64, 2**14, kernel=kernel)
    packed, (before, after) = packed_of(300, 65, 1), reach
    assert cpu_attention._is_long(2, 300, 300)
    qkv = torch.randn(len(packed.ids), 3 * 16, dtype=dtype, requires_grad=True)
    window, causal = None if before < 0 else before, after == 0
    expected = by_sentence(*qkv.chunk(3, 1), packed, packed, 2, causal, window)
    assert_same(self_attention(qkv, packed, 2, causal=causal, window=window), expected, (qkv,), tolerance)


@DTYPES
def test_padded_sentences_are_attended_to_by_blocks(dtype: torch.dtype, tolerance: float,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """As an LSTM's decoder does; any bias has its rows."""
    torch.manual_seed(0)
    take_blocks(monkeypatch)
    q, k, v = (torch.randn(3, 2, length, 8, dtype=dtype, requires_grad=True) for length in (7, 5, 5))
    packed, later = packed_of(5, 3, 1), torch.full((7, 5), -torch.inf).triu(1)
    for bias in (packed.bias, later, packed.bias + later, None):
        mask = torch.ones(7, 5, dtype=torch.bool) if bias is None else bias.expand(3, 1, 7, 5) == 0
        assert_same(attend(q, k, v, bias), reference_attention(q, k, v, mask), (q, k, v), tolerance)


def test_gradients_of_blocks_are_those_of_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    take_blocks(monkeypatch, 1, 4)
    test_gradients_are_those_of_finite_differences(False)
    test_gradients_are_those_of_finite_differences(True)


@pytest.mark.parametrize("causal", [False, True])
def test_short_sentences_are_computed_whole_and_to_the_bit_as_before(causal: bool,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cpu_attention, "_blocks")
    packed = packed_of(200, 90)
    qkv = torch.randn(len(packed.ids), 3 * 64)
    q, k, v = to_heads(qkv, packed, 4, 3)
    scale, bias = 16**-0.5, torch.full((200, 200), -torch.inf).triu(1) if causal else packed.bias
    expected = from_heads(torch.add(bias, q @ k.transpose(-1, -2), alpha=scale).softmax(-1) @ v, packed)
    assert torch.equal(self_attention(qkv, packed, 4, causal=causal), expected)


def peak_bytes(length: int, window: int | None = None) -> int:
    """Those of attention to itself and to a source, forwards and backwards, beside what it is given."""
    packed = packed_of(length)
    qkv, kv = (torch.randn(len(packed.ids), parts * 32, requires_grad=True) for parts in (3, 2))
    with PeakBytes() as held:
        for causal in (False, True):
            self_attention(qkv, packed, 2, causal=causal, window=window).sum().backward()
        cross_attention(qkv[:, :32], kv, packed, packed, 2).sum().backward()
    return held.peak


@pytest.mark.parametrize(("kernel", "window"), [(False, None), (True, None), (True, 40)])
def test_memory_grows_with_the_length_and_not_with_its_square(kernel: bool, window: int | None,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    take_blocks(monkeypatch, 16, 2**12, kernel=kernel)
    assert peak_bytes(1024, window) < 2.2 * peak_bytes(512, window)
    monkeypatch.setattr(cpu_attention, "LONG", 2**40)
    assert peak_bytes(1024, window) > 3.5 * peak_bytes(512, window)


# --- with their weights

def test_attention_is_torch_multihead_attention_with_the_same_weights() -> None:
    ours, theirs = SelfAttention(16, 4).double(), nn.MultiheadAttention(16, 4, bias=False, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.out_proj.weight.copy_(ours.out.weight)
    packed = packed_of(7, 4, 1)
    rows = torch.randn(len(packed.ids), 16).double()
    x = packed.pad(rows)
    expected, _ = theirs(x, x, x, key_padding_mask=~packed.mask)
    found = packed.pad(ours(rows, packed))
    torch.testing.assert_close(found[packed.mask], expected[packed.mask], atol=1e-12, rtol=1e-12)


def test_cross_attention_is_torch_multihead_attention() -> None:
    ours, theirs = CrossAttention(16, 4).double(), nn.MultiheadAttention(16, 4, bias=False, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.q.weight, ours.kv.weight]))
        theirs.out_proj.weight.copy_(ours.out.weight)
    tgt, src = packed_of(3, 3), packed_of(5, 2)
    x, memory = torch.randn(len(tgt.ids), 16).double(), torch.randn(len(src.ids), 16).double()
    keys = src.pad(memory)
    expected, _ = theirs(tgt.pad(x), keys, keys, key_padding_mask=~src.mask)
    torch.testing.assert_close(tgt.pad(ours(x, tgt, memory, src)), expected, atol=1e-12, rtol=1e-12)
    stepped = ours.step(x[:6:3], [*ours.keys_values(memory, src), *source_bias(src, 4, x.dtype)], 1, x[:6:3])
    torch.testing.assert_close(stepped - x[:6:3], expected[:, 0], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(("head_dim", "dtype", "found"), [
    (64, torch.bfloat16, True), (64, torch.float32, False), (50, torch.bfloat16, False),
    (192, torch.float16, True), (200, torch.bfloat16, False), (512, torch.bfloat16, False)])
def test_the_kernel_for_packed_sentences_is_not_asked_for_what_it_refuses(
        head_dim: int, dtype: torch.dtype, found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))
    q = torch.zeros(1, dtype=dtype)
    assert not attention.has_varlen(q, head_dim)
    assert attention.has_varlen(q.as_subclass(Elsewhere), head_dim) == found
