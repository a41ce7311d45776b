"""Layers of LSTMs and their attention against slower ways of computing the same."""

from collections.abc import Callable
from functools import cache, partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from toys import SPECIALS, random_batch, tiny_gnmt, tiny_lstm

from minitx.data.batch import pack
from minitx.decoding.search import beam
from minitx.models.base import Seq2Seq
from minitx.models.precision import computing_in
from minitx.models.recurrence import AdditiveAttention, DotAttention, EncoderLayer, Recurrence
from minitx.runs.checkpoint import load_tensors, model_tensors

SRC = pack([[5] * length for length in (7, 4, 1)], 0)
MASK, BIAS = SRC.mask, SRC.bias[:, 0]


def test_an_encoder_layer_is_torchs_packed_bidirectional_lstm() -> None:
    torch.manual_seed(0)
    ours, theirs = EncoderLayer(6, 10, True).double(), nn.LSTM(6, 5, batch_first=True, bidirectional=True).double()
    assert ours.backwards is not None
    with torch.no_grad():
        for suffix, part in (("", ours.forwards), ("_reverse", ours.backwards)):
            for name, weight in part.named_parameters():
                getattr(theirs, name + suffix).copy_(weight)
    x, lengths = torch.randn(3, 7, 6).double(), SRC.lengths
    packed, (h, _) = theirs(pack_padded_sequence(x, lengths, batch_first=True))
    expected, _ = pad_packed_sequence(packed, batch_first=True)
    outputs = ours(x, SRC)
    torch.testing.assert_close(outputs[MASK], expected[MASK], atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(ours.final(outputs, SRC), torch.cat([h[0], h[1]], dim=1), atol=1e-12, rtol=1e-12)


def test_reading_backwards_twice_is_reading() -> None:
    order = SRC.reversal
    assert order[1].tolist() == [3, 2, 1, 0, 4, 5, 6]
    assert torch.equal(order.gather(1, order), torch.arange(7).expand(3, 7))


def reference(scores: Tensor, values: Tensor) -> Tensor:
    return scores.masked_fill(~MASK[:, None], -torch.inf).softmax(-1) @ values


def test_dot_attention_is_its_equation() -> None:
    attention, h, values = DotAttention(8).double(), torch.randn(3, 5, 8).double(), torch.randn(3, 7, 8).double()
    expected = reference(h @ (values @ attention.key.weight.T).transpose(1, 2) / 8**0.5, values)
    torch.testing.assert_close(attention(h, values, attention.key(values), BIAS), expected)


def test_additive_attention_is_its_equation() -> None:
    attention, h, values = AdditiveAttention(8).double(), torch.randn(3, 5, 8).double(), torch.randn(3, 7, 8).double()
    scores = torch.stack([torch.stack([
        (attention.score.weight[0] * torch.tanh(attention.query.weight @ h[b, t] + attention.key(values[b]))).sum(-1)
        for t in range(5)]) for b in range(3)])
    torch.testing.assert_close(attention(h, values, attention.key(values), BIAS), reference(scores, values))


# --- a loop over cells


def assert_same(one: object, other: object) -> None:
    torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


@given(B=st.integers(1, 4), T=st.integers(1, 6), d_in=st.integers(1, 5), R=st.integers(1, 5), begun=st.booleans(),
       seed=st.integers(0, 99))
def test_a_loop_over_cells_is_the_fused_lstm(B: int, T: int, d_in: int, R: int, begun: bool, seed: int) -> None:
    """States, the last ones too, and every gradient."""
    torch.manual_seed(seed)
    fused, loop = Recurrence(d_in, R).double(), Recurrence(d_in, R, cell_loop=True).double()
    loop.load_state_dict(fused.state_dict())
    inputs = [torch.randn(shape).double().requires_grad_() for shape in ((B, T, d_in), *[(1, B, R)] * 2 * begun)]
    weights = [torch.randn(shape).double() for shape in ((B, T, R), (1, B, R), (1, B, R))]
    found = []
    for layer in (fused, loop):
        y, last = layer(inputs[0], tuple(inputs[1:]) or None)
        total = sum((weight * out).sum() for weight, out in zip(weights, (y, *last), strict=True))
        found.append([y, *last, *torch.autograd.grad(total, [*inputs, *layer.parameters()])])
    assert_same(*found)


LOOPING: dict[str, Callable[..., Seq2Seq]] = {
    "lstm": tiny_lstm, "lstm one way": partial(tiny_lstm, bidirectional=False),
    "lstm dot": partial(tiny_lstm, attention="dot"),
    "lstm additive fed": partial(tiny_lstm, attention="additive", input_feeding=True),
    "gnmt": tiny_gnmt, "gnmt deep": partial(tiny_gnmt, num_layers=5), "gnmt shallow": partial(tiny_gnmt, num_layers=2)}


@cache
def fused_and_loop(name: str) -> tuple[Seq2Seq, Seq2Seq]:
    """One model in both forms: the weights of the one are read by the other from its file."""
    fused, loop = LOOPING[name](seed=1).double(), LOOPING[name](seed=2, cell_loop=True).double()
    load_tensors(loop, load(save(model_tensors(fused))))
    return fused, loop


@pytest.mark.parametrize("name", LOOPING)
@given(rows=st.integers(1, 5), seed=st.integers(0, 99), recurring=st.booleans())
def test_a_model_is_the_same_either_way(name: str, rows: int, seed: int, recurring: bool) -> None:
    """Trained, and decoded with two hypotheses a sentence."""
    batch, found = random_batch(rows, seed, recurring=recurring), []
    for model in fused_and_loop(name):
        features = model(batch.src, batch.tgt)[:batch.n_tokens]
        gradients = torch.autograd.grad(features.square().sum() + model.project(features).sin().sum(),
                                        list(model.parameters()))
        with torch.inference_mode():
            state = model.init_state(model.encode(batch.src), batch.src, beam_size=2)
            hypotheses, logits = torch.arange(len(batch.src.lengths) * 2), []
            for _ in range(3):
                scores, state = model.step(3 + hypotheses % 9, state)
                logits.append(scores)
        found.append([features, *gradients, *logits])
    assert_same(*found)


@pytest.mark.parametrize("name", LOOPING)
def test_weights_are_read_either_way(name: str) -> None:
    fused, loop = fused_and_loop(name)
    assert fused.state_dict().keys() == loop.state_dict().keys()
    fresh = LOOPING[name](seed=3).double()
    load_tensors(fresh, load(save(model_tensors(loop))))
    assert_same(fresh.state_dict(), loop.state_dict())


def test_a_step_is_one_product_of_input_and_state(monkeypatch: pytest.MonkeyPatch) -> None:
    products, product = list[tuple[int, ...]](), F.linear
    monkeypatch.setattr(F, "linear", lambda x, *weights: products.append((*x.shape,)) or product(x, *weights))
    monkeypatch.setattr(torch, "lstm", None)
    Recurrence(5, 3, cell_loop=True)(torch.randn(2, 4, 5))
    assert products == [(2, 5 + 3)] * 4


@pytest.mark.parametrize("search", [False, True])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_layers_weights_are_joined_once_however_many_steps_it_takes(
        search: bool, dtype: torch.dtype | None, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch, joined, cat = tiny_gnmt(cell_loop=True), random_batch(3), list[torch.Size](), torch.cat
    layers = [module for module in model.modules() if isinstance(module, Recurrence)]
    shapes = {(4 * layer.hidden_size, layer.input_size + layer.hidden_size) for layer in layers}

    def watched(parts: list[Tensor], dim: int = 0) -> Tensor:
        whole = cat(parts, dim=dim)
        joined.extend([whole.shape] * (tuple(whole.shape) in shapes))
        return whole

    monkeypatch.setattr(torch, "cat", watched)
    with torch.inference_mode(search), computing_in(dtype):
        if search:
            beam(model, batch.src, max_lengths=torch.full((3,), 6), beam_size=2, length_penalty=1.0, **SPECIALS)
        else:
            model(batch.src, batch.tgt)
    assert len(joined) == len(layers)
