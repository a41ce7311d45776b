"""The LSTM against slower ways of computing the same, and what it can and cannot see."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from toys import random_batch, tiny_lstm

from minitx.data.batch import collate, pack
from minitx.models.lstm import AdditiveAttention, DotAttention, EncoderLayer, Recurrence, reversal
from minitx.models.precision import computing_in

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
    order = reversal(SRC)
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


def test_without_attention_only_final_states_are_seen() -> None:
    """Memory between the ends may be anything; with attention it matters."""
    batch = collate([[3, 4, 5, 6, 7]], [[8, 9]], pad_id=0, bos_id=1, eos_id=2)
    for attention, matters in (("none", False), ("dot", True), ("additive", True)):
        model = tiny_lstm(attention=attention).double()
        memory = model.encode(batch.src)
        garbled = memory.clone()
        garbled[:, 1:-1] = 9.0
        one, other = (model.features(m, batch.src, batch.tgt) for m in (memory, garbled))
        assert (not torch.equal(one, other)) == matters


def test_teacher_forcing_runs_the_decoder_once_unless_fed(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, calls = random_batch(3), []
    original = Recurrence.forward
    monkeypatch.setattr(Recurrence, "forward", lambda self, *a: calls.append(1) or original(self, *a))
    for fed, expected in ((False, 2), (True, 2 * batch.tgt.longest)):
        model = tiny_lstm(attention="dot", input_feeding=fed)
        memory = model.encode(batch.src)
        calls.clear()
        model.features(memory, batch.src, batch.tgt)
        assert len(calls) == expected


def test_fed_vectors_reach_the_next_step() -> None:
    """What the last step found is part of what the next one reads."""
    model, batch = tiny_lstm(attention="dot", input_feeding=True).double(), random_batch(2)
    state = model.init_state(model.encode(batch.src), batch.src)
    _, state = model.step(torch.tensor([4, 5]), state)
    expected, _ = model.step(torch.tensor([6, 7]), state)
    state.beams[-1].zero_()
    assert not torch.equal(model.step(torch.tensor([6, 7]), state)[0], expected)


def test_order_is_sensed() -> None:
    model = tiny_lstm(attention="dot").double()
    batch = collate([[3, 4, 5, 6]], [[9, 10]], pad_id=0, bos_id=1, eos_id=2)
    permuted = replace(batch.src, ids=batch.src.ids[torch.tensor([1, 0, 3, 2, 4, 5])])
    change = (model(permuted, batch.tgt) - model(batch.src, batch.tgt))[:3]
    assert change.abs().max() > 1e-4


def test_weights_are_cast_once_however_often_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """With input feeding a layer runs at each step; each of its weights has one copy in bf16."""
    model, batch, seen = tiny_lstm(attention="additive", input_feeding=True), random_batch(3), set[int]()
    original = torch.lstm
    monkeypatch.setattr(torch, "lstm", lambda x, state, weights, *a: seen.update(map(id, weights))
                        or original(x, state, weights, *a))
    with computing_in(torch.bfloat16):
        model(batch.src, batch.tgt)
    recurrences = [module for module in model.modules() if isinstance(module, nn.LSTM)]
    assert len(seen) == sum(len(module.all_weights[0]) for module in recurrences)
