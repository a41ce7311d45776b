"""The linear recurrence c_t = a_t c_{t-1} + b_t over all steps at once: a loop on a CPU, in log2(T) rounds elsewhere.

To apply (a, b) and then (a', b') is to apply (a' a, a' b + b'), one pair again. So neighbours may be put together in
any order (Blelloch 1990, section 1.4.1), and no step has to wait for all that came before it.

T steps; whatever dimensions follow are those of the state.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minitx.utils.autograd import apply_function, on_cpu


def scan(a: Tensor, b: Tensor, start: Tensor | None = None) -> Tensor:
    """Compute c_t = a_t c_{t-1} + b_t, the state before the first step being `start`, or zeros.

    a, b: [T, ...], start: [...] --> c [T, ...]
    """
    c: Tensor = apply_function(_Scan, a, b, start)
    return c


class _Scan(torch.autograd.Function):
    """The gradient is the same recurrence, from the last step to the first: db_t = g_t + a_{t+1} db_{t+1}."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, start: Tensor | None) -> Tensor:
        ctx.in_turn = on_cpu(b)
        if ctx.in_turn:
            c = torch.empty_like(b, memory_format=torch.contiguous_format)
            step_by_step(a.unbind(), b.unbind(), torch.zeros_like(b[0]) if start is None else start, c.unbind())
        else:
            c = in_rounds(a, b, start)
        ctx.save_for_backward(a, c, start)
        return c

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        a, c, start = ctx.saved_tensors
        if ctx.in_turn:
            db, steps = torch.empty_like(c), a.unbind()  # the last has none after it: its factor meets zeros
            step_by_step(steps[:1] + steps[:0:-1], grad.unbind()[::-1], torch.zeros_like(c[0]), db.unbind()[::-1])
        else:
            db = doubling(a, grad, back=True)
        first = torch.zeros_like(c[:1]) if start is None else db[:1] * start
        return torch.cat([first, db[1:] * c[:-1]]), db, None if start is None else db[0] * a[0]


def in_rounds(a: Tensor, b: Tensor, start: Tensor | None) -> Tensor:
    """Do what `scan` does, on any device as on those that are no CPU, in operators whose gradients autograd knows."""
    return doubling(a, b if start is None else torch.cat([torch.addcmul(b[:1], a[:1], start[None]), b[1:]]))


def step_by_step(a: Sequence[Tensor], b: Sequence[Tensor], state: Tensor, out: Sequence[Tensor]) -> None:
    """Write the state after each step into `out`: the sequences are steps in the order in which they are taken."""
    for factor, term, after in zip(a, b, out, strict=True):
        state = torch.addcmul(term, factor, state, out=after)


def doubling(a: Tensor, b: Tensor, *, back: bool = False) -> Tensor:
    """Compute c_t = a_t c_{t-1} + b_t, or back, c_t = a_{t+1} c_{t+1} + b_t, from zeros, in log2(T) rounds.

    A round doubles how many steps a place has put together (Hillis and Steele 1986). Places that are through need no
    factor any more: `links` are between places that are `reach` steps apart.
    """
    reach, links = 1, a[1:]
    while reach < len(b):
        earlier, later = b[:-reach], b[reach:]
        b = torch.cat([torch.addcmul(earlier, links, later), b[-reach:]] if back else
                      [b[:reach], torch.addcmul(later, links, earlier)])
        if 2 * reach < len(b):
            links = links[:-reach] * links[reach:]
        reach *= 2
    return b
