"""An exponential moving average of the weights (Polyak & Juditsky 1992), kept beside them, swapped in to evaluate."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from minitx.distributed.fsdp import shared_as


class EMA(nn.Module):
    """Average a model's parameters, tied ones once, in fp32 or finer: bf16 would not move at all."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.live: dict[str, Tensor] = dict(model.named_parameters())  # in a dict: they are not this module's own
        exact = [p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True) for p in self.live.values()]
        self.averages = nn.ParameterList(nn.Parameter(p, requires_grad=False) for p in exact)

    @torch.no_grad()
    def update(self, t: int) -> None:
        """Move towards the weights, after `t` earlier updates.

        The first ones count more than `decay` would let them, so that the initial weights are soon forgotten.
        """
        decay = min(self.decay, (1 + t) / (10 + t))
        averages: list[Tensor] = list(self.averages)
        live = [p.to(a.dtype) for p, a in zip(self.live.values(), averages, strict=True)]
        torch._foreach_lerp_(averages, live, 1 - decay)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Give the model the averaged weights inside this block, and its own again, bit for bit, after it."""
        live = list(self.live.values())
        with torch.no_grad():
            own = [p.clone() for p in live]
            torch._foreach_copy_(live, list(self.averages))
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(live, own)

    def named(self) -> dict[str, Tensor]:
        """Return the averages by their parameter's name."""
        return dict(zip(self.live, self.averages, strict=True))

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy back what `named` returned."""
        for name, average in self.named().items():
            average.copy_(shared_as(average, tensors[name]))
