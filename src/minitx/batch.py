"""What crosses from ids to tensors. B sentences, S source tokens, T target tokens.

Every source ends with EOS. A target `a b EOS` is read as `BOS a b` and predicted as `a b EOS`.
Masks are made here and nowhere else: True = a real token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Hold one padded micro-batch; `n_tokens` counts the real target tokens, EOS included."""

    src: Tensor  # [B, S]
    src_mask: Tensor  # [B, S] bool
    tgt_in: Tensor  # [B, T]
    tgt_out: Tensor  # [B, T]
    tgt_mask: Tensor  # [B, T] bool
    n_tokens: int

    def to(self, device: torch.device) -> "Batch":
        """Copy the tensors to a device, without waiting for the copy when memory is pinned."""
        tensors = (self.src, self.src_mask, self.tgt_in, self.tgt_out, self.tgt_mask)
        src, src_mask, tgt_in, tgt_out, tgt_mask = (tensor.to(device, non_blocking=True) for tensor in tensors)
        return Batch(src, src_mask, tgt_in, tgt_out, tgt_mask, self.n_tokens)


def pad(rows: Sequence[Sequence[int]], pad_id: int, multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Stack rows of unequal length. --> ids [B, L], mask [B, L] with L rounded up to `multiple`."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(-(-lengths.max() // multiple) * multiple) < lengths[:, None]
    ids = np.full(mask.shape, pad_id)
    ids[mask] = np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum()))  # 10 times faster than row by row
    return torch.from_numpy(ids), torch.from_numpy(mask)


def collate_src(src: Sequence[Sequence[int]], *, pad_id: int, eos_id: int, pad_to_multiple: int = 1) -> tuple[
        Tensor, Tensor]:
    """Pad sources, each closed by EOS. --> src [B, S], src_mask [B, S]"""
    return pad([[*row, eos_id] for row in src], pad_id, pad_to_multiple)


def collate(src: Sequence[Sequence[int]], tgt: Sequence[Sequence[int]], *, pad_id: int, bos_id: int, eos_id: int,
            pad_to_multiple: int = 1) -> Batch:
    """Pad pairs of ids (without specials) into a `Batch`."""
    src_ids, src_mask = collate_src(src, pad_id=pad_id, eos_id=eos_id, pad_to_multiple=pad_to_multiple)
    tgt_in, tgt_mask = pad([[bos_id, *row] for row in tgt], pad_id, pad_to_multiple)
    tgt_out, _ = pad([[*row, eos_id] for row in tgt], pad_id, pad_to_multiple)
    return Batch(src_ids, src_mask, tgt_in, tgt_out, tgt_mask, sum(len(row) + 1 for row in tgt))
