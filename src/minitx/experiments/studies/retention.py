"""How much of a sentence's first token can still be read from the state after its last one.

A linear probe, multinomial logistic regression, is fitted to the states of some sentences and scored on those of
others; nothing of the first token is in either but through the state. For comparison the same on attention's state,
and on labels that were shuffled, from which nothing can be learned.

n sentences, D width.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from minitx.config.schema import Config
from minitx.experiments.fits import Claim, Interval, judge, share_lost, undecided, wilson
from minitx.experiments.studies.common import KEYS, STAGES, SYSTEMS, Lesson, Reader, draw_latch_batch, train_readers
from minitx.training.loss import linear_cross_entropy
from minitx.utils.console import Console
from minitx.utils.progress import Progress
from minitx.utils.tables import aligned

CHANCE = 1 / KEYS
DECAY = 1e-3  # weight of the probe's squared weights beside the mean loss
ITERATIONS = 60  # of L-BFGS
ROUNDING = 1e-6  # of the widest direction's deviation: by less a state in fp32 varies by chance
FALL = 0.05  # by so much at least the share that is read falls where a state is said to forget
BATCH_SIZE = 128  # sentences a reader reads together
DISTANCE_WORK = 25.0  # updates of teaching that one distance takes as long as: for the time left


@dataclass(frozen=True)
class Sizes:
    """Say what readers are taught, where they are looked at, and by how much."""

    lesson: Lesson = field(default_factory=Lesson)
    distances: tuple[int, ...] = (4, 8, 32, 64, 128)  # shorter ones have too few sentences for two splits
    fitted: int = 1_024  # sentences that a probe is fitted to
    scored: int = 1_024  # and others that it is scored on


SIZES = {"smoke": Sizes(),
         "full": Sizes(Lesson(width=128, longest=512, updates=2_000, seeds=5), (4, 8, 32, 64, 128, 256, 512), 4_096,
                       2_048)}


class ProbeCounts(NamedTuple):
    """Count the keys that were read rightly, of `n` sentences."""

    n: int
    probe: int
    shuffled: int  # by a probe fitted to shuffled labels
    reader: int  # by the reader itself


def measure(families: Mapping[str, Config], sizes: Sizes, console: Console) -> dict[str, Any]:
    """Probe every system before and after it is taught."""
    lesson = sizes.lesson
    progress = Progress(console, lesson.work + DISTANCE_WORK * len(sizes.distances) * lesson.seeds * len(SYSTEMS) * 2)
    seen: dict[tuple[str, str, int], list[ProbeCounts]] = {}  # of each seed
    for system, stage, seed, reader in train_readers(families, lesson, progress):
        for distance in sizes.distances:
            read = probe_reader(reader, distance, sizes, np.random.default_rng((seed, distance)))
            seen.setdefault((system, stage, distance), []).append(read)
            progress(f"{system}, {stage}, seed {seed}: {distance} tokens", DISTANCE_WORK)
    found = {system: {stage: [summarize(distance, seen[system, stage, distance]) for distance in sizes.distances]
                      for stage in STAGES} for system in SYSTEMS}
    return {"chance": CHANCE, "state": lesson.width, "systems": found,
            "claims": [asdict(claim) for claim in claims(found)]}


def probe_reader(reader: Reader, distance: int, sizes: Sizes, draw: np.random.Generator) -> ProbeCounts:
    """Fit probes to some sentences, and count what they read from the states of others."""
    x, keys, named = states(reader, distance, sizes.fitted + sizes.scored, draw)
    shuffled = keys[torch.from_numpy(draw.permutation(sizes.fitted))]
    right, by_chance = (probe(x[:sizes.fitted], labels, x[sizes.fitted:], keys[sizes.fitted:])
                        for labels in (keys[:sizes.fitted], shuffled))
    return ProbeCounts(sizes.scored, right, by_chance, int((named == keys)[sizes.fitted:].sum()))


@torch.no_grad()
def states(reader: Reader, distance: int, n: int, draw: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Have a reader read sentences. --> its states [n, D] float64, the keys [n], and the keys it names [n]"""
    found = []
    for first in range(0, n, BATCH_SIZE):
        asked = draw_latch_batch([distance] * min(BATCH_SIZE, n - first), draw).to(reader.output.weight.device)
        state = reader(asked.src)
        found.append((state.double().cpu(), asked.keys.cpu(), reader.output(state).argmax(1).cpu()))
    x, keys, named = (torch.cat(parts) for parts in zip(*found, strict=True))
    return x, keys, named


def probe(x: Tensor, labels: Tensor, unseen: Tensor, keys: Tensor) -> int:
    """Fit a logistic regression, and count what it reads rightly where it was not fitted. x, unseen: [n, D], [n', D]

    States are whitened, by the figures of the part that it is fitted to: what varies little costs the penalty no more
    than what varies much.
    """
    mean = x.mean(0)
    _, scale, directions = torch.linalg.svd(x - mean, full_matrices=False)
    kept = scale > ROUNDING * scale[0]
    whiten = directions[kept].t() * (len(x)**0.5 / scale[kept])
    ones = [pad((side - mean) @ whiten, (0, 1), value=1.0) for side in (x, unseen)]  # the last weight is a bias
    weight = torch.zeros(KEYS, ones[0].shape[1], dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        total = linear_cross_entropy(ones[0], weight, labels)[0] / len(labels) + DECAY * weight.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return int(((ones[1] @ weight.detach().t()).argmax(1) == keys).sum())


def summarize(distance: int, seeds: list[ProbeCounts]) -> dict[str, Any]:
    """Add seeds up, and give the share that the probe reads its interval; `shares` are those of the seeds."""
    n, right, shuffled, named = (sum(counts) for counts in zip(*seeds, strict=True))
    low, high = wilson(right, n)
    return {"distance": distance, "n": n, "right": right, "share": right / n, "low": low, "high": high,
            "shares": [one.probe / one.n for one in seeds], "shuffled": shuffled, "reader": named / n}


def claims(found: Mapping[str, Any]) -> Iterator[Claim]:
    """Hold what is said of memory against what was measured."""
    initial, trained = ({system: found[system][stage] for system in SYSTEMS} for stage in STAGES)
    yield forgets("a plain RNN drawn at random", initial["rnn"])
    yield forgets("an LSTM drawn at random", initial["lstm"])
    yield forgets("a plain RNN trained to remember", trained["rnn"])
    yield forgets("an LSTM trained to remember", trained["lstm"])
    yield reads("attention retrieves the first token from every distance, even drawn at random",
                initial["transformer"], (0.95, inf))
    yield reads("attention retrieves the first token from every distance once trained", trained["transformer"],
                (0.95, inf))


def forgets(name: str, seen: list[dict[str, Any]]) -> Claim:
    """Judge by how much the share falls from where most is read to the longest distance: by `FALL` at least is asked.

    Sentences of one seed say nothing of another's reader, so the interval reaches to the extremes over seeds. A state
    of which little more than chance is read anywhere has nothing to forget.
    """
    near, far, bounds = max(seen, key=lambda point: float(point["share"])), seen[-1], (FALL, inf)
    claim = (f"the state of {name} holds less of the first token after {far['distance']} tokens than after "
             f"{near['distance']}")
    if near["low"] < CHANCE + FALL:
        return undecided(claim, bounds, f"after {near['distance']} no more than {near['share']:.3f} is read")
    lost, (low, high) = share_lost(*((point["right"], point["n"]) for point in (near, far)))
    seeds = [before - after for before, after in zip(near["shares"], far["shares"], strict=True)]
    return judge(claim, lost, (min(low, *seeds), max(high, *seeds)), bounds)


def reads(claim: str, seen: list[dict[str, Any]], bounds: Interval) -> Claim:
    """Judge the distance at which the least is read."""
    worst = min(seen, key=lambda point: float(point["share"]))
    return judge(claim, worst["share"], (min(worst["low"], *worst["shares"]), max(worst["high"], *worst["shares"])),
                  bounds)


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that show a person what was measured."""
    points = found["systems"][SYSTEMS[0]][STAGES[0]]
    yield (f"shares of first tokens that are read from {found['state']} numbers, 95 % intervals; {points[0]['n']:,} "
           f"sentences each, chance {found['chance']:.3f}")
    rows = [["", *(f"after {point['distance']:,}" for point in points)]]
    for system, stages in found["systems"].items():
        for stage, seen in stages.items():
            rows += [[f"{system}, {stage}", *(f"{point['share']:.3f} ({point['low']:.2f}-{point['high']:.2f})"
                                              for point in seen)],
                     ["  by the reader itself", *(f"{point['reader']:.3f}" for point in seen)],
                     ["  shuffled labels", *(f"{point['shuffled'] / point['n']:.3f}" for point in seen)]]
    yield from aligned(rows)
