"""How much of a sentence's first token can still be read from the state at its end.

A linear probe (multinomial logistic regression) is fitted to the states of some sentences and scored on those of
others; it sees nothing of the first token but the state. Two controls: the same with attention's state, and with
shuffled labels, from which nothing can be learned.

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
DECAY = 1e-3  # factor of the probe's squared weights in its loss
ITERATIONS = 60  # of L-BFGS
ROUNDING = 1e-6  # directions that vary less than this share of the widest one are rounding of fp32 states
FALL = 0.05  # a state forgets if the share that can be read falls by at least this much
BATCH_SIZE = 128  # sentences
DISTANCE_WORK = 25.0  # one distance takes as long as so many updates of training


@dataclass(frozen=True)
class Sizes:
    """How readers are trained, and where and with how many sentences they are probed."""

    lesson: Lesson = field(default_factory=Lesson)
    distances: tuple[int, ...] = (4, 8, 32, 64, 128)  # shorter ones have too few sentences for two splits
    fitted: int = 1_024  # sentences that a probe is fitted to
    scored: int = 1_024  # other sentences, which it is scored on


SIZES = {"smoke": Sizes(),
         "full": Sizes(Lesson(width=128, longest=512, updates=2_000, seeds=5), (4, 8, 32, 64, 128, 256, 512), 4_096,
                       2_048)}


class ProbeCounts(NamedTuple):
    """How many keys of `n` sentences were read correctly."""

    n: int
    probe: int
    shuffled: int  # by a probe fitted to shuffled labels
    reader: int  # by the reader itself


def measure(families: Mapping[str, Config], sizes: Sizes, console: Console) -> dict[str, Any]:
    """Probe every system before and after it is trained."""
    lesson = sizes.lesson
    progress = Progress(console, lesson.work + DISTANCE_WORK * len(sizes.distances) * lesson.seeds * len(SYSTEMS) * 2)
    counts: dict[tuple[str, str, int], list[ProbeCounts]] = {}  # by system, stage and distance: of each seed
    for system, stage, seed, reader in train_readers(families, lesson, progress):
        for distance in sizes.distances:
            counts.setdefault((system, stage, distance), []).append(
                probe_reader(reader, distance, sizes, np.random.default_rng((seed, distance))))
            progress(f"{system}, {stage}, seed {seed}: {distance} tokens", DISTANCE_WORK)
    systems = {system: {stage: [summarize(distance, counts[system, stage, distance]) for distance in sizes.distances]
                        for stage in STAGES} for system in SYSTEMS}
    return {"chance": CHANCE, "state": lesson.width, "systems": systems,
            "claims": [asdict(claim) for claim in claims(systems)]}


def probe_reader(reader: Reader, distance: int, sizes: Sizes, rng: np.random.Generator) -> ProbeCounts:
    """Fit a probe to some sentences, and another to shuffled labels; count what they read from other sentences."""
    x, keys, named = states(reader, distance, sizes.fitted + sizes.scored, rng)
    shuffled = keys[torch.from_numpy(rng.permutation(sizes.fitted))]
    correct, by_chance = (probe(x[:sizes.fitted], labels, x[sizes.fitted:], keys[sizes.fitted:])
                          for labels in (keys[:sizes.fitted], shuffled))
    return ProbeCounts(sizes.scored, correct, by_chance, int((named == keys)[sizes.fitted:].sum()))


@torch.no_grad()
def states(reader: Reader, distance: int, n: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Run a reader over n sentences. --> its states [n, D] float64, the keys [n], and the keys it names [n]"""
    batches = []
    for first in range(0, n, BATCH_SIZE):
        batch = draw_latch_batch([distance] * min(BATCH_SIZE, n - first), rng).to(reader.output.weight.device)
        state = reader(batch.src)
        batches.append((state.double().cpu(), batch.keys.cpu(), reader.output(state).argmax(1).cpu()))
    x, keys, named = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return x, keys, named


def probe(x: Tensor, labels: Tensor, unseen: Tensor, keys: Tensor) -> int:
    """Fit a logistic regression to x and labels, and count the keys that it reads correctly from unseen states.

    x: [n, D]; unseen: [n', D]. States are whitened with the statistics of x, so that the penalty weighs all directions
    alike, however little they vary.
    """
    mean = x.mean(0)
    _, scale, directions = torch.linalg.svd(x - mean, full_matrices=False)
    significant = scale > ROUNDING * scale[0]
    whiten = directions[significant].t() * (len(x)**0.5 / scale[significant])
    train, test = (pad((side - mean) @ whiten, (0, 1), value=1.0) for side in (x, unseen))  # the last weight is a bias
    weight = torch.zeros(KEYS, train.shape[1], dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        total = linear_cross_entropy(train, weight, labels)[0] / len(labels) + DECAY * weight.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return int(((test @ weight.detach().t()).argmax(1) == keys).sum())


def summarize(distance: int, seeds: list[ProbeCounts]) -> dict[str, Any]:
    """Add up seeds, with the interval of the share that the probe reads; `shares` are those of single seeds."""
    n, right, shuffled, named = (sum(counts) for counts in zip(*seeds, strict=True))
    low, high = wilson(right, n)
    return {"distance": distance, "n": n, "right": right, "share": right / n, "low": low, "high": high,
            "shares": [seed.probe / seed.n for seed in seeds], "shuffled": shuffled, "reader": named / n}


def claims(found: Mapping[str, Any]) -> Iterator[Claim]:
    """Decide what is commonly said about memory. found: of each system and stage, points as `summarize` returns them"""
    initial, trained = ({system: found[system][stage] for system in SYSTEMS} for stage in STAGES)
    yield forgets("a plain RNN drawn at random", initial["rnn"])
    yield forgets("an LSTM drawn at random", initial["lstm"])
    yield forgets("a linear RNN drawn at random", initial["linear_rnn"]).predicting(
        "holds, 0.9: of what is kept times 0.72 a step, fp32 has nothing left after 128")
    yield forgets("a plain RNN trained to remember", trained["rnn"])
    yield forgets("an LSTM trained to remember", trained["lstm"])
    yield forgets("a linear RNN trained to remember", trained["linear_rnn"]).predicting(
        "does not hold, 0.00: units whose gates let filler pass hold what they were given")
    yield reads("attention retrieves the first token from every distance, even drawn at random",
                initial["transformer"], (0.95, inf))
    yield reads("attention retrieves the first token from every distance once trained", trained["transformer"],
                (0.95, inf))


def forgets(name: str, points: list[dict[str, Any]]) -> Claim:
    """Decide whether the share falls by at least `FALL` from the distance where most is read to the longest one.

    The interval includes the extremes over seeds, since sentences of one seed say nothing about another seed's reader.
    A state from which little more than chance is read at any distance has nothing to forget.
    """
    near, far, bounds = max(points, key=lambda point: float(point["share"])), points[-1], (FALL, inf)
    claim = (f"the state of {name} holds less of the first token after {far['distance']} tokens than after "
             f"{near['distance']}")
    if near["low"] < CHANCE + FALL:
        return undecided(claim, bounds, f"after {near['distance']} no more than {near['share']:.3f} is read")
    lost, (low, high) = share_lost(*((point["right"], point["n"]) for point in (near, far)))
    seeds = [before - after for before, after in zip(near["shares"], far["shares"], strict=True)]
    return judge(claim, lost, (min(low, *seeds), max(high, *seeds)), bounds)


def reads(claim: str, points: list[dict[str, Any]], bounds: Interval) -> Claim:
    """Decide how much is read at the distance where the least is."""
    worst = min(points, key=lambda point: float(point["share"]))
    return judge(claim, worst["share"], (min(worst["low"], *worst["shares"]), max(worst["high"], *worst["shares"])),
                 bounds)


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the shares by distance, with their controls. found: as `measure` returns it"""
    points = found["systems"][SYSTEMS[0]][STAGES[0]]
    yield (f"shares of first tokens that are read from {found['state']} numbers, 95 % intervals; {points[0]['n']:,} "
           f"sentences each, chance {found['chance']:.3f}")
    rows = [["", *(f"after {point['distance']:,}" for point in points)]]
    for system, stages in found["systems"].items():
        for stage, points in stages.items():
            rows += [[f"{system}, {stage}", *(f"{point['share']:.3f} ({point['low']:.2f}-{point['high']:.2f})"
                                              for point in points)],
                     ["  by the reader itself", *(f"{point['reader']:.3f}" for point in points)],
                     ["  shuffled labels", *(f"{point['shuffled'] / point['n']:.3f}" for point in points)]]
    yield from aligned(rows)
