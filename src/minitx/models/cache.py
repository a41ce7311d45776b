"""What a decoder keeps of the target positions that it has read, with room for those to come.

L layers, N hypotheses of all sentences (B*K), H heads, D width, d = D / H, T positions kept.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

SPARE = 16  # positions there is room for beyond those that are kept, at least


@dataclass
class _Room:
    """Hold memory that several caches share, time first: what is kept lies together."""

    positions: Tensor  # [T and more, L, 2, N, D]
    written: int  # the positions that one of the caches has


@dataclass(frozen=True)
class Cache:
    """Hold each layer's keys and values of past positions. No cache ever changes.

    The next position is written behind them, in place, by the newest of those that share memory; an older one that goes
    on again gets memory of its own.
    """

    room: _Room
    start: int
    stop: int
    window: int | None  # positions that are kept while one more is read; None = all

    @classmethod
    def holding(cls, positions: Tensor, window: int | None = None) -> "Cache":
        """Hold these. positions: [T, L, 2, N, D], T may be 0"""
        return cls(_Room(positions, len(positions)), 0, len(positions), window)

    @property
    def positions(self) -> Tensor:
        """What is kept. [T, L, 2, N, D]"""
        return self.room.positions[self.start:self.stop]

    def extended(self) -> "Cache":
        """Return a cache with one position more, which its reader has to write."""
        start = self.start if self.window is None else max(self.start, self.stop - self.window)
        cache = replace(self, start=start)
        if self.room.written != self.stop or self.stop == len(self.room.positions):
            kept = cache.positions
            cache = self._in_new_room(len(kept), kept.shape[-2])
            cache.positions.copy_(kept)
        cache.room.written = cache.stop + 1
        return replace(cache, stop=cache.stop + 1)

    def take(self, rows: Tensor) -> "Cache":
        """Return a cache whose hypothesis i is what `rows[i]` was here. rows: [N']"""
        cache = self._in_new_room(self.stop - self.start, len(rows))
        torch.index_select(self.positions, 3, rows, out=cache.positions)
        return cache

    def by_head(self, n_heads: int) -> list[tuple[Tensor, Tensor]]:
        """Return each layer's keys and values as they lie there. --> L x 2 x [N*H, T, d]"""
        T, L, _, N, _ = self.positions.shape
        parts = self.positions.view(T, 2 * L, N * n_heads, -1).permute(1, 2, 0, 3).unbind()
        return list(zip(parts[0::2], parts[1::2], strict=True))

    def _in_new_room(self, length: int, rows: int) -> "Cache":
        """Return a cache of so many positions, still unwritten, of so many hypotheses."""
        _, L, _, _, D = self.room.positions.shape
        room = self.room.positions.new_empty(length + max(SPARE, length // 2), L, 2, rows, D)
        return replace(self, room=_Room(room, length), start=0, stop=length)
