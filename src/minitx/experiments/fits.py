"""From measurements to verdicts: fits with errors, intervals of shares, and claims that are held against bounds.

Errors are standard errors; intervals are 95 % confidence intervals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Interval = tuple[float, float]
Floats = npt.NDArray[np.float64]
Z95 = 1.960
T95 = 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228  # Student's t, 1 to 10 degrees of freedom
EXPONENTS = {False: (-3.0, 3.0), True: (0.01, 3.0)}  # range that is searched: without a floor, and with one


def confidence_interval(value: float, error: float, freedom: int) -> Interval:
    """Return the interval of an estimate from its estimated error. freedom: degrees of freedom of the latter"""
    half = error * student(freedom)
    return value - half, value + half


def student(freedom: int) -> float:
    """Return Student's t for 95 %, within 1 %."""
    return T95[freedom - 1] if freedom <= len(T95) else Z95 + 2.4 / freedom


class Line(NamedTuple):
    """A fit of y = slope x + intercept; `residual` is the root mean square of its residuals."""

    slope: float
    intercept: float
    standard_error: float  # of the slope
    residual: float
    points: int

    @property
    def interval(self) -> Interval:
        """The confidence interval of the slope."""
        return confidence_interval(self.slope, self.standard_error, self.points - 2)


def fit_line(x: Sequence[float], y: Sequence[float]) -> Line:
    """Fit a line by least squares. Errors: ValueError for fewer than three points, which have no error"""
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    n = len(xs)
    if n < 3:
        raise ValueError(f"a line with an error needs three points, not {n}")
    centred = xs - xs.mean()
    spread = float(centred @ centred)
    slope = float(centred @ ys) / spread
    residuals = ys - ys.mean() - slope * centred
    squares = float(residuals @ residuals)
    return Line(slope, float(ys.mean() - slope * xs.mean()), sqrt(squares / (n - 2) / spread), sqrt(squares / n), n)


def power_text(fit: Mapping[str, Any] | None, base: str = "L", *, where: bool = False, missing: str = "–") -> str:
    """Write a power that was fitted, with its standard error. where: with the lengths that it is of, too

    fit: as studies store it (`studies/growth.py`); None = there is none
    """
    if fit is None:
        return missing
    lengths = f" ({fit['from']:,} to {fit['to']:,})" if where else ""
    return f"{base}^{fit['exponent']:.2f} ± {fit['standard_error']:.2f}{lengths}"


# --- a loss over size


class Law(NamedTuple):
    """A fit of L(N) = factor N^-exponent + constant; `residual` is the root mean square of relative residuals.

    No parameter is bounded to be positive: a loss that rises has a negative exponent or factor, one that falls ever
    more steeply a negative constant. The error of an estimate at a bound could not be trusted.
    """

    factor: float
    exponent: float
    constant: float
    residual: float

    def at(self, n: float) -> float:
        """Return the loss at size n."""
        return float(self.factor * n ** -self.exponent + self.constant)


def fit_law(n: Sequence[float], loss: Sequence[float], *, floor: bool) -> Law:
    """Fit how a loss falls with size, towards a floor or towards 0, by least squares of relative residuals.

    Given the exponent, the other parameters are linear, so only the exponent is searched, on finer and finer grids.
    """
    x, y = np.asarray(n, float), np.asarray(loss, float)
    lowest, highest = low, high = EXPONENTS[floor]
    best = Law(0.0, 0.0, 0.0, inf)
    for _ in range(4):
        grid = np.linspace(low, high, 101)
        best = min((_fit_at_exponent(float(exponent), x, y, floor) for exponent in grid), key=lambda fit: fit.residual)
        step = (high - low) / 100
        low, high = max(lowest, best.exponent - step), min(highest, best.exponent + step)
    return best


def _fit_at_exponent(exponent: float, x: Floats, y: Floats, floor: bool) -> Law:
    middle = float(np.exp(np.log(x).mean()))  # relative to it, powers stay of the order of 1
    power, one = (x / middle) ** -exponent / y, 1 / y
    if floor:
        factor, constant = np.linalg.lstsq(np.stack([power, one], axis=1), np.ones_like(y), rcond=None)[0]
    else:
        factor, constant = power.sum() / (power @ power), 0.0
    residuals = factor * power + constant * one - 1
    rms = sqrt(float(residuals @ residuals) / len(y))
    return Law(float(factor * middle ** exponent), exponent, float(constant), rms)


def law_errors(n: Sequence[float], loss: Sequence[float], *, floor: bool) -> tuple[float, float] | None:
    """Return the errors of exponent and constant by the jackknife: from fits that each leave one point out.

    None = one of these fits has its exponent at the edge of the search, so it is no estimate.
    """
    fits = [fit_law([*n[:i], *n[i + 1:]], [*loss[:i], *loss[i + 1:]], floor=floor) for i in range(len(n))]
    if any(fit.exponent in EXPONENTS[floor] for fit in fits):
        return None
    exponent, constant = (sqrt((len(n) - 1) * float(np.var([getattr(fit, name) for fit in fits])))
                          for name in ("exponent", "constant"))
    return exponent, constant


def prediction_error(n: Sequence[float], loss: Sequence[float], *, floor: bool) -> float:
    """Predict the last loss from those before it, and return the relative error: -0.05 = predicted 5 % too low."""
    return fit_law(n[:-1], loss[:-1], floor=floor).at(n[-1]) / loss[-1] - 1


# --- shares


def wilson(correct: int, n: int) -> Interval:
    """Return the interval of the share `correct / n`. Source: Wilson 1927."""
    share, z2 = correct / n, Z95**2
    middle, half = share + z2 / (2 * n), Z95 * sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    low, high = ((middle + side) / (1 + z2 / n) for side in (-half, half))
    return max(0.0, min(share, low)), min(1.0, max(share, high))  # at shares of 0 and 1 rounding may leave it outside


def share_lost(before: tuple[int, int], after: tuple[int, int]) -> tuple[float, Interval]:
    """Return the share before minus the share after, and its interval. Source: Newcombe 1998, method 10.

    before, after: (correct, n)
    """
    (p, (p_low, p_high)), (q, (q_low, q_high)) = ((correct / n, wilson(correct, n)) for correct, n in (before, after))
    low, high = sqrt((p - p_low) ** 2 + (q_high - q) ** 2), sqrt((p_high - p) ** 2 + (q - q_low) ** 2)
    return p - q, (p - q - low, p - q + high)


# --- claims


@dataclass(frozen=True)
class Claim:
    """A claim, and whether it holds against what was measured; None = these measurements do not decide it."""

    claim: str
    expected: str
    measured: str
    holds: bool | None
    why: str
    predicted: str = ""  # what was expected, and why, before it was measured

    def predicting(self, predicted: str) -> "Claim":
        """Return the claim with what was predicted."""
        return replace(self, predicted=predicted)


VERDICTS = {True: "holds", False: "does not hold", None: "not decided"}


def is_within(interval: Interval, bounds: Interval) -> bool | None:
    """Return True if all of the interval lies within the bounds, False if none of it does, else None."""
    if bounds[0] <= interval[0] and interval[1] <= bounds[1]:
        return True
    return False if interval[1] < bounds[0] or bounds[1] < interval[0] else None


def judge(claim: str, value: float, interval: Interval, bounds: Interval) -> Claim:
    """Decide a claim that a value lies within bounds, from an estimate and its interval."""
    holds = is_within(interval, bounds)
    where = {True: "within what is asked", False: "outside of it", None: "partly within, so neither"}[holds]
    why = f"{interval[0]:.3g} to {interval[1]:.3g} lies {where}"
    return Claim(claim, bounds_text(bounds), f"{value:.3g}", holds, why)


def undecided(claim: str, bounds: Interval, why: str) -> Claim:
    """Return a claim that cannot be decided for want of a measurement. why: what is missing"""
    return Claim(claim, bounds_text(bounds), "n/a", None, why)


def bounds_text(bounds: Interval) -> str:
    """Return bounds in words."""
    low, high = bounds
    if high == inf:
        return f"at least {low:g}"
    return f"at most {high:g}" if low == -inf else f"{low:g} to {high:g}"
