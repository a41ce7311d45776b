"""Several GPUs: how long an update takes if they share it, from bytes that travel, links, and uneven shares.

An update of n > 1 GPUs takes

    t(n) = t(1) (1 + v m(n)) + e r(n) + f P,   r(n) = 2 (g - 1) / g S / B + 2 (k - 1) / k S / N + 2 L log2(n)

- t(1): seconds of one GPU's share; S: bytes of all gradients; e: how much of the exchange is not hidden behind the
  backward pass, or how many times as long as its links allow it takes
- n = k machines of g GPUs; B: bytes a second inside a machine, N: between machines; L: seconds of a hop
- v: how much the shares of one update differ (standard deviation over mean); all wait for the slowest, and m(n) is the
  mean of the largest of n normal deviations
- f: seconds that are lost in every update for each of P parameters, however many GPUs share it: gradients are
  flattened, copied, and looked through
"""

from dataclasses import dataclass
from functools import cache
from math import ceil, log2

import numpy as np

from minitx.profiling.devices import Device

RING = 0.77  # of a link's speed that an exchange in a ring gets: NCCL on 8 A100, 230 of 300 GB/s


@dataclass(frozen=True)
class Fleet:
    """Equal machines, and the constants of the formula, as fitted on published trainings on V100."""

    device: Device
    per_machine: int = 8
    between_gb_s: float = 200.0  # each way: 8 InfiniBand HDR ports of 25 GB/s a machine
    hop_us: float = 10.0
    exposed: float = 0.0
    uneven: float = 0.0537
    parameter_s: float = 1.45e-10

    def exchange_s(self, gradient_bytes: float, gpus: int) -> float:
        """Return r(n): a ring in each machine, one between machines, and a tree's latency."""
        g, k = min(gpus, self.per_machine), ceil(gpus / self.per_machine)
        inside, between = 1e9 * RING * self.device.link_gb_s, 1e9 * self.between_gb_s
        return (2 * (g - 1) / g * gradient_bytes / inside + 2 * (k - 1) / k * gradient_bytes / between
                + 2e-6 * self.hop_us * log2(gpus))

    def update_s(self, one_s: float, gradient_bytes: float, params: int, gpus: int) -> float:
        """Return t(n), given the seconds that one GPU needs for its share by itself."""
        if gpus == 1:
            return one_s
        return (one_s * (1 + self.uneven * mean_largest(gpus)) + self.exposed * self.exchange_s(gradient_bytes, gpus)
                + self.parameter_s * params)


@cache
def mean_largest(n: int) -> float:
    """Return the mean of the largest of n standard normal deviations, within 1e-6."""
    x = np.linspace(-8.0, 8.0, 16_001)
    share = np.exp(-x * x / 2) / np.sqrt(2 * np.pi) * (x[1] - x[0])
    below = np.cumsum(share) - share / 2
    return float(np.sum(x * n * share * below ** (n - 1)))
