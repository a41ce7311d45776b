"""How the cost of one sentence grows with its length: seconds, bytes, and operators that wait for one another.

Forward, loss and backward over a sentence of L tokens on both sides. The length doubles until the next one would take
more time or memory than allowed.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import product
from math import exp, inf, log
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from minitx.config.schema import Config
from minitx.data.batch import Batch, collate
from minitx.data.tokenizer import BOS_ID, EOS_ID, N_SPECIALS, PAD_ID
from minitx.experiments.costs.complexity import TimedBatch, with_width
from minitx.experiments.fits import Claim, Interval, fit_line, judge, undecided
from minitx.models.base import Seq2Seq
from minitx.models.registry import build_model
from minitx.profiling.process import available_bytes
from minitx.training.build import choose_device, choose_precision
from minitx.training.loss import linear_cross_entropy
from minitx.training.state import RunState
from minitx.training.task import TranslationTask
from minitx.utils.console import Console, duration
from minitx.utils.tables import aligned

VOCAB = 1_000
COUNTED = (8, 16, 32, 64)  # lengths at which operators are counted
GIB, MIB = 2**30, 2**20
COMPARED = 512  # length at which speeds are compared
Point = Mapping[str, Any]  # what was measured at one length


@dataclass(frozen=True)
class Sizes:
    """How far lengths go, and how much time and memory a family may take."""

    d_model: int = 128
    shortest: int = 16
    longest: int = 65_536
    pass_s: float = 12.0  # limit of one forward and backward pass
    memory_share: float = 0.5  # limit, of the memory that is free when the study begins
    repeats: int = 3  # after one pass of warm-up, in which bytes are counted

    @property
    def lengths(self) -> list[int]:
        """The lengths, each twice the one before."""
        return [self.shortest << i for i in range((self.longest // self.shortest).bit_length())]


SIZES = {"smoke": Sizes(), "full": Sizes(d_model=256, pass_s=60.0, repeats=5)}


@dataclass(eq=False)
class LengthSweep:
    """One family's measurements, and what the next length is expected to take."""

    name: str
    task: TranslationTask
    depth: dict[str, Any]  # as `depth_law` returns it
    points: list[dict[str, Any]] = field(default_factory=list)
    stopped: str | None = None  # before which length, and why

    @property
    def growth_factor(self) -> float:
        """How many times as long the last doubling of the length took, kept between 2 and 4: outliers do not count."""
        seconds: list[float] = [point["seconds"] for point in self.points[-2:]] or [1.0]
        return min(4.0, max(2.0, seconds[-1] / seconds[0]))

    def predict(self) -> tuple[float, float]:
        """Predict twice the length: time grows as it last did, bytes at most with the square. --> seconds, bytes"""
        if not self.points:
            return 0.0, 0.0
        last = self.points[-1]
        return last["seconds"] * self.growth_factor, 4.0 * last["peak_bytes"]

    def check_limits(self, length: int, sizes: Sizes, max_bytes: float) -> None:
        """Stop if the next length would take too much time or memory."""
        seconds, nbytes = self.predict()
        if nbytes > max_bytes:
            self.stopped = (f"before {length:,} tokens: up to {nbytes / GIB:.1f} GiB, more than the "
                            f"{max_bytes / GIB:.1f} it is given")
        elif seconds > sizes.pass_s:
            self.stopped = f"before {length:,} tokens: about {seconds:.0f} s a pass, more than {sizes.pass_s:g}"

    def left_s(self, sizes: Sizes) -> float:
        """Estimate the seconds until this family is done."""
        left, (seconds, _) = 0.0, self.predict()
        for _ in sizes.lengths[len(self.points):]:
            if self.stopped or seconds > sizes.pass_s:
                break
            left += seconds * (1 + sizes.repeats)
            seconds *= self.growth_factor
        return left


def measure(families: Mapping[str, Config], sizes: Sizes, console: Console) -> dict[str, Any]:
    """Measure families side by side: at each length, those that have not stopped are timed in turn."""
    cfg = next(iter(families.values()))
    device = choose_device(cfg.trainer)
    precision, max_bytes = choose_precision(cfg.trainer, device), sizes.memory_share * free_bytes(device)
    sweeps = []
    for name, family in families.items():
        console.live(f"counting operators of {name} ...")
        task = family_task(family, sizes.d_model, precision)
        sweeps.append(LengthSweep(name, task, depth_law(task.model)))
        task.to(device)
    for length in sizes.lengths:
        for sweep in sweeps:
            if sweep.stopped is None:
                sweep.check_limits(length, sizes, max_bytes)
        running = [sweep for sweep in sweeps if sweep.stopped is None]
        for sweep, record in measure_length(running, length, sizes, console):
            sweep.points.append(record)
    measured = {sweep.name: {"params": sum(p.numel() for p in sweep.task.model.parameters()), "points": sweep.points,
                             "stopped": sweep.stopped, "depth": sweep.depth,
                             "time": fit_growth(sweep.points, "seconds"),
                             "memory": fit_growth(sweep.points, "peak_bytes")} for sweep in sweeps}
    crossing = crossover(measured, "transformer", "lstm")
    return {"vocab_size": VOCAB, "memory_limit_gib": max_bytes / GIB, "families": measured, "crossover": crossing,
            "claims": [asdict(claim) for claim in claims(measured)]}


def measure_length(sweeps: Sequence[LengthSweep], length: int, sizes: Sizes, console: Console) -> Iterator[
        tuple[LengthSweep, dict[str, Any]]]:
    """Measure families at one length, and yield the result of each."""
    batch = sentence_batch(length)
    points = [TimedBatch(sweep.name, sweep.task, batch, length, sizes.d_model) for sweep in sweeps]
    memory = [PeakBytes() for _ in points]
    for repeat, (sweep, point, counter) in product(range(1 + sizes.repeats), zip(sweeps, points, memory, strict=True)):
        eta = duration(sum(other.left_s(sizes) for other in sweeps)) if sweep.points else "-"
        console.live(f"{sweep.name}, {length:,} tokens, {repeat}/{sizes.repeats}  eta {eta}")
        if repeat:
            point.time_once()
        else:
            with counter:
                point.time_once()
    for sweep, point, counter in zip(sweeps, points, memory, strict=True):
        measured = point.seconds[1:]
        yield sweep, {"length": length, "seconds": median(measured), "fastest_s": min(measured),
                      "slowest_s": max(measured), "peak_bytes": counter.peak,
                      "depth": sweep.depth["constant"] + sweep.depth["a_token"] * length}


def family_task(cfg: Config, d_model: int, precision: str) -> TranslationTask:
    """Build a family's model of this width over a vocabulary of `VOCAB`, in training mode."""
    torch.manual_seed(cfg.seed)
    model = build_model(with_width(cfg.model, d_model), src_vocab_size=VOCAB, tgt_vocab_size=VOCAB)
    return TranslationTask(model, cfg.optim, state=RunState(), precision=precision, seed=cfg.seed).train()


def sentence_batch(length: int) -> Batch:
    """Draw one pair of sentences of this length, EOS included."""
    ids = np.random.default_rng(0).integers(N_SPECIALS, VOCAB, (2, 1, length - 1)).tolist()
    return collate(*ids, pad_id=PAD_ID, bos_id=BOS_ID, eos_id=EOS_ID)


# --- memory


class PeakBytes(TorchDispatchMode):
    """Record the most bytes that tensors made inside the block take at once. Memory inside kernels is not seen."""

    def __init__(self) -> None:
        """Start without any tensor."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: dict[StorageWeakRef, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = storages((args, kwargs))
        self.live |= {ref: nbytes for ref, nbytes in storages(result).items() if ref not in given}
        self.live = {ref: nbytes for ref, nbytes in self.live.items() if not ref.expired()}
        self.peak = max(self.peak, sum(self.live.values()))
        return result


def storages(tree: Any) -> dict[StorageWeakRef, int]:
    """Return the storages behind tensors, which views share, and their bytes."""
    every = (leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
    return {StorageWeakRef(storage): storage.nbytes() for storage in every}


def free_bytes(device: torch.device) -> float:
    """Return the free memory of the GPU, or of the machine."""
    return float(torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_bytes())


# --- serial depth


def depth_law(model: Seq2Seq) -> dict[str, Any]:
    """Fit the serial depth, constant + a_token * length, to some short lengths. `exact`: it holds at all of them"""
    counted = {length: serial_depth(model, length) for length in COUNTED}
    (first, low), *_, (last, high) = counted.items()
    a_token = (high - low) / (last - first)
    constant = low - a_token * first
    return {"constant": constant, "a_token": a_token, "counted": counted,
            "exact": all(constant + a_token * length == depth for length, depth in counted.items())}


def serial_depth(model: Seq2Seq, length: int) -> int:
    """Count the operators of the longest chain in which each waits for the one before, forward and backward.

    Without oneDNN, torch runs a recurrence as a few operators a step, which autograd's graph shows.
    """
    batch = sentence_batch(length)
    with unfused():
        loss_sum, _ = linear_cross_entropy(model(batch.src, batch.tgt), model.output.weight, batch.labels)
    return 2 * longest_chain(loss_sum)


@contextmanager
def unfused() -> Iterator[None]:
    """Switch off oneDNN's kernels inside the block."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TF32 acceleration")  # on Intel's GPUs; setting any of the flags warns of it
        with torch.backends.mkldnn.flags(enabled=False):
            yield


def longest_chain(result: Tensor) -> int:
    """Count the operators on the longest path through autograd's graph from a result to a leaf."""
    depth: dict[Any, int] = {}
    stack: list[Any] = [result.grad_fn]
    while stack:
        node = stack[-1]
        inputs = [parent for parent, _ in node.next_functions if parent is not None]
        if missing := [parent for parent in inputs if parent not in depth]:
            stack += missing
        else:
            depth[stack.pop()] = max((1 + depth[parent] for parent in inputs), default=0)
    return depth[result.grad_fn]


# --- what follows


def fit_growth(points: Sequence[Point], of: str) -> dict[str, Any] | None:
    """Fit a power of the length to one quantity, over the upper half of the points; None = too few for an error."""
    upper = points[len(points) // 2:]
    if len(upper) < 3:
        return None
    fit = fit_line([log(point["length"]) for point in upper], [log(point[of]) for point in upper])
    return {"exponent": fit.slope, "standard_error": fit.standard_error, "interval": fit.interval,
            "from": upper[0]["length"], "to": upper[-1]["length"]}


def crossover(found: Mapping[str, Any], one: str, other: str) -> float | None:
    """Return the length from which on `one` takes longer than `other`, interpolated between logarithms.

    None = it never does at the lengths measured, or always.
    """
    both = common_points(found[one]["points"], found[other]["points"])
    lengths, log_ratios = list(both), [log(a["seconds"] / b["seconds"]) for a, b in both.values()]
    if not lengths or log_ratios[-1] < 0:
        return None
    for i in range(len(lengths) - 1, 0, -1):
        if log_ratios[i - 1] < 0 <= log_ratios[i]:
            share = -log_ratios[i - 1] / (log_ratios[i] - log_ratios[i - 1])
            return exp(log(lengths[i - 1]) + share * log(lengths[i] / lengths[i - 1]))
    return None


def claims(found: Mapping[str, Any]) -> Iterator[Claim]:
    """Decide what is commonly said about the cost of recurrence and attention. found: of each family"""
    lstm, transformer = found["lstm"], found["transformer"]
    yield grows("the time of the LSTM grows linearly with length", lstm["time"], (0.85, 1.15))
    yield grows("the time of the Transformer grows with the square of length", transformer["time"], (1.7, 2.3))
    yield grows("the memory of the LSTM grows linearly with length", lstm["memory"], (0.9, 1.1))
    yield grows("the memory of the Transformer grows with the square of length", transformer["memory"], (1.7, 2.3))
    yield waits("each token of the LSTM waits for the one before", lstm["depth"], (1, inf))
    yield waits("the serial depth of the Transformer does not grow with length", transformer["depth"], (0, 0))
    both = common_points(transformer["points"], lstm["points"])
    claim, bounds = f"at {COMPARED} tokens the Transformer is 5 to 10 times as fast as the LSTM, or more", (5, inf)
    yield (speedup(claim, both[COMPARED], bounds) if COMPARED in both else
           undecided(claim, bounds, "that length was not measured"))
    longest = max(both)
    yield speedup(f"at {longest:,} tokens, the longest sentence that both were given, the LSTM is the faster one",
                  both[longest][::-1], (1, inf))


def grows(claim: str, fit: Mapping[str, Any] | None, bounds: Interval) -> Claim:
    """Decide an exponent, as `fit_growth` returns it."""
    if fit is None:
        return undecided(claim, bounds, "fewer than five lengths were measured")
    return judge(claim, fit["exponent"], fit["interval"], bounds)


def waits(claim: str, depth: Mapping[str, Any], bounds: Interval) -> Claim:
    """Decide how many operators a token adds to the longest chain."""
    if not depth["exact"]:
        return undecided(claim, bounds, f"no constant number of operators a token: {depth['counted']}")
    return judge(claim, depth["a_token"], (depth["a_token"], depth["a_token"]), bounds)


def common_points(ones: Sequence[Point], others: Sequence[Point]) -> dict[int, tuple[Point, Point]]:
    """Pair the points of two families by the lengths that both have."""
    by_length = {other["length"]: other for other in others}
    return {one["length"]: (one, by_length[one["length"]]) for one in ones if one["length"] in by_length}


def speedup(claim: str, both: tuple[Point, Point], bounds: Interval) -> Claim:
    """Decide how many times as fast the first is as the second, from their extremes."""
    one, other = both
    return judge(claim, other["seconds"] / one["seconds"],
                 (other["fastest_s"] / one["slowest_s"], other["slowest_s"] / one["fastest_s"]), bounds)


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield each point, the fits, and where the curves cross. found: as `measure` returns it"""
    rows, fits = [["", "tokens", "ms", "from", "to", "MiB", "operators in turn"]], list[tuple[str, str]]()
    for name, family in found["families"].items():
        for point in family["points"]:
            times_ms = (f"{1e3 * point[key]:,.1f}" for key in ("seconds", "fastest_s", "slowest_s"))
            rows.append([name, f"{point['length']:,}", *times_ms, f"{point['peak_bytes'] / MIB:,.1f}",
                         f"{point['depth']:,.0f}"])
        for what in ("time", "memory"):
            if (fit := family[what]) is not None:
                fits.append((name, f"{what} grows as length^{fit['exponent']:.2f} +- {fit['standard_error']:.2f} from "
                                   f"{fit['from']:,} to {fit['to']:,}"))
        fits.append((name, f"stopped {family['stopped'] or 'at the longest length'}"))
    yield from aligned(rows)
    yield from aligned(fits, "<")
    crossing = found["crossover"]
    where = "nowhere" if crossing is None else f"at {crossing:,.0f} tokens"
    yield f"the Transformer's time passes the LSTM's {where}"
