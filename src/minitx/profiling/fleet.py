"""Several GPUs: how much longer an update takes if they share it, from bytes that travel, links, and uneven shares.

An update of n GPUs takes

    t(n) = t(1) (1 + v sqrt(2 ln n)) + e r(n),   r(n) = 2 (g - 1) / g S / B + 2 (m - 1) / m S / N + 2 L log2(n)

- t(1): seconds of one GPU's share; S: bytes of all gradients; e: the share of the exchange that is not hidden behind
  the backward pass
- n = m machines of g GPUs; B: bytes a second inside a machine, N: between machines; L: seconds of a hop
- v: how much the ranks' shares of one update differ (standard deviation over mean); all wait for the slowest, and the
  largest of n normal deviations is about sqrt(2 ln n)
"""

from dataclasses import dataclass
from math import log, log2, sqrt

from minitx.profiling.devices import Device

RING = 0.77  # of a link's speed that an exchange in a ring gets: NCCL on 8 A100, 230 of 300 GB/s


@dataclass(frozen=True)
class Fleet:
    """Equal machines, and the constants of the formula."""

    device: Device
    per_machine: int = 8
    between_gb_s: float = 200.0  # each way: 8 InfiniBand HDR ports of 25 GB/s a machine
    hop_us: float = 10.0
    exposed: float = 0.3
    uneven: float = 0.07

    def exchange_s(self, gradient_bytes: float, gpus: int) -> float:
        """Return r(n): a ring in each machine, one between machines, and a tree's latency."""
        g, m = min(gpus, self.per_machine), max(1, gpus // self.per_machine)
        inside, between = 1e9 * RING * self.device.link_gb_s, 1e9 * self.between_gb_s
        return (2 * (g - 1) / g * gradient_bytes / inside + 2 * (m - 1) / m * gradient_bytes / between
                + 2e-6 * self.hop_us * log2(gpus))

    def update_s(self, one_s: float, gradient_bytes: float, gpus: int) -> float:
        """Return t(n), given the seconds that one GPU needs for its share by itself."""
        if gpus == 1:
            return one_s
        return (one_s * (1 + self.uneven * sqrt(2 * log(gpus)))
                + self.exposed * self.exchange_s(gradient_bytes, gpus))
