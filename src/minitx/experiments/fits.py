"""From figures to verdicts: lines and power laws with their errors, intervals of shares, claims held against bounds.

Errors are standard errors; intervals are meant to hold the truth 95 times in 100.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Interval = tuple[float, float]
Floats = npt.NDArray[np.float64]
Z95 = 1.960
T95 = 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228  # Student's, of 1 to 10 degrees of freedom
EXPONENTS = {False: (-3.0, 3.0), True: (0.01, 3.0)}  # that are tried without a floor, and with one


def confidence_interval(value: float, error: float, freedom: int) -> Interval:
    """Return the interval about an estimate whose error was itself estimated, with so many degrees of freedom."""
    wide = error * (T95[freedom - 1] if freedom <= len(T95) else Z95 + 2.4 / freedom)  # t, within 1 %
    return value - wide, value + wide


class Line(NamedTuple):
    """Hold y = slope x + intercept; `residual` is the root mean square of what it leaves."""

    slope: float
    intercept: float
    standard_error: float  # of the slope
    residual: float
    points: int

    @property
    def interval(self) -> Interval:
        """The slope's."""
        return confidence_interval(self.slope, self.standard_error, self.points - 2)


def fit_line(x: Sequence[float], y: Sequence[float]) -> Line:
    """Fit a line by least squares. Errors: ValueError for fewer than three points, which leave no error to see."""
    across, up = np.asarray(x, float), np.asarray(y, float)
    n = len(across)
    if n < 3:
        raise ValueError(f"a line with an error needs three points, not {n}")
    apart = across - across.mean()
    spread = float(apart @ apart)
    slope = float(apart @ up) / spread
    left = up - up.mean() - slope * apart
    squares = float(left @ left)
    return Line(slope, float(up.mean() - slope * across.mean()), sqrt(squares / (n - 2) / spread), sqrt(squares / n), n)


# --- a loss over size


class Law(NamedTuple):
    """Hold L(N) = factor N^-exponent + constant; `residual` is the root mean square of its relative deviations.

    Nothing is kept from being negative: a loss that rises has a negative exponent or factor, one that falls ever more
    steeply a negative constant. An estimate that may not cross a bound has no error that could be trusted.
    """

    factor: float
    exponent: float
    constant: float
    residual: float

    def at(self, n: float) -> float:
        """Return the loss at a size."""
        return float(self.factor * n ** -self.exponent + self.constant)


def fit_law(n: Sequence[float], loss: Sequence[float], *, floor: bool) -> Law:
    """Fit how a loss falls with size, towards a floor or towards nothing, by least squares of relative deviations.

    Given the exponent the rest is linear, so only the exponent is searched: on a grid that closes in.
    """
    x, y = np.asarray(n, float), np.asarray(loss, float)
    (least, most), best = EXPONENTS[floor], Law(0.0, 0.0, 0.0, inf)
    low, high = least, most
    for _ in range(4):
        grid = np.linspace(low, high, 101)
        best = min((_fit_at_exponent(float(exponent), x, y, floor) for exponent in grid), key=lambda fit: fit.residual)
        step = (high - low) / 100
        low, high = max(least, best.exponent - step), min(most, best.exponent + step)
    return best


def _fit_at_exponent(exponent: float, x: Floats, y: Floats, floor: bool) -> Law:
    middle = float(np.exp(np.log(x).mean()))  # about which powers stay of the order of 1
    power, one = (x / middle) ** -exponent / y, 1 / y
    if floor:
        factor, constant = np.linalg.lstsq(np.stack([power, one], axis=1), np.ones_like(y), rcond=None)[0]
    else:
        factor, constant = power.sum() / (power @ power), 0.0
    left = factor * power + constant * one - 1
    return Law(float(factor * middle ** exponent), exponent, float(constant), sqrt(float(left @ left) / len(y)))


def law_errors(n: Sequence[float], loss: Sequence[float], *, floor: bool) -> tuple[float, float] | None:
    """Return the errors of exponent and constant, from fits that each leave one point out (the jackknife).

    None = one of these has an exponent at the edge of those tried, so that it is not an estimate.
    """
    fits = [fit_law([*n[:i], *n[i + 1:]], [*loss[:i], *loss[i + 1:]], floor=floor) for i in range(len(n))]
    if any(fit.exponent in EXPONENTS[floor] for fit in fits):
        return None
    exponent, constant = (sqrt((len(n) - 1) * float(np.var([getattr(fit, name) for fit in fits])))
                          for name in ("exponent", "constant"))
    return exponent, constant


def prediction_error(n: Sequence[float], loss: Sequence[float], *, floor: bool) -> float:
    """Predict the last loss from those before it. --> by how much of it that is too high, or too low: -0.05 = 5 %"""
    return fit_law(n[:-1], loss[:-1], floor=floor).at(n[-1]) / loss[-1] - 1


# --- shares


def wilson(right: int, n: int) -> Interval:
    """Return the interval of a share. Source: Wilson 1927."""
    share, z2 = right / n, Z95**2
    middle, wide = share + z2 / (2 * n), Z95 * sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    low, high = ((middle + side) / (1 + z2 / n) for side in (-wide, wide))
    return max(0.0, min(share, low)), min(1.0, max(share, high))  # it is inside, whatever rounding makes of 0 and 1


def share_lost(before: tuple[int, int], after: tuple[int, int]) -> tuple[float, Interval]:
    """Subtract a share from another, each given as (right, of). Source of the interval: Newcombe 1998, method 10."""
    (p, (p_low, p_high)), (q, (q_low, q_high)) = ((right / n, wilson(right, n)) for right, n in (before, after))
    low, high = sqrt((p - p_low) ** 2 + (q_high - q) ** 2), sqrt((p_high - p) ** 2 + (q - q_low) ** 2)
    return p - q, (p - q - low, p - q + high)


# --- claims


@dataclass(frozen=True)
class Claim:
    """Hold what is said against what was measured. `holds`: None = these figures cannot tell."""

    claim: str
    expected: str
    measured: str
    holds: bool | None
    why: str


VERDICTS = {True: "holds", False: "does not hold", None: "not decided"}


def is_within(interval: Interval, bounds: Interval) -> bool | None:
    """Tell whether an interval lies within bounds: all of it, nothing of it (False), or only a part (None)."""
    if bounds[0] <= interval[0] and interval[1] <= bounds[1]:
        return True
    return False if interval[1] < bounds[0] or bounds[1] < interval[0] else None


def judge(claim: str, value: float, interval: Interval, bounds: Interval) -> Claim:
    """Hold a claim that asks for bounds against an estimate and its interval."""
    holds = is_within(interval, bounds)
    where = {True: "within what is asked", False: "outside of it", None: "partly within, so neither"}[holds]
    why = f"{interval[0]:.3g} to {interval[1]:.3g} lies {where}"
    return Claim(claim, bounds_text(bounds), f"{value:.3g}", holds, why)


def undecided(claim: str, bounds: Interval, why: str) -> Claim:
    """Leave a claim open for which there is no figure."""
    return Claim(claim, bounds_text(bounds), "n/a", None, why)


def bounds_text(bounds: Interval) -> str:
    """Write bounds as a person says them."""
    low, high = bounds
    if high == inf:
        return f"at least {low:g}"
    return f"at most {high:g}" if low == -inf else f"{low:g} to {high:g}"
