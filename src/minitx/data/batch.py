"""Ids to tensors: sentences laid end to end, without padding between them.

Every source ends with EOS. A target `a b EOS` is read as `BOS a b` and predicted as `a b EOS`.
What works token by token runs over rows of tokens; what needs sentences side by side (attention, recurrence) pads them
there and then, by index. Masks are made here and nowhere else: True = a real token.

B sentences, L places of the longest (S of sources, T of targets), N rows, D any width, H heads.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from minitx.utils.autograd import apply_function

Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class Packed:
    """Hold B sentences as rows of tokens, one after the other, and at least one row of filler after the last.

    Filler is pad ids. Padding reads it, and it makes sizes recur; nothing that counts ever reads it.
    Two sentences, `5 6 2` and `7 2`, with 0 as the pad id: n_tokens = 5, N = 6, B = 2, L = 3.

        ids     [5, 6, 2, 7, 2, 0]              row 5 is filler
        places  [0, 1, 2, 0, 1, 0]
        slots   [0, 1, 2, 3, 4, 0]              slot 5, sentence 1's third, is padding: no row goes there
        rows    [[0, 1, 2], [3, 4, 5]]          and what reads it gets row 5
        mask    [[True, True, True], [True, True, False]]
        starts  [0, 3, 5, 6]                    of the sentences, of the filler, and N
    """

    ids: Tensor  # [N]
    places: Tensor  # [N], of each token in its sentence
    slots: Tensor  # [N], of each token in [B * L]; 0 for filler
    rows: Tensor  # [B, L], of each place in [N]; N - 1 for padding
    mask: Tensor  # [B, L] bool; an idle sentence, there for its shape alone, counts its first place
    starts: Tensor  # [sentences + 2] int32, of each sentence in [N], the filler being one more, and N
    n_tokens: int  # real ones: the first rows
    _made: dict[Hashable, Any] = field(default_factory=dict, repr=False)  # of these, once asked for

    def to(self, device: torch.device | str) -> "Packed":
        """Copy the tensors to a device; the host does not wait."""
        tensors = (self.ids, self.places, self.slots, self.rows, self.mask, self.starts)
        ids, places, slots, rows, mask, starts = (to_device(tensor, device) for tensor in tensors)
        return Packed(ids, places, slots, rows, mask, starts, self.n_tokens)

    @property
    def longest(self) -> int:
        """Return L, the places of the longest sentence."""
        return self.rows.shape[1]

    @property
    def lengths(self) -> Tensor:
        """Return the real tokens of each sentence, or 1 if it is idle. [B]"""
        return self._once("lengths", lambda: self.mask.sum(1))

    @property
    def bias(self) -> Tensor:
        """Return what attention adds to its scores: -inf at padding, else 0. [B, 1, 1, L] fp32"""
        def make() -> Tensor:
            zeros = torch.zeros(self.mask.shape, device=self.mask.device)
            return zeros.masked_fill_(~self.mask, -torch.inf)[:, None, None]

        return self._once("bias", make)

    def window_bias(self, before: int, after: int) -> Tensor:
        """Return what self-attention adds where tokens see so many before and after them. [B or 1, 1, L, L] fp32

        It is -inf beyond and at padding, else 0. Padding sees padding: a softmax over nothing is no number.
        """
        def make() -> Tensor:
            place = torch.arange(self.longest, device=self.mask.device)
            offset = place - place[:, None]
            hidden = ((offset < -before) | (offset > after))[None]
            if after > 0:  # else padding is the future
                hidden = hidden | (self.mask[:, :, None] & ~self.mask[:, None])
            zeros = torch.zeros(hidden.shape, device=self.mask.device)
            return zeros.masked_fill_(hidden, -torch.inf)[:, None]

        return self._once(("window", before, after), make)

    def pad(self, x: Tensor) -> Tensor:
        """Set sentences side by side. [N, D] --> [B, L, D], padding being whatever the last row is"""
        return gather_rows(x, self.rows.flatten(), self.slots, self.n_tokens).view(*self.rows.shape, -1)

    def pack(self, x: Tensor) -> Tensor:
        """Concatenate sentences without padding. [B, L, D] --> [N, D], filler being whatever the first place is"""
        return gather_rows(x.flatten(0, 1), self.slots, self.rows.flatten())

    def head_indices(self, n_heads: int, parts: int) -> tuple[Tensor, Tensor]:
        """Return which of [N, parts, H] each entry of [parts, B, H, L] is, and the inverse; both flat."""
        def make() -> tuple[Tensor, Tensor]:
            (B, L), device = self.rows.shape, self.rows.device
            part, head = torch.arange(parts, device=device)[:, None], torch.arange(n_heads, device=device)
            sentence, place = (t[:, None, None] for t in (self.slots // L, self.slots % L))
            index = (self.rows[:, None] * parts + part[:, None, None]) * n_heads + head[:, None]
            inverse = ((part * B + sentence) * n_heads + head) * L + place
            return index.flatten(), inverse.flatten()

        return self._once((n_heads, parts), make)

    @property
    def reversal(self) -> Tensor:
        """Return each sentence's places in reverse; those of padding stay. [B, L]"""
        def make() -> Tensor:
            places = torch.arange(self.longest, device=self.mask.device)
            return torch.where(self.mask, self.lengths[:, None] - 1 - places, places)

        return self._once("reversal", make)

    def step_indices(self, ways: int) -> tuple[Tensor, Tensor]:
        """Return which of [N, ways] each entry of [L, B, ways] is, and the inverse; both flat.

        Sentences go a step at a time: the first way forwards, the second, if there is one, backwards.
        """
        def make() -> tuple[Tensor, Tensor]:
            (B, L), way = self.rows.shape, torch.arange(ways, device=self.rows.device)
            sentence, place = self.slots // L, self.slots % L
            rows = [self.rows, self.rows.gather(1, self.reversal)][:ways]
            steps = [place, self.lengths[sentence] - 1 - place][:ways]
            index = torch.stack(rows, dim=-1).transpose(0, 1) * ways + way
            inverse = (torch.stack(steps, dim=-1) * B + sentence[:, None]) * ways + way
            return index.flatten(), inverse.flatten()

        return self._once(("steps", ways), make)

    def _once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """Return what is made of this, and keep it; compiled code makes it anew, where that costs nothing."""
        if torch.compiler.is_compiling():
            return make()
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made


def to_device(x: Tensor, device: torch.device | str) -> Tensor:
    """Copy to a device. For a GPU the memory is pinned first, so that the host need not wait for the copy."""
    if torch.device(device).type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device, non_blocking=True)


def gather_rows(x: Tensor, rows: Tensor, inverse: Tensor | None = None, real: int | None = None) -> Tensor:
    """Take rows of x. The gradient is gathered by the inverse index, which is faster than scattering it.

    inverse: where each row of x went; None = `rows` is its own inverse. real: only so many rows of x, the first, have a
    gradient; None = all.
    """
    result: Tensor = apply_function(_GatherRows, x, rows, inverse, real)
    return result


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, inverse: Tensor | None, real: int | None) -> Tensor:
        ctx.real = real
        ctx.save_for_backward(rows if inverse is None else inverse)
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        dx = grad.index_select(0, ctx.saved_tensors[0])
        if ctx.real is not None:
            dx[ctx.real:] = 0
        return dx, None, None, None


@dataclass(frozen=True, eq=False)
class Batch:
    """Hold one micro-batch. `labels` are what the real rows of `tgt` predict, EOS included. [n_tokens]"""

    src: Packed
    tgt: Packed
    labels: Tensor

    @property
    def n_tokens(self) -> int:
        """Return the number of real target tokens."""
        return self.tgt.n_tokens

    def to(self, device: torch.device | str) -> "Batch":
        """Copy all to a device; the host does not wait."""
        return Batch(self.src.to(device), self.tgt.to(device), to_device(self.labels, device))


def pack(sentences: Sequence[Sequence[int]], pad_id: int, *, multiple: int = 1, recurring: bool = False) -> Packed:
    """Lay sentences of at least one token end to end, L being a multiple of `multiple`.

    recurring: round N up by a 32nd at most and B by an eighth, with filler and idle sentences, so that few shapes ever
    occur: libraries build or choose a kernel for each.
    """
    lengths = np.fromiter(map(len, sentences), np.int64, len(sentences))
    n, B, L = int(lengths.sum()), len(lengths), _round_up(int(lengths.max()), multiple)
    N, idle = n + 1, 0
    if recurring:
        N, idle = _round_up(N, _power_below(n / 32)), _round_up(B, _power_below(B / 8)) - B
    starts = np.concatenate(([0], np.cumsum(lengths)))
    places = np.arange(n) - np.repeat(starts[:-1], lengths)
    ids = np.full(N, pad_id)
    ids[:n] = np.fromiter(chain.from_iterable(sentences), np.int64, n)
    mask = np.arange(L) < np.concatenate((lengths, np.ones(idle, np.int64)))[:, None]
    rows = np.full(mask.shape, N - 1)
    rows[:B][mask[:B]] = np.arange(n)
    slots = np.repeat(np.arange(B) * L, lengths) + places
    filler = np.zeros(N - n, np.int64)
    tensor = torch.from_numpy
    return Packed(tensor(ids), tensor(np.append(places, filler)), tensor(np.append(slots, filler)), tensor(rows),
                  tensor(mask), tensor(np.append(starts, N).astype(np.int32)), n)


def collate_src(src: Sequence[Sequence[int]], *, pad_id: int, eos_id: int) -> Packed:
    """Pack sources, each closed by EOS."""
    return pack([[*row, eos_id] for row in src], pad_id)


def collate(src: Sequence[Sequence[int]], tgt: Sequence[Sequence[int]], *, pad_id: int, bos_id: int, eos_id: int,
            pad_to_multiple: int = 1, recurring: bool = False) -> Batch:
    """Pack pairs of ids (without specials) into a `Batch`; `recurring` as in `pack`."""
    def side(rows: list[list[int]]) -> Packed:
        return pack(rows, pad_id, multiple=pad_to_multiple, recurring=recurring)

    labels = np.fromiter(chain.from_iterable((*row, eos_id) for row in tgt), np.int64, sum(map(len, tgt)) + len(tgt))
    return Batch(side([[*row, eos_id] for row in src]), side([[bos_id, *row] for row in tgt]), torch.from_numpy(labels))


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def _power_below(bound: float) -> int:
    """Return the largest power of two that is not above `bound`, or 1."""
    return 1 << max(0, int(bound).bit_length() - 1)
