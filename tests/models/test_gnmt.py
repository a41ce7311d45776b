"""GNMT against its published form, written plainly, and what its operations come to."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from toys import random_batch, tiny_gnmt

from minitx.config.compose import compose
from minitx.config.schema import resolve_size
from minitx.data.batch import Packed
from minitx.models.gnmt import GNMT
from minitx.models.recurrence import Recurrence
from minitx.models.registry import build_model


def test_the_big_size_has_the_operations_that_published_speeds_are_of() -> None:
    """NVIDIA's DeepLearningExamples, PyTorch/Translation/GNMT: 4 + 4 layers of 1,024, 32,320 entries."""
    cfg = resolve_size(compose(["model=gnmt", "model.size=big"]).model)
    with torch.device("meta"):
        model = build_model(cfg, src_vocab_size=32_320, tgt_vocab_size=32_320)
    assert isinstance(model, GNMT)
    on_source, on_target = model.multiply_adds
    cell = 4 * 1024 * 1024  # the gates read a vector of 1,024
    assert on_source == (4 + 3 + 2 + 2) * cell + 1024**2 == pytest.approx(47.2e6, abs=5e4)
    assert on_target == (2 + 3 * 3) * cell + 1024**2 + 1024 * 32_320 == pytest.approx(80.3e6, abs=5e4)


def plain_lstm(ours: Recurrence, reverse: Recurrence | None = None) -> nn.LSTM:
    """torch's own layer with our weights."""
    theirs = nn.LSTM(ours.input_size, ours.hidden_size, batch_first=True, bidirectional=reverse is not None).double()
    with torch.no_grad():
        for suffix, part in (("", ours), ("_reverse", reverse)):
            for name, weight in part.named_parameters() if part is not None else ():
                getattr(theirs, name + suffix).copy_(weight)
    return theirs


def plain_gnmt(model: GNMT, src: Packed, tgt: Packed) -> Tensor:
    """Do what NVIDIA's modules do (seq2seq/models: encoder.py, decoder.py, attention.py), one attention at a time."""
    scale = model.src_embed.embedding_dim ** 0.5
    first, *others = model.encoder
    x = pack_padded_sequence(model.src_embed(src.ids[src.rows]) * scale, src.lengths, True, enforce_sorted=False)
    x, _ = pad_packed_sequence(plain_lstm(first.forwards, first.backwards)(x)[0], batch_first=True)
    x, _ = plain_lstm(others[0].forwards)(x)
    for layer in others[1:]:
        x = x + plain_lstm(layer.forwards)(x)[0]
    memory, attention = x, model.attention
    x, _ = plain_lstm(model.decoder[0])(model.tgt_embed(tgt.ids[tgt.rows]) * scale)
    context = torch.zeros_like(x)
    for b, n in enumerate(src.lengths.tolist()):
        for t in range(x.shape[1]):
            hidden = torch.tanh(attention.query(x[b, t]) + attention.key(memory[b, :n]))
            context[b, t] = (hidden @ attention.score.weight[0]).softmax(0) @ memory[b, :n]
    x, _ = plain_lstm(model.decoder[1])(torch.cat([x, context], dim=2))
    for layer in list(model.decoder)[2:]:
        x = x + plain_lstm(layer)(torch.cat([x, context], dim=2))[0]
    return x[tgt.mask]


@pytest.mark.parametrize("cell_loop", [False, True])
@pytest.mark.parametrize("num_layers", [2, 4])
def test_it_is_the_published_network(num_layers: int, cell_loop: bool) -> None:
    model, batch = tiny_gnmt(num_layers=num_layers, cell_loop=cell_loop).double(), random_batch(5)
    with torch.no_grad():
        expected = plain_gnmt(model, batch.src, batch.tgt)
        found = model(batch.src, batch.tgt)[:batch.n_tokens]
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("cell_loop", [False, True])
def test_a_layer_runs_over_all_steps_or_a_step_through_all_layers(cell_loop: bool) -> None:
    model, batch, order = tiny_gnmt(cell_loop=cell_loop), random_batch(3), list[str]()
    for name, layer in model.named_modules():
        if name.startswith(("decoder.", "attention")) and name.count(".") == name.startswith("decoder."):
            layer.register_forward_hook(lambda *_, name=name: order.append(name))
    model(batch.src, batch.tgt)
    assert order == ["decoder.0", "attention", "decoder.1", "decoder.2"] * (batch.tgt.longest if cell_loop else 1)


def test_all_of_the_source_reaches_every_upper_layer_through_attention_alone() -> None:
    """The decoder starts from zeros: with an attention that finds nothing, no source makes a difference."""
    model, batch = tiny_gnmt().double(), random_batch(4)
    memory = model.encode(batch.src)
    assert not torch.equal(*(model.features(m, batch.src, batch.tgt) for m in (memory, memory.flip(2))))
    model.attention.register_forward_hook(lambda _, inputs, output: torch.zeros_like(output))
    assert torch.equal(*(model.features(m, batch.src, batch.tgt) for m in (memory, memory.flip(2))))
