"""The loop that one writes first, without a toolkit: `nn.Transformer`, random batches, Adam."""

from math import log, sqrt
from random import Random
from typing import Any

from benchmarks import work
from benchmarks.work import Job, Meter, Report

PACKAGES = ("numpy==2.4.6", "sentencepiece==0.2.3")
PRECISIONS = ("fp32", "bf16")
SENTENCES = 260  # an update; times 15.8 tokens


def train(job: Job, report: Report) -> None:
    """Train until killed."""
    import torch
    from torch import nn
    from torch.nn.utils.rnn import pad_sequence

    class Translator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(work.VOCAB, work.D_MODEL, padding_idx=work.PAD)
            nn.init.normal_(self.embedding.weight, std=work.D_MODEL**-0.5)
            self.dropout = nn.Dropout(work.DROPOUT)
            self.transformer = nn.Transformer(work.D_MODEL, work.HEADS, work.LAYERS, work.LAYERS, work.D_FF,
                                              work.DROPOUT, batch_first=True)
            self.register_buffer("positions", _sinusoids(512))

        def embed(self, ids: Any) -> Any:
            return self.dropout(self.embedding(ids) * sqrt(work.D_MODEL) + self.positions[:ids.shape[1]])

        def forward(self, src: Any, tgt: Any) -> Any:
            causal = self.transformer.generate_square_subsequent_mask(tgt.shape[1], dtype=torch.bool)
            features = self.transformer(self.embed(src), self.embed(tgt), tgt_mask=causal, tgt_is_causal=True,
                                        src_key_padding_mask=src == work.PAD, tgt_key_padding_mask=tgt == work.PAD,
                                        memory_key_padding_mask=src == work.PAD)
            return features @ self.embedding.weight.T

    torch.manual_seed(1)
    model, meter = Translator(), Meter(job, report)
    criterion = nn.CrossEntropyLoss(ignore_index=work.PAD, label_smoothing=work.SMOOTHING)
    optimizer = torch.optim.Adam(model.parameters(), lr=work.LR, betas=(work.BETA1, work.BETA2))
    pairs = list(zip(job.ids("train", work.SRC), job.ids("train", work.TGT), strict=True))
    for batch in _batches(len(pairs)):
        src = pad_sequence([torch.tensor([*pairs[i][0], work.EOS]) for i in batch], True, work.PAD)
        tgt = pad_sequence([torch.tensor([work.BOS, *pairs[i][1], work.EOS]) for i in batch], True, work.PAD)
        with torch.autocast("cpu", torch.bfloat16, enabled=job.precision == "bf16"):
            loss = criterion(model(src, tgt[:, :-1]).flatten(0, 1), tgt[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        meter.update(int((tgt[:, 1:] != work.PAD).sum()))


def _batches(count: int) -> Any:
    """Yield batches of row numbers, shuffled again each epoch."""
    random, order = Random(1), list(range(count))
    while True:
        random.shuffle(order)
        yield from (order[i:i + SENTENCES] for i in range(0, count, SENTENCES))


def _sinusoids(length: int) -> Any:
    """Vaswani et al. 2017, section 3.5. --> [length, D_MODEL]"""
    import torch

    angles = torch.arange(length)[:, None] * torch.exp(torch.arange(0, work.D_MODEL, 2) * (-log(10_000) / work.D_MODEL))
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)
