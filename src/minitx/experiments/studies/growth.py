"""How time and bytes of a training step grow: systems side by side, of sentences that become longer and longer.

A step is forward, loss and backward over one sentence of L tokens on both sides, without optimizer. The length doubles
until the next one would take more time or memory than allowed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from math import log
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
from minitx.experiments.fits import Claim, Interval, fit_line, judge, power_text, undecided
from minitx.models.registry import build_model
from minitx.training.recomputation import recompute
from minitx.training.state import RunState
from minitx.training.task import TranslationTask
from minitx.utils.console import Console, duration

VOCAB = 1_000
GIB, MIB = 2**30, 2**20
Point = Mapping[str, Any]  # what was measured at one length


@dataclass(frozen=True)
class Sizes:
    """How far lengths go, and how much time and memory a system may take."""

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


@dataclass(frozen=True, eq=False)
class System:
    """A model in training, and what is true while it is measured."""

    name: str
    task: TranslationTask
    way: Callable[[], AbstractContextManager[Any]] = nullcontext


@dataclass(eq=False)
class LengthSweep:
    """One system's measurements, and what the next length is expected to take."""

    system: System
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
        """Estimate the seconds until this system is done."""
        left, (seconds, _) = 0.0, self.predict()
        for _ in sizes.lengths[len(self.points):]:
            if self.stopped or seconds > sizes.pass_s:
                break
            left += seconds * (1 + sizes.repeats)
            seconds *= self.growth_factor
        return left

    def found(self) -> dict[str, Any]:
        """Return what is stored: points, what ended them, and the powers of length that fit their upper half."""
        return {"params": sum(p.numel() for p in self.system.task.model.parameters()), "points": self.points,
                "stopped": self.stopped, "time": fit_growth(self.points, "seconds"),
                "memory": fit_growth(self.points, "peak_bytes")}


def climb(systems: Sequence[System], sizes: Sizes, max_bytes: float, console: Console) -> list[LengthSweep]:
    """Measure systems side by side: at each length, those that have not stopped are timed in turn."""
    sweeps = [LengthSweep(system) for system in systems]
    for length in sizes.lengths:
        for sweep in sweeps:
            if sweep.stopped is None:
                sweep.check_limits(length, sizes, max_bytes)
        running = [sweep for sweep in sweeps if sweep.stopped is None]

        def say(name: str, repeat: int, running: Sequence[LengthSweep] = running, length: int = length) -> None:
            eta = duration(sum(sweep.left_s(sizes) for sweep in running)) if running[0].points else "-"
            console.live(f"{name}, {length:,} tokens, {repeat}/{sizes.repeats}  eta {eta}")

        found = measure_step([sweep.system for sweep in running], length, sizes, say)
        for sweep, record in zip(running, found, strict=True):
            sweep.points.append({"length": length} | record)
    return sweeps


def measure_step(systems: Sequence[System], length: int, sizes: Sizes, say: Callable[[str, int], None]) -> list[
        dict[str, Any]]:
    """Count the bytes of a step of each system at one length, then time all in turn. say: is told of each pass"""
    batch = sentence_batch(length)
    points = [TimedBatch(system.name, system.task, batch, length, sizes.d_model) for system in systems]
    counted = []
    for system, point in zip(systems, points, strict=True):
        say(system.name, 0)
        with system.way():
            counted.append(count_bytes(point))
    for repeat in range(1, 1 + sizes.repeats):
        for system, point in zip(systems, points, strict=True):
            say(system.name, repeat)
            with system.way():
                point.time_once()
    return [{"seconds": median(point.seconds), "fastest_s": min(point.seconds), "slowest_s": max(point.seconds),
             "held_bytes": held, "peak_bytes": peak} for point, (held, peak) in zip(points, counted, strict=True)]


def family_task(cfg: Config, d_model: int, precision: str) -> TranslationTask:
    """Build a family's model of this width over a vocabulary of `VOCAB`, in training mode."""
    torch.manual_seed(cfg.seed)
    model = build_model(with_width(cfg.model, d_model), src_vocab_size=VOCAB, tgt_vocab_size=VOCAB)
    if cfg.trainer.activation_checkpointing:
        recompute(model, cfg.model.family)
    return TranslationTask(model, cfg.optim, state=RunState(), precision=precision, seed=cfg.seed).train()


def sentence_batch(length: int, sentences: int = 1) -> Batch:
    """Draw pairs of sentences of this length, EOS included."""
    ids = np.random.default_rng(0).integers(N_SPECIALS, VOCAB, (2, sentences, length - 1)).tolist()
    return collate(*ids, pad_id=PAD_ID, bos_id=BOS_ID, eos_id=EOS_ID)


# --- bytes


class PeakBytes(TorchDispatchMode):
    """Record the most bytes that tensors made inside the block take at once. Memory inside kernels is not seen."""

    def __init__(self) -> None:
        """Start without any tensor."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: dict[StorageWeakRef, int] = {}
        self.peak = self.most = 0  # most: that are held at most, some may be gone

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = storages((args, kwargs))
        if made := {ref: nbytes for ref, nbytes in storages(result).items() if ref not in given}:
            self.live |= made
            self.most += sum(made.values())
            if self.most > self.peak:
                self.most = self.held
                self.peak = max(self.peak, self.most)
        return result

    @property
    def held(self) -> int:
        """The bytes of those that still exist."""
        self.live = {ref: nbytes for ref, nbytes in self.live.items() if not ref.expired()}
        return sum(self.live.values())


def storages(tree: Any) -> dict[StorageWeakRef, int]:
    """Return the storages behind tensors, which views share, and their bytes.

    What is on no device takes none; what has a layout of oneDNN's own has no storage, and is left out.
    """
    every = (leaf.untyped_storage() for leaf in tree_leaves(tree)
             if isinstance(leaf, Tensor) and not leaf.is_meta and not leaf.is_mkldnn)
    return {StorageWeakRef(storage): storage.nbytes() for storage in every}


def count_bytes(point: TimedBatch) -> tuple[int, int]:
    """Run a step. --> the bytes that the forward pass leaves to the backward one, and the most at any time

    What is made once and kept for later steps, such as a table of positions, is there before.
    """
    with torch.no_grad():
        point.loss()
    with PeakBytes() as counter:
        loss = point.loss()
        held = counter.held
        loss.backward()
    point.task.zero_grad()
    return held, counter.peak


# --- what follows


def fit_growth(points: Sequence[Point], of: str) -> dict[str, Any] | None:
    """Fit a power of the length to one quantity, over the upper half of the points; None = too few for an error."""
    upper = points[len(points) // 2:]
    if len(upper) < 3:
        return None
    fit = fit_line([log(point["length"]) for point in upper], [log(point[of]) for point in upper])
    return {"exponent": fit.slope, "standard_error": fit.standard_error, "interval": fit.interval,
            "from": upper[0]["length"], "to": upper[-1]["length"]}


def grows(claim: str, fit: Mapping[str, Any] | None, bounds: Interval) -> Claim:
    """Decide an exponent, as `fit_growth` returns it."""
    if fit is None:
        return undecided(claim, bounds, "fewer than five lengths were measured")
    return judge(claim, fit["exponent"], fit["interval"], bounds)


def common_points(ones: Sequence[Point], others: Sequence[Point]) -> dict[int, tuple[Point, Point]]:
    """Pair the points of two systems by the lengths that both have."""
    by_length = {other["length"]: other for other in others}
    return {one["length"]: (one, by_length[one["length"]]) for one in ones if one["length"] in by_length}


def speedup(claim: str, both: tuple[Point, Point], bounds: Interval) -> Claim:
    """Decide how many times as fast the first is as the second, from their extremes."""
    one, other = both
    return judge(claim, other["seconds"] / one["seconds"],
                 (other["fastest_s"] / one["slowest_s"], other["slowest_s"] / one["fastest_s"]), bounds)


def growth_text(fit: Mapping[str, Any], what: str, base: str = "L") -> str:
    """Say in words what a fit found."""
    return f"{what} grows as {power_text(fit, base, where=True)}"


def step_cells(point: Point) -> Iterator[str]:
    """Yield the cells of a step: median, fastest and slowest in ms, and MiB at most."""
    yield from (f"{1e3 * point[key]:,.1f}" for key in ("seconds", "fastest_s", "slowest_s"))
    yield f"{point['peak_bytes'] / MIB:,.1f}"
