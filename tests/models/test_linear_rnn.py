"""The linear RNN against its published equations, written plainly: one sentence, one token, one unit at a time."""

import math
from contextlib import nullcontext
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from played_cuda import played_gpu
from torch import Tensor
from toys import CELLS, FAMILIES, all_logits, random_batch, sentences, tiny_linear_rnn

from minitx.config.compose import compose
from minitx.config.schema import SIZES, resolve_size
from minitx.models.linear_rnn import RGLRU, LinearRNN, Recurrence
from minitx.models.precision import computing_in
from minitx.models.registry import build_model
from minitx.utils.errors import UserError

ATTENTION = ("none", "dot")


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def unit(cell: str, read: list[float], decay: float, before: float) -> float:
    """Return a unit's next state, as the papers write it."""
    if cell == "ssru":
        f = sigmoid(read[0])
        return f * before + (1 - f) * read[1]
    if cell == "mingru":
        z = sigmoid(read[0])
        return (1 - z) * before + z * read[1]
    a = math.exp(-8 * sigmoid(read[0]) * math.log1p(math.exp(decay)))
    return a * before + math.sqrt(1 - a * a) * (sigmoid(read[1]) * read[2])


def plain_recurrence(cell: str, layer: Recurrence, x: Tensor, start: Tensor | None = None) -> Tensor:
    """x: [L, D] of one sentence --> [L, D]"""
    width, ways, parts = layer.width, layer.ways, layer.cell.parts
    read = (x @ layer.read.weight.T + layer.read.bias).tolist()
    decay = layer.cell.decay.tolist() if isinstance(layer.cell, RGLRU) else [0.0] * width * ways
    out = torch.zeros(len(x), width * ways).double()
    for way, i in product(range(ways), range(width)):
        state = 0.0 if start is None else float(start[way * width + i])
        for t in range(len(x))[::-1] if way else range(len(x)):
            state = unit(cell, [read[t][(way * parts + part) * width + i] for part in range(parts)],
                         decay[way * width + i], state)
            out[t, way * width + i] = max(state, 0.0) if cell == "ssru" else state
    return out @ layer.out.weight.T


def plain_attention(cross: torch.nn.Module, x: Tensor, memory: Tensor) -> Tensor:
    """Attend from each of [T, D] to [S, D], head by head."""
    assert isinstance(cross.n_heads, int)
    q, (k, v) = x @ cross.q.weight.T, (memory @ cross.kv.weight.T).chunk(2, -1)
    heads = [(one @ other.T / one.shape[1] ** 0.5).softmax(-1) @ value for one, other, value in
             zip(*(t.chunk(cross.n_heads, -1) for t in (q, k, v)), strict=True)]
    return torch.cat(heads, dim=-1) @ cross.out.weight.T


def plain_logits(cell: str, model: LinearRNN, source: list[int], target: list[int]) -> Tensor:
    """Run the model over one pair. --> [T, V]"""
    x = model.src_embed.weight[source] * model.src_embed.embedding_dim ** 0.5
    for layer in model.encoder:
        x = x + plain_recurrence(cell, layer.recurrence, layer.add_recurrence.norm(x))
        x = x + layer.feed_forward(layer.add_feed_forward.norm(x))
    memory = model.encoder_norm(x)
    x = model.tgt_embed.weight[target] * model.tgt_embed.embedding_dim ** 0.5
    for number, layer in enumerate(model.decoder):
        start = model.bridges[number](torch.cat([memory[-1], memory[0]])) if len(model.bridges) else None
        x = x + plain_recurrence(cell, layer.recurrence, layer.add_recurrence.norm(x), start)
        if layer.cross is not None:
            x = x + plain_attention(layer.cross, layer.add_cross.norm(x), memory)
        x = x + layer.feed_forward(layer.add_feed_forward.norm(x))
    return model.decoder_norm(x) @ model.output.weight.T


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("on_gpu", [False, True], ids=["CPU", "GPU"])
@settings(max_examples=10)
@given(rows=st.integers(1, 4), seed=st.integers(0, 99))
def test_it_is_its_equations(cell: str, attention: str, on_gpu: bool, rows: int, seed: int) -> None:
    model, batch = tiny_linear_rnn(seed, cell=cell, attention=attention).double(), random_batch(rows, seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:
                p.add_(torch.randn_like(p))  # biases and norms that have been trained
        expected = [plain_logits(cell, model, *pair) for pair in zip(sentences(batch.src), sentences(batch.tgt),
                                                                     strict=True)][:rows]
        with played_gpu() if on_gpu else nullcontext():
            found = all_logits(model, batch.src, batch.tgt)
    for logits, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(logits[:len(plain)], plain, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("attention", ATTENTION)
def test_a_state_does_not_grow_with_what_was_read(attention: str) -> None:
    model, batch = tiny_linear_rnn(attention=attention), random_batch(2)
    state = model.init_state(model.encode(batch.src), batch.src, beam_size=3)
    for _ in range(5):
        assert [tuple(t.shape) for t in state.beams] == [(6, 12)] * 2
        assert len(state.sentences) == (5 if attention == "dot" else 0)
        _, state = model.step(torch.tensor([4] * 6), state)


@pytest.mark.parametrize("cell", CELLS)
def test_states_are_kept_in_fp32(cell: str) -> None:
    """In bf16, a thousand small steps towards a value would come to a halt on the way."""
    layer = tiny_linear_rnn(cell=cell).decoder[0].recurrence.bfloat16()
    state = torch.zeros(3, 12)
    for _ in range(2):
        out, state = layer.step(torch.randn(3, 16).bfloat16(), state, torch.zeros(3, 16).bfloat16())
        assert (out.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    model, batch = tiny_linear_rnn(cell=cell), random_batch(2)
    with computing_in(torch.bfloat16):
        started = model.init_state(model.encode(batch.src), batch.src)
    assert {t.dtype for t in started.beams} == {torch.float32}


@pytest.mark.parametrize("gate", [-800.0, -90.0, -20.0, 0.0, 800.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gate_that_is_shut_has_a_gradient_that_is_finite(gate: float, dtype: torch.dtype) -> None:
    """The root of 1 - a^2 has none at a = 1, where an RG-LRU's unit keeps its state for good."""
    cell = RGLRU(4, 1).to(dtype)
    parts = [torch.full((3, 1, 4), value, dtype=dtype, requires_grad=True) for value in (gate, 0.5, 2.0)]
    a, b = cell.coefficients(parts)
    (a.sum() + b.sum()).backward()
    assert all(t.grad is not None and bool(t.grad.isfinite().all()) for t in (*parts, cell.decay))
    torch.testing.assert_close(a**2 + (b / (torch.tensor(0.5).sigmoid() * 2)).square(), torch.ones_like(a))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("ways", [1, 2])
def test_states_begin_by_outliving_a_few_tokens_whichever_way_they_are_read(cell: str, ways: int) -> None:
    layer = Recurrence(8, 16, cell, ways)
    layer.remember()
    read = layer.read(torch.zeros(1, 8)).view(1, ways, layer.cell.parts, 16 // ways)
    a, _ = layer.cell.coefficients(read.unbind(-2))
    assert a.min() > 0.7
    for way in a.unbind(1):
        torch.testing.assert_close(way, a[:, 0])


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("cell", CELLS)
def test_each_cell_has_as_many_parameters_as_the_transformer(cell: str, attention: str) -> None:
    """Within 10 %, as `test_families` wants of the cell that is the default."""
    for size in SIZES:
        counts = []
        for words in (["model=linear_rnn", f"model.cell={cell}", f"model.attention={attention}"],
                      ["model=transformer"]):
            with torch.device("meta"):
                model = build_model(resolve_size(compose([*words, f"model.size={size}"]).model),
                                    src_vocab_size=8000, tgt_vocab_size=8000)
            counts.append(sum(p.numel() for p in model.parameters()))
        assert counts[0] == pytest.approx(counts[1], rel=0.1), size


@pytest.mark.parametrize(("words", "message"), [
    (["model.d_hidden=33"], "model.d_hidden=33: must be even, since half of it reads backwards"),
    (["model.n_heads=3", "model.d_model=32", "model.attention=dot"],
     "model.n_heads=3: must divide model.d_model=32 into equal parts"),
    (["model.attention=additive"], "model.attention=additive: must be dot or none for model.family=linear_rnn, whose "
                                   "attention is the Transformer's")])
def test_widths_that_do_not_fit_together_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        compose(["model=linear_rnn", *words])
    assert str(caught.value) == message


def test_heads_need_not_fit_where_none_attends() -> None:
    compose(["model=linear_rnn", "model.n_heads=3", "model.d_model=32"])


def test_the_matrix_has_every_cell() -> None:
    assert {f"linear_rnn {cell}{attends}" for cell in CELLS for attends in ("", " attention")} <= FAMILIES.keys()
