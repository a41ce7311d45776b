"""How efficient 8, 64 and 1,024 GPUs would be, on paper: from bytes that travel, links, and how uneven updates are.

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

from minitx.utils.tables import markdown


@dataclass(frozen=True)
class Job:
    """An update of one GPU, and its machine. Seconds, bytes, bytes a second."""

    name: str
    t1: float
    gradient: float
    inside: float
    between: float
    per_machine: int = 8
    hop: float = 10e-6
    exposed: float = 0.3
    uneven: float = 0.07


def exchange_s(job: Job, n: int) -> float:
    """Return r(n): a ring in each machine, one between machines, and a tree's latency."""
    g, m = min(n, job.per_machine), max(1, n // job.per_machine)
    return (2 * (g - 1) / g * job.gradient / job.inside + 2 * (m - 1) / m * job.gradient / job.between
            + 2 * job.hop * log2(n))


def update_s(job: Job, n: int, share: float = 1.0) -> float:
    """Return t(n) if each GPU does `share` of the work of the single one."""
    if n == 1:
        return job.t1
    return share * job.t1 * (1 + job.uneven * sqrt(2 * log(n))) + job.exposed * exchange_s(job, n)


def efficiency(job: Job, n: int, share: float = 1.0) -> float:
    """Return the speed of n GPUs over n times the speed of one."""
    return share * job.t1 / update_s(job, n, share)


PARAMS = 210e6  # Transformer big, joint vocabulary of 33,000
# One GPU's speed, tokens an update and the 8-GPU figure: NVIDIA DeepLearningExamples, PyTorch/Translation/Transformer,
# README, "Training performance". Links: data sheets, NVLink 300 GB/s each way on A100 (of which a ring gets some 230),
# 8 InfiniBand HDR ports of 25 GB/s a machine.
JOBS = {
    "A100, AMP": (Job("A100, AMP", 10_240 / 82_059, 2 * PARAMS, 230e9, 200e9), 551_599 / 82_059 / 8),
    "A100, TF32": (Job("A100, TF32", 10_240 / 51_057, 4 * PARAMS, 230e9, 200e9), 347_936 / 51_057 / 8),
}


def main() -> None:
    """Print the tables of docs/scaling.md."""
    rows = []
    for name, (job, published) in JOBS.items():
        r, uneven = exchange_s(job, 8), job.uneven * sqrt(2 * log(8))
        rows.append((name, f"{1e3 * r:.1f} ms", f"{100 * r / job.t1:.1f} %", f"{100 * efficiency(job, 8):.0f} %",
                     f"{100 * uneven / (1 + uneven):.0f} points", f"{100 * published:.0f} %"))
    print(markdown(("job", "exchange at 8", "share of an update", "predicted at 8", "of which uneven shares",
                    "published at 8"), rows), end="\n\n")
    job = JOBS["A100, AMP"][0]
    print(markdown(
        ("GPUs", "updates grow (10,240 tokens a GPU)", "the same update (81,920 tokens)", "exchange",
         "work of a GPU then"),
        [(f"{n:,}", f"{100 * efficiency(job, n):.0f} %, {10_240 * n:,} tokens an update",
          f"{100 * efficiency(job, n, 8 / n):.0f} %", f"{1e3 * exchange_s(job, n):.1f} ms",
          f"{1e3 * 8 / n * job.t1:.1f} ms") for n in (8, 64, 1024)]))


if __name__ == "__main__":
    main()
