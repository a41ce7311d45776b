"""Layers of LSTMs and their attention against slower ways of computing the same."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from minitx.data.batch import pack
from minitx.models.recurrence import AdditiveAttention, DotAttention, EncoderLayer, reversal

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
