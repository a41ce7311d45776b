"""The Transformer: what it must and must not sense."""

from dataclasses import replace

import pytest
import torch
from toys import POSITIONS, all_logits, tiny_transformer

from minitx.data.batch import collate, pack


@pytest.mark.parametrize("pos_encoding", POSITIONS)
def test_source_order_is_sensed_with_positions_alone(pos_encoding: str) -> None:
    """Permuted source token ids give the same logits without positions, and other ones with any encoding."""
    model = tiny_transformer(pos_encoding=pos_encoding).double()
    batch = collate([[3, 4, 5, 6, 7, 8]], [[9, 10, 11]], pad_id=0, bos_id=1, eos_id=2)
    order = torch.tensor([3, 1, 6, 0, 5, 2, 4, 7])  # the filler stays
    permuted = replace(batch.src, ids=batch.src.ids[order])
    change = (model(permuted, batch.tgt) - model(batch.src, batch.tgt))[:4].abs().max().item()
    assert change < 1e-9 if pos_encoding == "none" else change > 1e-3


def test_target_order_is_sensed_even_without_positions() -> None:
    """A causal decoder of two layers tells prefixes apart that hold the same tokens in another order."""
    model = tiny_transformer(pos_encoding="none").double()
    src, tgt = pack([[3, 4, 2]] * 2, 0), pack([[1, 5, 6, 7], [1, 6, 5, 7]], 0)
    one, other = all_logits(model, src, tgt)[:, -1]
    assert (one - other).abs().max() > 1e-3
