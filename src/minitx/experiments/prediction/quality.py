"""Time to quality on a GPU that is not here: updates to a BLEU, as published runs needed, times predicted seconds.

Learning curves over updates do not depend on the machine, but for rounding. With several GPUs an update is either the
same, shared by all, or each brings as many tokens as one did. How many fewer updates are needed then was not measured:
at worst as many as before, at best so many fewer that the tokens stay the same. Both are given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import fmean, stdev

from minitx.experiments.fits import T95
from minitx.experiments.reports.results import Row

STEP, BLEU = 0, 3  # columns of a row's curve


@dataclass(frozen=True)
class Minutes:
    """Minutes of training to a BLEU, as predicted, and a 95 % interval from seeds and the error of predictions."""

    minutes: float
    low: float
    high: float


def updates_to(row: Row, bleu: float) -> float | None:
    """Return the updates after which a run's validation BLEU reached a value, on a line between two validations."""
    before = 0.0, 0.0
    for point in row.curve:
        now = point[STEP], point[BLEU]
        if now[1] >= bleu:
            return before[0] + (now[0] - before[0]) * (bleu - before[1]) / (now[1] - before[1])
        before = now
    return None


def minutes_to(rows: Sequence[Row], bleu: float, update_s: float, spread: float) -> Minutes | None:
    """Return the minutes that these seeds of a system would need, or None where one did not reach the BLEU.

    update_s: predicted; spread: standard deviation of the logarithm of predicted over measured speeds
    """
    updates = [updates_to(row, bleu) for row in rows]
    known = [n for n in updates if n is not None]
    if len(known) < len(rows) or not known:
        return None
    logs = [log(n * update_s / 60) for n in known]
    seeds = T95[len(logs) - 2] * stdev(logs) / sqrt(len(logs)) if len(logs) > 1 else 0.0
    half, middle = sqrt(seeds**2 + (1.96 * spread) ** 2), fmean(logs)
    return Minutes(exp(middle), exp(middle - half), exp(middle + half))
