"""What models compute where CUDA has ways of its own, on a GPU that is played: the CPU's numbers."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from played_cuda import CUDA, played_gpu
from torch import Tensor, nn
from toys import FAMILIES, random_batch, tiny_linear_rnn, tiny_lstm, tiny_transformer

from minitx.data.batch import Batch
from minitx.decoding.search import _likeliest, beam, greedy
from minitx.models import attention, lstm
from minitx.models.base import Seq2Seq
from minitx.models.dropout import Dropout
from minitx.models.layers import LayerNorm, has_packed, has_tiles, has_vectors
from minitx.models.precision import computing_in
from minitx.training.loss import linear_cross_entropy

EXACT = {"atol": 1e-12, "rtol": 1e-12}
KERNELS = pytest.mark.parametrize("packed", [False, True], ids=["side by side", "packed"], indirect=True)


@pytest.fixture
def packed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have CUDA's attention take packed sentences in any number format, or in none."""
    monkeypatch.setattr(attention, "has_varlen", lambda q, head_dim: request.param)


def gradients(model: Seq2Seq, batch: Batch, dtype: torch.dtype | None = None) -> list[Tensor]:
    """Return the loss of an update and its gradients."""
    with computing_in(dtype):
        features = model(batch.src, batch.tgt)
    loss, _ = linear_cross_entropy(features, model.output.weight, batch.labels, 0.1)
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


@KERNELS
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_the_cpus(family: str, packed: None) -> None:
    @settings(max_examples=5)
    @given(rows=st.integers(1, 5) | st.integers(17, 20), seed=st.integers(0, 99), recurring=st.booleans())
    @example(rows=17, seed=0, recurring=True)  # filler, and idle sentences
    def holds(rows: int, seed: int, recurring: bool) -> None:
        make = FAMILIES[family]
        expected = gradients(make().double().train(), random_batch(rows, seed, recurring=recurring))
        with played_gpu():
            model, batch = make().to(CUDA).double().train(), random_batch(rows, seed, recurring=recurring).to(CUDA)
            assert batch.src.ids.device == next(model.parameters()).device == CUDA
            found = gradients(model, batch)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, **EXACT)

    holds()


@KERNELS
@pytest.mark.parametrize("family", ["transformer rope", "lstm dot fed", "linear_rnn rglru attention"])
def test_in_bf16_what_it_computes_is_bf16_and_near(family: str, packed: None) -> None:
    make, batch = FAMILIES[family], random_batch(9, recurring=True)
    expected = gradients(make(), batch)
    seen: set[torch.dtype] = set()
    with played_gpu():
        model = make().to(CUDA).train()
        for module in model.modules():
            if not isinstance(module, nn.Embedding) and not list(module.children()):
                module.register_forward_hook(lambda module, given, out: seen.add((out[0] if isinstance(out, tuple)
                                                                                  else out).dtype))
        found = gradients(model, batch, torch.bfloat16)
    assert seen == {torch.bfloat16}
    assert {gradient.dtype for gradient in found} == {torch.float32}
    for one, other in zip(found, expected, strict=True):
        assert F.cosine_similarity(one.double().flatten(), other.double().flatten(), dim=0) > 0.99


def test_a_recurrence_gets_its_weights_in_one_buffer_as_cudnn_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it copies them there at every call, and says so. In the format of its weights it is given them as they are:
    `nn.LSTM` laid them out when it was moved."""
    layer, x, seen = lstm.Recurrence(4, 6), torch.randn(2, 3, 4), list[Any]()
    plain = torch.lstm
    monkeypatch.setattr(torch, "lstm", lambda *given: (seen.append(given[2]), plain(*given))[1])
    with played_gpu(), computing_in(torch.bfloat16):
        layer(x.bfloat16())
        layer(x.bfloat16())
        layer(x)
    first, second, own = seen
    assert own == layer.all_weights[0]
    begin = first[0].storage_offset()
    for weight, cast, again in zip(own, first, second, strict=True):
        assert torch.equal(cast, weight.bfloat16())
        assert cast.is_contiguous()
        assert cast.storage_offset() == begin
        assert cast.data_ptr() == again.data_ptr(), "one cast for all steps of a search"
        begin += cast.numel()
    assert begin == first[0].untyped_storage().nbytes() // 2


@pytest.mark.parametrize("make", [tiny_transformer, tiny_lstm, tiny_linear_rnn])
@pytest.mark.parametrize("beam_size", [1, 3])
def test_what_is_found_is_what_a_cpu_finds(make: Any, beam_size: int) -> None:
    def found(model: Seq2Seq, batch: Batch) -> list[list[int]]:
        limits: dict[str, Any] = {"bos_id": 1, "eos_id": 2, "max_lengths": torch.full((5,), 9)}
        if beam_size == 1:
            return greedy(model, batch.src, **limits)
        hypotheses = beam(model, batch.src, beam_size=beam_size, length_penalty=0.6, n_best=2, **limits)
        return [hypothesis.ids for sentence in hypotheses for hypothesis in sentence]

    expected = found(make().double(), random_batch(5))
    with played_gpu():
        assert found(make().to(CUDA).double(), random_batch(5).to(CUDA)) == expected


def test_tricks_with_the_bits_of_bf16_are_the_cpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles, and comparing as integers."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    x = torch.randn(9, 40).bfloat16()
    x[::2] = x[::2].round()  # many are equal, and in a row below none is positive
    x[1] = -x[1].abs()
    with torch.inference_mode(), computing_in(None):
        single = torch.ones(1)
        assert has_tiles(x)
        assert has_packed(x)
        assert has_packed(single) == has_vectors()
        with played_gpu():
            assert not has_tiles(x)
            assert not has_packed(x)
            assert not has_packed(single)
    with played_gpu():
        found = _likeliest(x.clone())
    assert found.tolist() == [row.tolist().index(row.max()) for row in x]


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_keeps_the_mean_and_is_that_of_its_seed(p: float) -> None:
    drop, x = Dropout(p).train(), torch.ones(400, 500, requires_grad=True)
    with played_gpu():
        torch.manual_seed(3)
        first = drop(x)
        torch.manual_seed(3)
        added = drop.add(2 * x, x)
        assert drop.eval()(x) is x
    assert (first == 0).double().mean() == pytest.approx(p, abs=5 / x.numel()**0.5)
    assert first.unique().tolist() == pytest.approx([0, 1 / (1 - p)])
    assert torch.equal(added, 2 + first)
    (gradient,) = torch.autograd.grad(first.sum(), x)
    assert torch.equal(gradient, first)


def test_a_norm_takes_its_weights_in_the_format_of_its_input() -> None:
    """The CPU's kernel wants them in fp32, CUDA's does not take them so."""
    norm, x = LayerNorm(8), torch.randn(5, 8)
    with torch.no_grad():
        for p in norm.parameters():
            p.normal_()
    weights: list[Tensor] = []
    plain = torch.layer_norm
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "layer_norm", lambda *given: (weights.extend(given[2:4]), plain(*given))[1])
        with played_gpu():
            found = norm(x.bfloat16())
    assert {weight.dtype for weight in weights} == {found.dtype} == {torch.bfloat16}
    torch.testing.assert_close(found.float(), norm(x), atol=0.05, rtol=0.02)
