"""A Transformer's positions as a table, which formats hold that know no other kind."""

import torch
from torch import Tensor

from minitx.config.schema import DecodeConfig
from minitx.models.layers import LearnedPositions
from minitx.models.transformer import Transformer


def position_table(model: Transformer, rows: int) -> Tensor:
    """Return what the model adds to embeddings at positions from 0. --> fp32 [rows, D], [max_positions, D] if learned

    A model without positions adds zeros. Rotary ones are no table; such a model has none here either.
    """
    if model.positions is None:
        return torch.zeros(rows, model.src_embed.embedding_dim)
    if isinstance(model.positions, LearnedPositions):
        rows = model.positions.table.num_embeddings
    with torch.inference_mode():
        table: Tensor = model.positions(torch.arange(rows), rows, torch.float32)
    return table


def longest(decode: DecodeConfig) -> int:
    """Return the most tokens that the run's own search reads or writes, EOS included."""
    most = decode.max_source_length
    return max(most, round(most * decode.max_length_ratio) + decode.max_length_extra)
