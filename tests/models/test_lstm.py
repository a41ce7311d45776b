"""What the LSTM can and cannot see, and how often its parts run."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from toys import random_batch, tiny_lstm

from minitx.data.batch import collate
from minitx.models.precision import computing_in
from minitx.models.recurrence import Recurrence


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
