"""How much of a loss's gradient comes back to a token that lies far behind, before and after learning to remember it.

For a sentence whose key lies d tokens before its end: g(d) = |d loss / d x_0|, x_0 the key's embedding, and
c(d) = g(d) / |d loss / d s|, s the state that the key is named from. c alone compares: as a reader learns, its loss and
all of the gradient with it become small. Both are taken in float64, where a product of so many small factors is not 0.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from math import exp, inf, log
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from minitx.config.schema import Config
from minitx.experiments.fits import Claim, Interval, Line, fit_line, judge
from minitx.experiments.studies.common import (
    STAGES,
    SYSTEMS,
    LatchBatch,
    Lesson,
    Reader,
    draw_latch_batch,
    train_readers,
)
from minitx.utils.console import Console
from minitx.utils.progress import Progress
from minitx.utils.tables import aligned

DISTANCE_WORK = 4.0  # updates of teaching that one distance takes as long as: for the time left
BETTER_BY = 2.0  # times as much as the better form leaves: then the other is the worse
HALF = 0.5  # of a gradient: one that loses less over all distances is not said to decay
LEARNED = 0.9  # share of keys named over the longest distance, with every seed, by a reader that has learned to


@dataclass(frozen=True)
class Sizes:
    """Say what readers are taught, and where they are looked at."""

    lesson: Lesson = field(default_factory=Lesson)
    distances: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128)
    sentences: int = 64  # at each distance


SIZES = {"smoke": Sizes(),
         "full": Sizes(Lesson(width=128, longest=512, updates=2_000, seeds=5),
                       (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512), sentences=128)}


class GradientFlow(NamedTuple):
    """Hold what comes back over one distance: norms are means over sentences."""

    gradient: float  # g
    carried: float  # c
    right: float  # share of the keys that the reader names


def measure(families: Mapping[str, Config], sizes: Sizes, console: Console) -> dict[str, Any]:
    """Look at every system before and after it is taught."""
    lesson = sizes.lesson
    progress = Progress(console, lesson.work + DISTANCE_WORK * len(sizes.distances) * lesson.seeds * len(SYSTEMS) * 2)
    seen: dict[tuple[str, str], list[list[GradientFlow]]] = {}  # of each seed, at each distance
    for system, stage, seed, reader in train_readers(families, lesson, progress):
        exact, draw = deepcopy(reader).double(), np.random.default_rng((seed, 1))
        exact.train()  # nothing is dropped, and without it cuDNN has no gradient of a recurrence
        flows = []
        for distance in sizes.distances:
            asked = draw_latch_batch([distance] * sizes.sentences, draw).to(exact.output.weight.device)
            flows.append(measure_flow(exact, asked))
            progress(f"{system}, {stage}, seed {seed}: {distance} tokens", DISTANCE_WORK)
        seen.setdefault((system, stage), []).append(flows)
    found = {system: {stage: summarize(sizes.distances, seen[system, stage]) for stage in STAGES} for system in SYSTEMS}
    return {"systems": found, "claims": [asdict(claim) for claim in claims(found)]}


def measure_flow(reader: Reader, asked: LatchBatch) -> GradientFlow:
    """Send the loss of each sentence back to its first token."""
    embedded: list[Tensor] = []

    def keep(_: nn.Module, __: Any, rows: Tensor) -> None:
        rows.retain_grad()
        embedded.append(rows)

    with reader.encoder.src_embed.register_forward_hook(keep):
        states = reader(asked.src)
    states.retain_grad()
    reader.loss_sum(states, asked.keys).backward()
    reader.zero_grad()
    (rows,) = embedded
    assert rows.grad is not None
    assert states.grad is not None
    begins = asked.src.starts[:len(asked.keys)].long()
    at_key, at_state = (float(grad.norm(dim=1).mean()) for grad in (rows.grad[begins], states.grad))
    with torch.no_grad():
        return GradientFlow(at_key, at_key / at_state, reader.n_correct(states, asked.keys) / len(asked.keys))


def summarize(distances: Sequence[int], seeds: Sequence[Sequence[GradientFlow]]) -> dict[str, Any]:
    """Put seeds together: geometric means, and the extremes of c. A gradient too small for float64 is in no fit."""
    points = []
    for distance, flows in zip(distances, zip(*seeds, strict=True), strict=True):
        carried = [one.carried for one in flows]
        points.append({"distance": distance, "gradient": geometric_mean([one.gradient for one in flows]),
                       "carried": geometric_mean(carried), "carried_low": min(carried), "carried_high": max(carried),
                       "right": sum(one.right for one in flows) / len(flows)})
    kept = [flows[-1].carried / flows[0].carried for flows in seeds]
    seen = [(point["distance"], log(point["carried"])) for point in points if point["carried"]]
    across, up = [distance for distance, _ in seen], [logarithm for _, logarithm in seen]
    exponential, power = (fit_record(fit_line(x, up)) for x in (across, [log(distance) for distance in across]))
    return {"points": points, "exponential": exponential | {"a_step": exp(exponential["slope"])}, "power": power,
            "kept": geometric_mean(kept), "kept_interval": (min(kept), max(kept)),
            "named": min(flows[-1].right for flows in seeds)}


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean of numbers that are not negative."""
    return exp(sum(map(log, values)) / len(values)) if all(values) else 0.0


def fit_record(fit: Line) -> dict[str, Any]:
    """Return what of a fit is kept."""
    return {"slope": fit.slope, "intercept": fit.intercept, "interval": fit.interval, "residual": fit.residual}


def claims(found: Mapping[str, Any]) -> Iterator[Claim]:
    """Hold what is said of gradients against what was measured."""
    initial, trained = ({system: found[system][stage] for system in SYSTEMS} for stage in STAGES)
    yield decays("drawn at random, a plain RNN's gradient decays exponentially with distance", initial["rnn"])
    yield decays("so does an LSTM's", initial["lstm"])
    yield if_learned(trained["lstm"], decays("even an LSTM that has learned to remember loses it exponentially",
                                             trained["lstm"]))
    yield if_learned(trained["lstm"], keeps("an LSTM that has learned to remember keeps a tenth of it over the longest "
                                            "distance", trained["lstm"], (0.1, inf)))
    yield keeps("attention's gradient does not decay with distance, even drawn at random", initial["transformer"],
                (HALF, inf))
    yield if_learned(trained["transformer"], keeps("attention's gradient does not decay with distance once it has "
                                                   "learned", trained["transformer"], (HALF, inf)))


def if_learned(seen: Mapping[str, Any], claim: Claim) -> Claim:
    """Leave a claim open that is of a reader which has learned, where this one has not."""
    if seen["named"] >= LEARNED:
        return claim
    return replace(claim, holds=None, why=f"with some seed no more than {100 * seen['named']:.0f} % of the keys are "
                                          f"named over the longest distance, so it has not learned to; {claim.why}")


def decays(claim: str, seen: Mapping[str, Any]) -> Claim:
    """Judge whether ln c falls, and along a line in d rather than in ln d."""
    exponential, power = seen["exponential"], seen["power"]
    expected = f"ln c falls, and a line in d leaves at most 1/{BETTER_BY:g} of what one in ln d leaves"
    measured = f"times {exponential['a_step']:.4g} a step"
    low, high = exponential["interval"]
    left = f"lines in d and in ln d leave {exponential['residual']:.3g} and {power['residual']:.3g} (rms of ln c)"
    nearest, farthest = (seen["points"][end]["distance"] for end in (0, -1))
    if low * (farthest - nearest) > log(HALF):
        return Claim(claim, expected, measured, False, f"less than half is lost from {nearest} to {farthest:,} tokens")
    if high >= 0:
        falls = "rises or stays" if low >= 0 else "may as well stay"
        return Claim(claim, expected, measured, False if low >= 0 else None, f"ln c {falls}; {left}")
    better = BETTER_BY * exponential["residual"] <= power["residual"]
    worse = BETTER_BY * power["residual"] <= exponential["residual"]
    return Claim(claim, expected, measured, True if better else False if worse else None, left)


def keeps(claim: str, seen: Mapping[str, Any], bounds: Interval) -> Claim:
    """Judge what arrives from the longest distance, as a share of what does from the shortest, between all seeds."""
    return judge(claim, seen["kept"], seen["kept_interval"], bounds)


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that show a person what was measured."""
    distances = [point["distance"] for point in found["systems"][SYSTEMS[0]][STAGES[0]]["points"]]
    rows, fits = [["c(d)", *(f"{distance:,}" for distance in distances)]], list[tuple[str, str]]()
    for system, stages in found["systems"].items():
        for stage, seen in stages.items():
            low, high = seen["power"]["interval"]
            rows.append([f"{system}, {stage}", *(f"{point['carried']:.2g}" for point in seen["points"])])
            rows.append(["  keys named rightly", *(f"{100 * point['right']:.0f} %" for point in seen["points"])])
            fits.append((f"{system}, {stage}", f"times {seen['exponential']['a_step']:.4g} a step, or d^"
                                               f"{seen['power']['slope']:.2f} ({low:.2f} to {high:.2f})"))
    yield from aligned(rows)
    yield from aligned(fits, "<")
