"""The prefix scan in plain Python: one after another, by doubling, and work-efficient; its depth and work are counted.

A scan takes x_1 ... x_n and an associative `combine`, and returns x_1, x_1 x_2, ..., x_1 ... x_n. A linear recurrence,
h_t = a_t h_{t-1} + b_t, is the scan of its steps, each a function of the state, combined by composition.
Source: Blelloch 1990, Prefix sums and their applications.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from itertools import accumulate
from typing import Generic, NamedTuple, Protocol, TypeVar

T = TypeVar("T")
Combine = Callable[[T, T], T]  # associative; the earlier one first
Number = float | Fraction
COMPARED = 1_024  # positions at which numbers and times are compared (`studies/scan.py`)


class Scan(Protocol):
    """A scan, or a reduction, whose only result is the last."""

    def __call__(self, xs: Sequence[T], combine: Combine[T], /) -> Sequence[T]:
        """Return the results, for values of any kind."""


class Affine(NamedTuple):
    """One step of a linear recurrence, h -> a h + b, or several in turn, which are such a function again."""

    a: Number
    b: Number

    def then(self, later: "Affine") -> "Affine":
        """Return this step followed by a later one: a2 (a1 h + b1) + b2."""
        return Affine(later.a * self.a, later.a * self.b + later.b)


def states(scan: Scan, steps: Sequence[Affine]) -> list[Number]:
    """Return h_1 ... h_n of the recurrence that begins at h_0 = 0."""
    return [prefix.b for prefix in scan(steps, Affine.then)]


# --- scans, and reductions to the last result alone


def serial(xs: Sequence[T], combine: Combine[T]) -> list[T]:
    """Combine one after another, as a recurrence does."""
    return list(accumulate(xs, combine))


def hillis_steele(xs: Sequence[T], combine: Combine[T]) -> list[T]:
    """Combine each with the one 1, then 2, 4, 8 ... places before it, all at the same time.

    Source: Hillis and Steele 1986, Data parallel algorithms.
    """
    results, reach = list(xs), 1
    while reach < len(results):
        results = results[:reach] + [combine(*pair) for pair in zip(results, results[reach:], strict=False)]
        reach *= 2
    return results


def work_efficient(xs: Sequence[T], combine: Combine[T]) -> list[T]:
    """Combine neighbours, scan the half as many pairs, and put in what lies between. Source: Ladner and Fischer 1980"""
    if len(xs) < 2:
        return list(xs)
    pairs = work_efficient([combine(*pair) for pair in zip(xs[::2], xs[1::2], strict=False)], combine)
    return [xs[0], *(pairs[i // 2] if i % 2 else combine(pairs[i // 2 - 1], xs[i]) for i in range(1, len(xs)))]


def serial_reduction(xs: Sequence[T], combine: Combine[T]) -> list[T]:
    """Combine all into one, one after another."""
    return [reduce(combine, xs)]


def tree_reduction(xs: Sequence[T], combine: Combine[T]) -> list[T]:
    """Combine all into one: neighbours, then neighbouring pairs, and so on, each round at the same time."""
    results = list(xs)
    while len(results) > 1:
        odd = results[-1:] if len(results) % 2 else []
        results = [combine(*pair) for pair in zip(results[::2], results[1::2], strict=False)] + odd
    return results


SCANS: Mapping[str, Scan] = {"serial": serial, "hillis_steele": hillis_steele, "work_efficient": work_efficient}
REDUCTIONS: Mapping[str, Scan] = {"serial_reduction": serial_reduction, "tree_reduction": tree_reduction}


# --- how they went about it


@dataclass(frozen=True, eq=False)
class Traced(Generic[T]):
    """A value, which places it is of, and how it came about."""

    value: T
    first: int
    last: int
    depth: int = 0  # combinations of the longest chain in which each needed the one before
    made_of: tuple["Traced[T]", ...] = ()


@dataclass(frozen=True)
class Trace(Generic[T]):
    """What a scan was given and returned, and every combination that it made, in the order in which they were made."""

    inputs: Sequence[Traced[T]]
    results: Sequence[Traced[T]]
    combined: Sequence[Traced[T]]

    @property
    def depth(self) -> int:
        """The combinations that wait for one another: what any number of processors must do in turn."""
        return max(result.depth for result in self.results)

    @property
    def work(self) -> int:
        """All combinations: what one processor must do."""
        return len(self.combined)

    def after(self, rounds: int) -> list[Traced[T]]:
        """Return what is known at each place once all chains of so many combinations are done."""
        newest = {node.last: node for node in (*self.inputs, *self.combined) if node.depth <= rounds}
        return [newest[node.last] for node in self.inputs]


def trace(scan: Scan, xs: Iterable[T], combine: Combine[T]) -> Trace[T]:
    """Run a scan and follow what it combines. Errors: ValueError if it combines what are no neighbours"""
    combined: list[Traced[T]] = []

    def follow(one: Traced[T], other: Traced[T]) -> Traced[T]:
        if one.last + 1 != other.first:
            raise ValueError(f"{one.first} to {one.last} and {other.first} to {other.last} are no neighbours")
        combined.append(Traced(combine(one.value, other.value), one.first, other.last,
                               1 + max(one.depth, other.depth), (one, other)))
        return combined[-1]

    inputs = [Traced(x, place, place) for place, x in enumerate(xs)]
    return Trace(inputs, scan(inputs, follow), combined)
