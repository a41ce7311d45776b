"""A study `scan` as its file holds it, small and made up: each way takes as long as a law says."""

from collections.abc import Callable
from typing import Any

LENGTHS = tuple(2**n for n in range(6, 17))
WIDTHS = 1, 64, 256
WAYS: dict[str, Callable[[int], float]] = {
    "reduction": lambda n: 1e-9 * n, "recurrence": lambda n: 2e-6 * n, "scan by doubling": lambda n: 5e-7 * n**1.2,
    "attention": lambda n: 1e-9 * n**2}
STEPS: dict[str, Callable[[int], float]] = {
    "Python, one number": lambda w: 4e-8, "Python, a list": lambda w: 4e-8 * w, "NumPy": lambda w: 1e-6,
    "torch": lambda w: 4e-6, "torch, with a matrix": lambda w: 1e-5 * (1 + (w / 256) ** 2)}
PLAIN = {"recurrence": 4e-5, "sum()": 4e-6, "a sum as a loop": 3.9e-5}
COUNTS = {"serial": (1_023, 1_023), "hillis_steele": (10, 9_217), "work_efficient": (18, 2_036),
          "serial_reduction": (1_023, 1_023), "tree_reduction": (10, 1_023)}


def timed(seconds: float) -> dict[str, float]:
    """Return a time and its extremes."""
    return {"seconds": seconds, "fastest_s": 0.99 * seconds, "slowest_s": 1.01 * seconds}


def growth(law: Callable[[int], float], exponent: float) -> dict[str, Any]:
    """Return a way's points, and an exponent for its time."""
    return {"points": [{"length": n} | timed(law(n)) for n in LENGTHS], "stopped": None,
            "time": {"exponent": exponent, "standard_error": 0.005, "interval": (exponent - 0.01, exponent + 0.01),
                     "from": 2_048, "to": 65_536}}


def scan_study(slower: float = 1.0) -> dict[str, Any]:
    """Return what was found, without claims and conditions. slower: how many times as long the recurrence takes"""
    laws = WAYS | {"recurrence": lambda n: slower * WAYS["recurrence"](n)}
    exponents = {"reduction": 1.0, "recurrence": 1.0, "scan by doubling": 1.2, "attention": 2.0}
    return {
        "decay": 0.9, "width": 64,
        "widths": {way: [{"width": w} | timed(law(w)) for w in WIDTHS if w == 1 or way != "Python, one number"]
                   for way, law in STEPS.items()},
        "counts": [{"length": 1_024} | {name: {"depth": depth, "work": work}
                                        for name, (depth, work) in COUNTS.items()}],
        "numbers": {"error": 1e-15, "exact": True, "exact_positions": 64},
        "lengths": {way: growth(law, exponents[way]) for way, law in laws.items()},
        "plain_python": {name: timed(seconds) for name, seconds in PLAIN.items()},
    }
