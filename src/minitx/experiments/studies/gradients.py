"""How much of a loss's gradient reaches a token far back, before and after a reader has learned to remember it.

For a sentence whose key lies d tokens before its end: g(d) = |d loss / d x_0|, x_0 the key's embedding, and
c(d) = g(d) / |d loss / d s|, s the state that the key is named from. Only c can be compared: as a reader learns, its
loss becomes small and all gradients with it. Both are computed in float64; in fp32 long products would become 0.
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

DISTANCE_WORK = 4.0  # one distance takes as long as so many updates of training
BETTER_BY = 2.0  # one form fits better than the other if its residual is so many times smaller
HALF = 0.5  # a gradient of which more than this share is left over all distances does not decay
LEARNED = 0.9  # a reader has learned if it names this share of the keys over the longest distance, with every seed


@dataclass(frozen=True)
class Sizes:
    """How readers are trained, and where their gradients are measured."""

    lesson: Lesson = field(default_factory=Lesson)
    distances: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128)
    sentences: int = 64  # at each distance


SIZES = {"smoke": Sizes(),
         "full": Sizes(Lesson(width=128, longest=512, updates=2_000, seeds=5),
                       (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512), sentences=128)}


class GradientFlow(NamedTuple):
    """What arrives over one distance; norms are means over sentences."""

    gradient: float  # g
    carried: float  # c
    right: float  # share of the keys that the reader names correctly


def measure(families: Mapping[str, Config], sizes: Sizes, console: Console) -> dict[str, Any]:
    """Measure the gradients of every system before and after it is trained."""
    lesson = sizes.lesson
    progress = Progress(console, lesson.work + DISTANCE_WORK * len(sizes.distances) * lesson.seeds * len(SYSTEMS) * 2)
    measured: dict[tuple[str, str], list[list[GradientFlow]]] = {}  # by system and stage: of each seed, each distance
    for system, stage, seed, reader in train_readers(families, lesson, progress):
        exact, rng = deepcopy(reader).double(), np.random.default_rng((seed, 1))
        exact.train()  # cuDNN has gradients of a recurrence in training mode only; there is no dropout
        flows = []
        for distance in sizes.distances:
            batch = draw_latch_batch([distance] * sizes.sentences, rng).to(exact.output.weight.device)
            flows.append(measure_flow(exact, batch))
            progress(f"{system}, {stage}, seed {seed}: {distance} tokens", DISTANCE_WORK)
        measured.setdefault((system, stage), []).append(flows)
    systems = {system: {stage: summarize(sizes.distances, measured[system, stage]) for stage in STAGES}
               for system in SYSTEMS}
    return {"systems": systems, "claims": [asdict(claim) for claim in claims(systems)]}


def measure_flow(reader: Reader, batch: LatchBatch) -> GradientFlow:
    """Propagate the loss of each sentence back to its first token."""
    embedded: list[Tensor] = []

    def retain(_: nn.Module, __: Any, rows: Tensor) -> None:
        rows.retain_grad()
        embedded.append(rows)

    with reader.encoder.src_embed.register_forward_hook(retain):
        states = reader(batch.src)
    states.retain_grad()
    reader.loss_sum(states, batch.keys).backward()
    reader.zero_grad()
    (rows,) = embedded
    assert rows.grad is not None
    assert states.grad is not None
    first_rows = batch.src.starts[:len(batch.keys)].long()
    at_key, at_state = (float(grad.norm(dim=1).mean()) for grad in (rows.grad[first_rows], states.grad))
    with torch.no_grad():
        return GradientFlow(at_key, at_key / at_state, reader.n_correct(states, batch.keys) / len(batch.keys))


def summarize(distances: Sequence[int], seeds: Sequence[Sequence[GradientFlow]]) -> dict[str, Any]:
    """Combine seeds: geometric means, and the extremes of c. Gradients too small for float64 are left out of the fits.

    seeds: of each seed, its gradients at each distance
    """
    points = []
    for distance, flows in zip(distances, zip(*seeds, strict=True), strict=True):
        carried = [flow.carried for flow in flows]
        points.append({"distance": distance, "gradient": geometric_mean([flow.gradient for flow in flows]),
                       "carried": geometric_mean(carried), "carried_low": min(carried), "carried_high": max(carried),
                       "right": sum(flow.right for flow in flows) / len(flows)})
    kept = [flows[-1].carried / flows[0].carried for flows in seeds]
    positive = [point for point in points if point["carried"]]
    d, log_c = [point["distance"] for point in positive], [log(point["carried"]) for point in positive]
    exponential, power = (fit_record(fit_line(x, log_c)) for x in (d, list(map(log, d))))
    return {"points": points, "exponential": exponential | {"a_step": exp(exponential["slope"])}, "power": power,
            "kept": geometric_mean(kept), "kept_interval": (min(kept), max(kept)),
            "named": min(flows[-1].right for flows in seeds)}


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean of numbers of at least 0."""
    return exp(sum(map(log, values)) / len(values)) if all(values) else 0.0


def fit_record(fit: Line) -> dict[str, Any]:
    """Return the part of a fit that is stored."""
    return {"slope": fit.slope, "intercept": fit.intercept, "interval": fit.interval, "residual": fit.residual}


def claims(found: Mapping[str, Any]) -> Iterator[Claim]:
    """Decide what is commonly said about gradients. found: of each system and stage, as `summarize` returns it"""
    initial, trained = ({system: found[system][stage] for system in SYSTEMS} for stage in STAGES)
    yield decays("drawn at random, a plain RNN's gradient decays exponentially with distance", initial["rnn"])
    yield decays("so does an LSTM's", initial["lstm"])
    yield decays("so does a linear RNN's", initial["linear_rnn"]).predicting(
        "times 0.72 a step: gates are drawn about the sigmoid of 1, 0.73, and nothing else lies on the way back")
    yield if_learned(trained["lstm"], decays("even an LSTM that has learned to remember loses it exponentially",
                                             trained["lstm"]))
    yield if_learned(trained["lstm"], keeps("an LSTM that has learned to remember keeps a tenth of it over the longest "
                                            "distance", trained["lstm"], (0.1, inf)))
    yield if_learned(trained["linear_rnn"], keeps(
        "a linear RNN that has learned to remember keeps a tenth of it over the longest distance",
        trained["linear_rnn"], (0.1, inf))).predicting(
        "holds, 0.3 or more: its gates see the token alone, so to let all filler pass is soon learned")
    yield keeps("attention's gradient does not decay with distance, even drawn at random", initial["transformer"],
                (HALF, inf))
    yield if_learned(trained["transformer"], keeps("attention's gradient does not decay with distance once it has "
                                                   "learned", trained["transformer"], (HALF, inf)))


def if_learned(summary: Mapping[str, Any], claim: Claim) -> Claim:
    """Return the claim, which is about readers that have learned the task; undecided if these have not."""
    if summary["named"] >= LEARNED:
        return claim
    return replace(claim, holds=None, why=f"with some seed no more than {100 * summary['named']:.0f} % of the keys are "
                                          f"named over the longest distance, so it has not learned to; {claim.why}")


def decays(claim: str, summary: Mapping[str, Any]) -> Claim:
    """Decide whether ln c falls along a line in d rather than in ln d."""
    exponential, power = summary["exponential"], summary["power"]
    expected = f"ln c falls, and a line in d leaves at most 1/{BETTER_BY:g} of what one in ln d leaves"
    measured = f"times {exponential['a_step']:.4g} a step"
    low, high = exponential["interval"]
    left = f"lines in d and in ln d leave {exponential['residual']:.3g} and {power['residual']:.3g} (rms of ln c)"
    nearest, farthest = (summary["points"][end]["distance"] for end in (0, -1))
    if low * (farthest - nearest) > log(HALF):
        return Claim(claim, expected, measured, False, f"less than half is lost from {nearest} to {farthest:,} tokens")
    if high >= 0:
        falls = "rises or stays" if low >= 0 else "may as well stay"
        return Claim(claim, expected, measured, False if low >= 0 else None, f"ln c {falls}; {left}")
    better = BETTER_BY * exponential["residual"] <= power["residual"]
    worse = BETTER_BY * power["residual"] <= exponential["residual"]
    return Claim(claim, expected, measured, True if better else False if worse else None, left)


def keeps(claim: str, summary: Mapping[str, Any], bounds: Interval) -> Claim:
    """Decide how much arrives over the longest distance, as a share of the shortest, from the extremes over seeds."""
    return judge(claim, summary["kept"], summary["kept_interval"], bounds)


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield c by distance, the keys named, and the fits. found: as `measure` returns it"""
    distances = [point["distance"] for point in found["systems"][SYSTEMS[0]][STAGES[0]]["points"]]
    rows, fits = [["c(d)", *(f"{distance:,}" for distance in distances)]], list[tuple[str, str]]()
    for system, stages in found["systems"].items():
        for stage, summary in stages.items():
            low, high = summary["power"]["interval"]
            rows.append([f"{system}, {stage}", *(f"{point['carried']:.2g}" for point in summary["points"])])
            rows.append(["  keys named rightly", *(f"{100 * point['right']:.0f} %" for point in summary["points"])])
            fits.append((f"{system}, {stage}", f"times {summary['exponential']['a_step']:.4g} a step, or d^"
                                               f"{summary['power']['slope']:.2f} ({low:.2f} to {high:.2f})"))
    yield from aligned(rows)
    yield from aligned(fits, "<")
