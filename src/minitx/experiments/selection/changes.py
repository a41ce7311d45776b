"""What would change an answer: each demand is moved, all else kept, and the problem decided again. No torch."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from minitx.experiments.selection.candidates import Candidate
from minitx.experiments.selection.decision import Decision, Row
from minitx.experiments.selection.demands import Demands, option
from minitx.utils.errors import UserError

Choose = Callable[[Demands], Row | None]
LIMITS: dict[str, Callable[[Row], float]] = {  # demands that are limits, and the figure that each one limits
    "latency_ms": lambda row: row.figures.token_ms.value,
    "memory_gib": lambda row: row.figures.train_gib.value,
    "serve_gib": lambda row: row.figures.serve_gib.value,
    "budget_minutes": lambda row: row.minutes,
}
LADDER = {"tokens": 30.0, "length": 8.0, "budget_minutes": 30.0}  # demands that figures follow, and how far a rung is
FLAGS = ("streaming", "attention")
RUNGS = 2  # up, and down
CLOSE = 1.25  # a value at which the answer changes is found to within this factor
JUST = 1e-9  # as a share: a limit by this much below a figure


@dataclass(frozen=True)
class Change:
    """A demand whose move changes the answer. value: at which; None = with or without it"""

    demand: str
    side: str  # "below", "from", "with", "without"
    value: float | None
    answer: Row | None

    @property
    def chosen(self) -> Candidate | None:
        """Return the candidate that is chosen then."""
        return candidate_of(self.answer)


def changes(decision: Decision, choose: Choose, done: Callable[[str], None] = lambda _: None) -> Iterator[Change]:
    """Yield what would change the answer, each demand moved by itself, to the nearest value that does.

    done: is told of each of the demands of `moved_in_turn` that was moved
    """
    for name in moved_in_turn(decision.demands):
        if is_limit(name, decision.demands):
            yield from by_limit(name, decision, choose)
        elif name in LADDER:
            yield from by_ladder(name, LADDER[name], decision, choose)
        else:
            yield from by_flag(name, decision, choose)
        done(f"moved {option(name)}")


def moved_in_turn(demands: Demands) -> list[str]:
    """Return the demands that are moved."""
    limits = [name for name in LIMITS if is_limit(name, demands)]
    flags = [*FLAGS, *(["target_bleu"] if demands.target_bleu is not None else [])]
    return [*limits, *flags, *(name for name in LADDER if name not in limits and getattr(demands, name) is not None)]


def is_limit(name: str, demands: Demands) -> bool:
    """Return whether a demand only excludes; a budget alone says how long is trained, which figures follow."""
    return name in LIMITS and (name != "budget_minutes" or demands.tokens is not None)


def by_limit(name: str, decision: Decision, choose: Choose) -> Iterator[Change]:
    """Yield the figure at which a limit begins to exclude the answer, and the one at which it admits another.

    Between two figures of candidates a limit decides nothing, so that figures are the only values to try.
    """
    demands, figure = decision.demands, LIMITS[name]
    if decision.answer is not None:
        own = figure(decision.answer)
        yield Change(name, "below", own, choose(with_value(demands, name, own * (1 - JUST))))
    if limit_of(demands, name) is None:
        return
    for value in sorted(figure(row) for row in failing(decision, name)):
        if candidate_of(looser := choose(with_value(demands, name, value))) != decision.chosen:
            yield Change(name, "from", value, looser)
            return
    if getattr(demands, name) is not None:
        yield from without(name, decision, choose)


def without(name: str, decision: Decision, choose: Choose) -> Iterator[Change]:
    """Yield what changes if a demand is dropped."""
    answer = choose(with_value(decision.demands, name, None))
    if candidate_of(answer) != decision.chosen:
        yield Change(name, "without", None, answer)


def failing(decision: Decision, name: str) -> Iterator[Row]:
    """Yield the candidates that were looked at and fail a demand."""
    for row in (*decision.rows, *decision.tried):
        if isinstance(row, Row) and any(failure.demand == name for failure in row.failures):
            yield row


def limit_of(demands: Demands, name: str) -> float | None:
    """Return a limit as it is asked, or as the device has it."""
    limit: float | None = demands.memory_limit_gib if name == "memory_gib" else getattr(demands, name)
    return limit


def by_flag(name: str, decision: Decision, choose: Choose) -> Iterator[Change]:
    """Yield what changes with or without what is either asked or not, or without a BLEU to reach."""
    if name not in FLAGS:
        yield from without(name, decision, choose)
        return
    asked = getattr(decision.demands, name)
    with suppress(UserError):
        other = choose(with_value(decision.demands, name, not asked))
        if candidate_of(other) != decision.chosen:
            yield Change(name, "without" if asked else "with", None, other)


def by_ladder(name: str, rung: float, decision: Decision, choose: Choose) -> Iterator[Change]:
    """Yield the nearest value above, and below, at which the answer changes: found on a ladder, then by halves."""
    for factor, side in ((rung, "from"), (1 / rung, "below")):
        same = getattr(decision.demands, name)
        for _ in range(RUNGS):
            value = same * factor
            try:
                answer = choose(moved(decision.demands, name, value))
            except UserError:  # it contradicts another demand there
                break
            if candidate_of(answer) != decision.chosen:
                yield narrowed(Change(name, side, value, answer), same, decision, choose)
                break
            same = value


def narrowed(change: Change, same: float, decision: Decision, choose: Choose) -> Change:
    """Return where, between a value that changes nothing and that of a change, the answer changes: within `CLOSE`."""
    assert change.value is not None
    while max(same, change.value) / min(same, change.value) > CLOSE:
        middle = (same * change.value) ** 0.5
        answer = choose(moved(decision.demands, change.demand, middle))
        if candidate_of(answer) == decision.chosen:
            same = middle
        else:
            change = replace(change, value=middle, answer=answer)
    return change


def moved(demands: Demands, name: str, value: float) -> Demands:
    """Return the demands with one moved; the longest sentence goes along with the typical one."""
    if name != "length":
        return with_value(demands, name, value)
    length = max(2, round(value))
    return replace(demands, length=length, longest=max(length, round(demands.longest * length / demands.length)))


def with_value(demands: Demands, name: str, value: Any) -> Demands:
    """Return the demands with another value of one."""
    values: dict[str, Any] = {name: value}
    return replace(demands, **values)


def candidate_of(row: Row | None) -> Candidate | None:
    """Return the candidate of an answer."""
    return None if row is None else row.candidate
