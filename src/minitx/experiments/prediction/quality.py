"""Time to quality on a GPU that is not here: updates to a BLEU, as published runs needed, times predicted seconds.

Learning curves over updates do not depend on the machine, but for rounding. With several GPUs an update is either the
same, shared by all, or each brings as many tokens as one did. How many fewer updates are needed then was not measured:
at worst as many as before, at best so many fewer that the tokens stay the same. Both are given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import fmean, stdev

from minitx.experiments.fits import student

Curve = Sequence[Sequence[float]]  # of a published run: updates, seconds, loss and BLEU at each validation


@dataclass(frozen=True)
class Minutes:
    """Minutes of training to a BLEU, as predicted, and a 95 % interval from seeds and the error of predictions."""

    minutes: float
    low: float
    high: float


def updates_to(curve: Curve, bleu: float) -> float | None:
    """Return the updates after which validation BLEU reached a value, on a line between two validations."""
    step, reached = 0.0, 0.0
    for next_step, *_, found in curve:
        if found >= bleu:
            return step + (next_step - step) * (bleu - reached) / (found - reached)
        step, reached = next_step, found
    return None


def minutes_to(updates: Sequence[float | None], update_s: float, spread: float, freedom: int) -> Minutes | None:
    """Return the minutes that a system's seeds need for so many updates, or None where one did not get there.

    update_s: predicted; spread: deviation of the logarithm of predicted over published speeds, of `freedom` trainings
    """
    logs = [log(n * update_s / 60) for n in updates if n is not None]
    if len(logs) < len(updates) or not logs:
        return None
    seeds = student(len(logs) - 1) * stdev(logs) / sqrt(len(logs)) if len(logs) > 1 else 0.0
    half, middle = sqrt(seeds**2 + (student(freedom) * spread) ** 2), fmean(logs)
    return Minutes(exp(middle), exp(middle - half), exp(middle + half))
