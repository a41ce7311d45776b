"""What a recurrence costs because its steps wait for one another, and what a scan and attention cost instead.

Three exercises, measured: the seconds of a step over the width of the state; the numbers, the depth and the work of a
scan in plain Python; and the seconds of a reduction, a recurrence, a scan and attention over the length. What was
expected was written down before anything was measured (`PREDICTIONS`), and is shown beside what came out.

N positions, W width of the state.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from math import ceil, inf
from statistics import median
from timeit import timeit
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from minitx.config.schema import Config
from minitx.experiments.fits import VERDICTS, Claim, Interval, bounds_text, is_within, judge, undecided
from minitx.experiments.prefix_scan import COMPARED, REDUCTIONS, SCANS, Affine, hillis_steele, serial, states, trace
from minitx.experiments.studies.growth import common_points, fit_growth, grows, growth_text
from minitx.models.scan import doubling, step_by_step
from minitx.profiling.peak import synchronize
from minitx.training.build import choose_device
from minitx.utils.console import Console
from minitx.utils.progress import Progress
from minitx.utils.tables import aligned

DECAY = 0.9  # of the recurrence h_t = DECAY h_{t-1} + x_t
COUNTED = (8, 64, 1_024)  # positions at which depth and work are counted
W = 64  # width of the state, where the length varies
LONG_S = 1.0  # of a call that warms up by itself
MOST_ERROR = 1e-12  # of a scan in floats, relative to the largest state
Call = Callable[[], object]
Estimate = tuple[float, Interval]  # a figure with its interval


@dataclass(frozen=True)
class Sizes:
    """How wide and how long, and how often each call is timed."""

    widths: tuple[int, ...] = (1, 4, 16, 64, 256)
    steps: int = 256  # of a recurrence whose width varies
    lengths: tuple[int, ...] = tuple(2**n for n in range(6, 13))
    call_s: float = 1.0  # limit of one call
    block_s: float = 0.002  # a call is repeated until a block of repeats takes so long
    blocks: int = 5


SIZES = {"smoke": Sizes(),
         "full": Sizes(tuple(2**n for n in range(9)), 1_024, tuple(2**n for n in range(6, 17)), 60.0, 0.02, 7)}


@dataclass(frozen=True)
class Prediction:
    """What was expected of one figure before it was measured, and why."""

    figure: str
    bounds: Interval
    because: str


PYTHON = "a step with 64 states over one with a single number, plain Python"
NUMPY, TORCH = (f"a step with 64 states over one with 1, {way}" for way in ("NumPy", "torch"))
MATRIX = "a step with 256 states over one with 1, torch, h = tanh(U h + x)"
SERIAL, DOUBLING, ATTENTION = (f"exponent of the time over length: {way}" for way in (
    "the recurrence", "the scan by doubling", "attention over all pairs"))
SHORT, LONG = (f"{N:,} positions: the recurrence's time over that of the scan by doubling" for N in (1_024, 65_536))
OVERTAKEN = "65,536 positions: attention's time over the recurrence's"
PREDICTIONS = {  # by kind of device; written before the first measurement, and not changed since
    "cpu": (
        Prediction(PYTHON, (30, 80), "the interpreter visits each state"),
        Prediction(NUMPY, (0.8, 1.3), "two calls of half a microsecond or more each; 64 products are lost in that"),
        Prediction(TORCH, (0.8, 1.2), "two calls of some microseconds each"),
        Prediction(MATRIX, (1.3, 4), "65,536 products, their weights from the cache, beside three calls"),
        Prediction(SERIAL, (0.95, 1.05), "each step costs the same call"),
        Prediction(DOUBLING, (1, 1.4), "N log N combinations; from some length on memory sets the pace"),
        Prediction(ATTENTION, (1.8, 2.1), "N² products outweigh all else"),
        Prediction(SHORT, (2, 15), "1,024 calls of some two microseconds, against 10 rounds of eight larger ones"),
        Prediction(LONG, (0.1, 1), "two cores do little at once, and the scan's N log N combinations come from memory"),
        Prediction(OVERTAKEN, (30, 150), "at 50 to 100 billion operations a second, 65,536² pairs of width 64 take "
                                         "10 to 20 s; 65,536 steps a fifth of a second"),
    ),
    "cuda": (
        Prediction(TORCH, (0.9, 1.1), "two launches, whatever the width"),
        Prediction(MATRIX, (0.8, 1.5), "three launches; 256 KiB of weights are nothing"),
        Prediction(SERIAL, (0.97, 1.03), "a launch a step, some microseconds each"),
        Prediction(SHORT, (8, 50), "1,024 launches, against 10 rounds of four"),
        Prediction(LONG, (100, 2_000), "65,536 steps against 16; these move 16 MiB, some ten microseconds of memory"),
        Prediction(OVERTAKEN, (0.02, 0.4), "at 20 to 60 trillion operations a second all pairs take 20 to 60 ms; "
                                           "65,536 steps still take a third of a second"),
    ),
}


def measure(families: Mapping[str, Config], sizes: Sizes, console: Console) -> dict[str, Any]:
    """Do the three exercises on the config's device. families: one, whose device and seed count"""
    (cfg,) = families.values()
    device = choose_device(cfg.trainer)
    torch.manual_seed(cfg.seed)
    progress = Progress(console, len(STEPS) * len(sizes.widths) + len(COUNTED) + sum(
        timing_work(way, length) for way in OVER for length in sizes.lengths))
    with torch.inference_mode():
        widths = {way: list(time_widths(way, sizes, device, progress)) for way in STEPS}
        counts = [count(length, progress) for length in COUNTED]
        lengths = {way: time_lengths(way, sizes, device, progress) for way in OVER}
        plain = {name: time_call(call, torch.device("cpu"), sizes) for name, call in plain_python().items()}
    found = {"decay": DECAY, "width": W, "widths": widths, "counts": counts, "numbers": compare_numbers(cfg.seed),
             "lengths": lengths, "plain_python": plain}
    outcomes = [{"because": each.because, **asdict(outcome(each, found))} for each in PREDICTIONS.get(device.type, ())]
    return found | {"predictions": outcomes, "claims": [asdict(claim) for claim in claims(found)]}


def time_call(call: Call, device: torch.device, sizes: Sizes) -> dict[str, float]:
    """Return the seconds of a call: of blocks that are long enough for the clock, after two calls to warm up.

    Of a call that takes longer than `LONG_S` these two count.
    """
    seconds = [seconds_of(call, 1, device) for _ in range(2)]
    if seconds[-1] <= LONG_S:
        calls = ceil(sizes.block_s / seconds[-1])
        seconds = [seconds_of(call, calls, device) / calls for _ in range(sizes.blocks)]
    return {"seconds": median(seconds), "fastest_s": min(seconds), "slowest_s": max(seconds)}


def seconds_of(call: Call, calls: int, device: torch.device) -> float:
    """Return the seconds of so many calls, while no garbage is collected: that of a loop's tensors takes long."""
    def block() -> None:
        for _ in range(calls):
            call()
        synchronize(device)

    return timeit(block, number=1)


# --- exercise 1: how wide the state is


def scalar_steps(width: int, steps: int, device: torch.device) -> Call | None:
    """h = 0.9 h + x of single numbers, in plain Python."""
    xs = np.ones(steps).tolist()

    def run() -> float:
        h = 0.0
        for x in xs:
            h = DECAY * h + x
        return h

    return run if width == 1 else None


def list_steps(width: int, steps: int, device: torch.device) -> Call:
    """The same of a list of states."""
    xs = np.ones((steps, width)).tolist()

    def run() -> list[float]:
        h = [0.0] * width
        for x in xs:
            h = [DECAY * state + own for state, own in zip(h, x, strict=True)]
        return h

    return run


def numpy_steps(width: int, steps: int, device: torch.device) -> Call:
    """The same of an array."""
    xs = np.ones((steps, width), np.float32)

    def run() -> object:
        h = np.zeros(width, np.float32)
        for x in xs:
            h = DECAY * h + x
        return h

    return run


def torch_steps(width: int, steps: int, device: torch.device) -> Call:
    """The same of a tensor."""
    xs = torch.ones(steps, width, device=device)

    def run() -> Tensor:
        h = torch.zeros_like(xs[0])
        for x in xs.unbind():
            h = DECAY * h + x
        return h

    return run


def matrix_steps(width: int, steps: int, device: torch.device) -> Call:
    """h = tanh(U h + x): what mixes the states, as in a plain RNN."""
    xs, u = torch.ones(steps, width, device=device), torch.rand(width, width, device=device) / width

    def run() -> Tensor:
        h = torch.zeros_like(xs[0])
        for x in xs.unbind():
            h = torch.tanh(u @ h + x)
        return h

    return run


STEPS: Mapping[str, Callable[[int, int, torch.device], Call | None]] = {
    "Python, one number": scalar_steps, "Python, a list": list_steps, "NumPy": numpy_steps, "torch": torch_steps,
    "torch, with a matrix": matrix_steps}


def time_widths(way: str, sizes: Sizes, device: torch.device, progress: Progress) -> Iterator[dict[str, Any]]:
    """Yield the seconds of a step at each width that this way has."""
    for width in sizes.widths:
        if (call := STEPS[way](width, sizes.steps, device)) is not None:
            times = time_call(call, device, sizes)
            yield {"width": width} | {key: seconds / sizes.steps for key, seconds in times.items()}
        progress(f"{way}, width {width}")


# --- exercise 2: the scan in plain Python


def count(length: int, progress: Progress) -> dict[str, Any]:
    """Count what waits for what, and all that is combined, at one length."""
    traces = {name: trace(scan, range(length), lambda a, b: a + b) for name, scan in {**SCANS, **REDUCTIONS}.items()}
    progress(f"counting combinations of {length} positions")
    return {"length": length} | {name: {"depth": traced.depth, "work": traced.work} for name, traced in traces.items()}


def compare_numbers(seed: int) -> dict[str, Any]:
    """Solve a recurrence of random steps by doubling and one after another, in floats and exactly."""
    rng = np.random.default_rng(seed)
    gates, inputs = rng.random(COMPARED), rng.standard_normal(COMPARED)
    steps = [Affine(a, b) for a, b in zip(gates.tolist(), inputs.tolist(), strict=True)]
    one, other = (np.array(states(scan, steps), float) for scan in (serial, hillis_steele))
    exact = [Affine(Fraction(int(1_000 * a), 1_000), Fraction(int(1_000 * b), 1_000)) for a, b in steps[:64]]
    return {"error": float(abs(one - other).max() / abs(one).max()),
            "exact": states(serial, exact) == states(hillis_steele, exact), "exact_positions": len(exact)}


# --- exercise 3: how long the sequence is


def reduction(length: int, device: torch.device) -> Call:
    """The mean of all positions: a sum, and no attention yet."""
    x = torch.rand(length, W, device=device)
    return lambda: x.mean(0)


def recurrence(length: int, device: torch.device) -> Call:
    """h_t = a_t h_{t-1} + b_t, one step after another, each in one call."""
    a, b = (torch.rand(length, W, device=device) for _ in range(2))

    def run() -> Tensor:
        h = torch.empty_like(b)
        step_by_step(a.unbind(), b.unbind(), torch.zeros_like(b[0]), h.unbind())
        return h

    return run


def scan(length: int, device: torch.device) -> Call:
    """The same states by doubling, in log2(N) rounds."""
    return partial(doubling, *(torch.rand(length, W, device=device) for _ in range(2)))


def attention(length: int, device: torch.device) -> Call:
    """A weighted mean for each position, of all positions, with weights of its own: softmax(q k' / sqrt(W)) v."""
    q, k, v = (torch.rand(1, 1, length, W, device=device) for _ in range(3))
    return lambda: scaled_dot_product_attention(q, k, v)


OVER: Mapping[str, Callable[[int, torch.device], Call]] = {
    "reduction": reduction, "recurrence": recurrence, "scan by doubling": scan, "attention": attention}


def time_lengths(way: str, sizes: Sizes, device: torch.device, progress: Progress) -> dict[str, Any]:
    """Time one way at each length, until a call would take longer than it may."""
    points, stopped = list[dict[str, Any]](), None
    for length in sizes.lengths:
        expected_s = 0.0 if not points else points[-1]["seconds"] * (length / points[-1]["length"]) ** 2
        if stopped is None and expected_s > sizes.call_s:
            stopped = f"before {length:,} positions: up to {expected_s:.1f} s a call, more than {sizes.call_s:g}"
        if stopped is None:
            points.append({"length": length} | time_call(OVER[way](length, device), device, sizes))
        progress(f"{way}, {length:,} positions", timing_work(way, length))
    return {"points": points, "stopped": stopped, "time": fit_growth(points, "seconds")}


def timing_work(way: str, length: int) -> float:
    """Return about how long it takes to time a way, in arbitrary units: measured on a CPU with two cores."""
    return 1.0 + (2 * (length / 8_192) ** 2 if way == "attention" else 0.0)


def plain_python() -> dict[str, Call]:
    """Return what lectures time in plain Python, over `COMPARED` numbers, and a sum of as many operations as a loop."""
    xs = np.ones(COMPARED).tolist()

    def loop() -> float:
        total = 0.0
        for x in xs:
            total = total + DECAY * x
        return total

    recurrent = scalar_steps(1, COMPARED, torch.device("cpu"))
    assert recurrent is not None
    return {"recurrence": recurrent, "sum()": lambda: sum(xs) / len(xs), "a sum as a loop": loop}


# --- what follows


def at(points: Sequence[Mapping[str, Any]], key: str, value: int) -> Mapping[str, Any] | None:
    """Return the point that was measured there, if one was."""
    return next((point for point in points if point[key] == value), None)


def longest(found: Mapping[str, Any], one: str, other: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return two ways' points at the longest sequence that both were given."""
    both = common_points(found["lengths"][one]["points"], found["lengths"][other]["points"])
    return both[max(both)]


def ratio(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> Estimate | None:
    """Return how many times as long one takes as the other, from extremes of the blocks; None = one is not measured."""
    if one is None or other is None:
        return None
    return one["seconds"] / other["seconds"], (one["fastest_s"] / other["slowest_s"],
                                               one["slowest_s"] / other["fastest_s"])


def exponent(fit: Mapping[str, Any] | None) -> Estimate | None:
    """Return an exponent and its interval, of what `fit_growth` found."""
    return None if fit is None else (fit["exponent"], fit["interval"])


FIGURES: Mapping[str, Callable[[Mapping[str, Any]], Estimate | None]] = {
    PYTHON: lambda found: ratio(at(found["widths"]["Python, a list"], "width", 64),
                                at(found["widths"]["Python, one number"], "width", 1)),
    NUMPY: lambda found: wider(found["widths"]["NumPy"], 64),
    TORCH: lambda found: wider(found["widths"]["torch"], 64),
    MATRIX: lambda found: wider(found["widths"]["torch, with a matrix"], 256),
    SERIAL: lambda found: exponent(found["lengths"]["recurrence"]["time"]),
    DOUBLING: lambda found: exponent(found["lengths"]["scan by doubling"]["time"]),
    ATTENTION: lambda found: exponent(found["lengths"]["attention"]["time"]),
    SHORT: lambda found: slower(found, "recurrence", "scan by doubling", 1_024),
    LONG: lambda found: slower(found, "recurrence", "scan by doubling", 65_536),
    OVERTAKEN: lambda found: slower(found, "attention", "recurrence", 65_536),
}


def wider(points: Sequence[Mapping[str, Any]], width: int) -> Estimate | None:
    """Return how many times as long a step with so many states takes as one with a single state."""
    return ratio(at(points, "width", width), at(points, "width", 1))


def slower(found: Mapping[str, Any], one: str, other: str, length: int) -> Estimate | None:
    """Return how many times as long one way takes as the other at one length."""
    return ratio(*(at(found["lengths"][way]["points"], "length", length) for way in (one, other)))


def outcome(prediction: Prediction, found: Mapping[str, Any]) -> Claim:
    """Decide whether a figure came out as predicted."""
    return decide(prediction.figure, FIGURES[prediction.figure](found), prediction.bounds)


def decide(claim: str, estimate: Estimate | None, bounds: Interval) -> Claim:
    """Decide a claim, if there is an estimate."""
    return undecided(claim, bounds, "it was not measured at enough sizes") if estimate is None else judge(
        claim, *estimate, bounds)


def exactly(claim: str, value: float, bounds: Interval) -> Claim:
    """Decide a claim about what has no error."""
    return Claim(claim, bounds_text(bounds), f"{value:.4g}", is_within((value, value), bounds), "exactly")


def claims(found: Mapping[str, Any]) -> Iterator[Claim]:
    """Decide what lectures say of recurrence, reduction and scan."""
    counted, plain = found["counts"][-1], found["plain_python"]
    N = counted["length"]
    rounds, apart = (N - 1).bit_length(), counted["serial"]
    yield exactly(f"a recurrence over {N:,} positions has a depth of {N:,}", 1 + apart["depth"], (N, N))
    yield exactly(f"a reduction by a tree has the depth log N: {rounds}", counted["tree_reduction"]["depth"],
                  (rounds, rounds))
    yield exactly("a parallel scan has depth 1", counted["hillis_steele"]["depth"], (1, 1))
    yield exactly("a reduction takes as many additions as the recurrence has steps",
                  (1 + counted["tree_reduction"]["work"]) / (1 + apart["work"]), (1, 1))
    yield exactly("a scan that is parallel takes no more combinations than one after another",
                  min(counted[name]["work"] for name in ("hillis_steele", "work_efficient")) / apart["work"], (0, 1))
    yield exactly("the scan by doubling solves a recurrence, up to rounding", found["numbers"]["error"],
                  (0, MOST_ERROR))
    yield decide(f"in plain Python sum() is faster than the recurrence over {COMPARED:,} numbers",
                 ratio(plain["recurrence"], plain["sum()"]), (1, inf))
    yield decide("as a loop a sum of 0.9 x, which need not wait either, is at most 1.2 times as fast as the recurrence",
                 ratio(plain["recurrence"], plain["a sum as a loop"]), (0, 1.2))
    yield grows("the time of the recurrence grows linearly with length", found["lengths"]["recurrence"]["time"],
                (0.9, 1.1))
    yield grows("the time of attention over all pairs grows with the square of length",
                found["lengths"]["attention"]["time"], (1.7, 2.3))
    one, other = longest(found, "recurrence", "scan by doubling")
    depths = one["length"] / (one["length"] - 1).bit_length()
    yield decide(f"depth, not the number of operations, decides time: over {one['length']:,} positions the scan by "
                 f"doubling is at least a tenth of {depths:,.0f} times as fast, which is the ratio of depths",
                 ratio(one, other), (depths / 10, inf))


# --- for a person


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield steps over width, combinations, times over length, and predictions. found: as `measure` returns it"""
    widths = [point["width"] for point in found["widths"]["torch"]]
    steps = [["a step, µs, of so many states", *map(str, widths)]]
    for way, points in found["widths"].items():
        steps.append([way, *(microseconds(at(points, "width", width)) for width in widths)])
    yield from aligned(steps)
    yield ""
    counts = [["combinations: in turn, in all", *(f"{each['length']:,} positions" for each in found["counts"])]]
    counts += [[name.replace("_", " "), *(f"{each[name]['depth']:,}, {each[name]['work']:,}"
                                          for each in found["counts"])] for name in (*SCANS, *REDUCTIONS)]
    yield from aligned(counts)
    numbers = found["numbers"]
    yield (f"in fractions the scan by doubling gives {'the same' if numbers['exact'] else 'other'} numbers, in floats "
           f"they differ by {numbers['error']:.1g} of the largest")
    yield ""
    rows, fits = [["", "positions", "µs", "from", "to"]], list[tuple[str, str]]()
    for way, found_way in found["lengths"].items():
        rows += [[way, f"{point['length']:,}", *(f"{1e6 * point[key]:,.1f}" for key in (
            "seconds", "fastest_s", "slowest_s"))] for point in found_way["points"]]
        if (fit := found_way["time"]) is not None:
            fits.append((way, growth_text(fit, "time", "N")))
        fits.append((way, f"stopped {found_way['stopped'] or 'at the longest sequence'}"))
    yield from aligned(rows)
    yield from aligned(fits, "<")
    yield ""
    yield from aligned([("predicted", "asked", "measured", ""), *(
        (each["claim"], each["expected"], each["measured"], VERDICTS[each["holds"]]) for each in found["predictions"])],
        "<")


def microseconds(point: Mapping[str, Any] | None) -> str:
    """Write the seconds of a point in microseconds."""
    return "-" if point is None else f"{1e6 * point['seconds']:,.2f}"
