"""What would change an answer: each demand is moved, all else kept, and the problem decided again. No torch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from minitx.experiments.selection.decision import Decision, Row
from minitx.experiments.selection.demands import Demands
from minitx.utils.errors import UserError

Decide = Callable[[Demands], Decision]
LIMITS: dict[str, Callable[[Row], float]] = {  # demands that are limits, and the figure that each one limits
    "latency_ms": lambda row: row.figures.token_ms.value,
    "memory_gib": lambda row: row.figures.train_gib.value,
    "serve_gib": lambda row: row.figures.serve_gib.value,
    "budget_minutes": lambda row: row.minutes,
}
LADDER = {"tokens": 10.0, "length": 8.0, "budget_minutes": 10.0}  # demands that figures follow, and how far a rung is
RUNGS = 3  # up, and down
CLOSE = 1.1  # a value at which the answer changes is found to within this factor
JUST = 1e-9  # as a share: a limit by this much below a figure


@dataclass(frozen=True)
class Change:
    """A demand whose move changes the answer. value: at which; None = with or without it"""

    demand: str
    side: str  # "below", "from", "with", "without"
    value: float | None
    decision: Decision


def changes(decision: Decision, decide: Decide) -> Iterator[Change]:
    """Yield what would change the answer, each demand moved by itself, to the nearest value that does."""
    yield from by_limits(decision, decide)
    yield from by_flags(decision, decide)
    for name, rung in LADDER.items():
        if getattr(decision.demands, name) is not None and not (name in LIMITS and decision.demands.tokens):
            yield from by_ladder(name, rung, decision, decide)


def by_limits(decision: Decision, decide: Decide) -> Iterator[Change]:
    """Yield for each limit the figure at which it begins to exclude the answer, and the one at which to admit another.

    Between two figures of candidates a limit decides nothing, so that figures are the only values to try.
    """
    demands = decision.demands
    for name, figure in LIMITS.items():
        if name == "budget_minutes" and demands.tokens is None:
            continue  # it is no limit then: it says how long is trained
        if decision.answer is not None:
            own = figure(decision.answer)
            tighter = decide(replace(demands, **{name: own * (1 - JUST)}))
            yield Change(name, "below", own, tighter)
        if limit_of(demands, name) is None:
            continue
        failing = [figure(row) for row in decision.rows if any(failure.demand == name for failure in row.failures)]
        for value in sorted(failing):
            if (looser := decide(replace(demands, **{name: value}))).chosen != decision.chosen:
                yield Change(name, "from", value, looser)
                break
        else:
            without = decide(replace(demands, **{name: None}))
            if getattr(demands, name) is not None and without.chosen != decision.chosen:
                yield Change(name, "without", None, without)


def limit_of(demands: Demands, name: str) -> float | None:
    """Return a limit as it is asked, or as the device has it."""
    limit: float | None = demands.memory_limit_gib if name == "memory_gib" else getattr(demands, name)
    return limit


def by_flags(decision: Decision, decide: Decide) -> Iterator[Change]:
    """Yield what changes with or without what is either asked or not, and without a BLEU to reach."""
    demands = decision.demands
    for name in ("streaming", "attention"):
        asked = getattr(demands, name)
        if (other := tried(replace(demands, **{name: not asked}), decide)) and other.chosen != decision.chosen:
            yield Change(name, "without" if asked else "with", None, other)
    if demands.target_bleu is not None:
        without = decide(replace(demands, target_bleu=None))
        if without.chosen != decision.chosen:
            yield Change("target_bleu", "without", None, without)


def by_ladder(name: str, rung: float, decision: Decision, decide: Decide) -> Iterator[Change]:
    """Yield the nearest value above, and below, at which the answer changes: found on a ladder, then by halves."""
    for factor, side in ((rung, "from"), (1 / rung, "below")):
        same = getattr(decision.demands, name)
        for _ in range(RUNGS):
            value = same * factor
            other = tried(moved(decision.demands, name, value), decide)
            if other is None:
                break
            if other.chosen != decision.chosen:
                yield narrowed(name, side, same, value, other, decision, decide)
                break
            same = value


def narrowed(name: str, side: str, same: float, other: float, at: Decision, decision: Decision,
             decide: Decide) -> Change:
    """Return where between two values the answer changes, within `CLOSE`."""
    while max(same, other) / min(same, other) > CLOSE:
        middle = (same * other) ** 0.5
        between = tried(moved(decision.demands, name, middle), decide)
        if between is None or between.chosen == decision.chosen:
            same = middle
        else:
            other, at = middle, between
    return Change(name, side, other, at)


def moved(demands: Demands, name: str, value: float) -> Demands:
    """Return the demands with one moved; the longest sentence goes along with the typical one."""
    if name != "length":
        return replace(demands, **{name: value})
    length = max(2, round(value))
    return replace(demands, length=length, longest=max(length, round(demands.longest * length / demands.length)))


def tried(demands: Demands, decide: Decide) -> Decision | None:
    """Decide, or return None for demands that contradict themselves."""
    try:
        return decide(demands)
    except UserError:
        return None
