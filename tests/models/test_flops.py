"""The operations of a forward pass, by formula and as torch counts them. Sentences of one length: nothing is padded."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from toys import FAMILIES, SPECIALS

from minitx.config.compose import compose
from minitx.data.batch import Packed, collate
from minitx.models.base import Seq2Seq
from minitx.training.state import RunState
from minitx.training.task import TranslationTask

# A window of short sentences is computed as the whole square with the rest hidden; `test_transformer` has its formula.
COUNTED = [name for name, make in FAMILIES.items() if type(make()).flops is not Seq2Seq.flops
           and not name.endswith("window")]


def counted(model: Seq2Seq, rows: int, source: int, target: int) -> int:
    """Let torch count, in kernels that it counts: oneDNN's LSTM and the CPU's attention are nothing to it."""
    batch = collate([[5] * (source - 1)] * rows, [[7] * (target - 1)] * rows, **SPECIALS)
    batch = replace(batch, src=without_filler(batch.src), tgt=without_filler(batch.tgt))
    model.requires_grad_(False)  # a gradient that is made on the way forwards would count
    task = TranslationTask(model, compose([]).optim, state=RunState(), precision="32-true", seed=1)
    with (torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH),
          FlopCounterMode(display=False) as counter):
        task.losses(task.model, batch, 0.0)
    return counter.get_total_flops()


def without_filler(packed: Packed) -> Packed:
    """Drop the last row, which nothing reads where sentences are of one length."""
    n = packed.n_tokens
    return replace(packed, ids=packed.ids[:n], places=packed.places[:n], slots=packed.slots[:n])


def test_our_own_families_count() -> None:
    assert {name.split()[0] for name in COUNTED} >= {"transformer", "lstm", "gnmt", "linear_rnn"}


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # what changing mkldnn's flags says of Intel GPUs
@pytest.mark.parametrize(("rows", "source", "target"), [(1, 1, 1), (3, 5, 5), (2, 9, 4), (4, 3, 8)])
@pytest.mark.parametrize("family", COUNTED)
def test_the_formula_is_what_is_counted(family: str, rows: int, source: int, target: int) -> None:
    model = FAMILIES[family]()
    flops = model.flops(np.full(rows, source), np.full(rows, target))
    assert flops == counted(model, rows, source, target)


@pytest.mark.parametrize("family", COUNTED)
def test_a_batch_costs_what_its_sentences_cost_one_by_one(family: str) -> None:
    model = FAMILIES[family]()
    lengths = np.array([3, 1, 8]), np.array([2, 9, 4])
    alone = [model.flops(*(side[i:i + 1] for side in lengths)) for i in range(3)]
    assert model.flops(*lengths) == sum(alone) > 0


def test_a_large_batch_does_not_overflow() -> None:
    lengths = np.full(100_000, 5_000, np.int64)
    assert FAMILIES["transformer rope"]().flops(lengths, lengths) > 5e14
