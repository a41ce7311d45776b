"""How the cost of one sentence grows with its length: seconds, bytes, and operators that wait for one another."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from math import exp, inf, log, log2
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from minitx.config.schema import Config
from minitx.experiments.fits import Claim, Interval, judge, undecided
from minitx.experiments.studies.growth import (
    GIB,
    VOCAB,
    Sizes,
    System,
    climb,
    common_points,
    family_task,
    grows,
    growth_text,
    sentence_batch,
    speedup,
    step_cells,
)
from minitx.models import linear_rnn
from minitx.models.base import Seq2Seq
from minitx.models.scan import in_rounds
from minitx.profiling.memory import free_bytes
from minitx.training.build import choose_device, choose_precision
from minitx.training.loss import linear_cross_entropy
from minitx.utils.console import Console
from minitx.utils.tables import aligned

COUNTED = (8, 16, 32, 64, 128)  # lengths at which operators are counted
COMPARED = 512  # length at which speeds are compared
SIZES = {"smoke": Sizes(pass_s=4.0), "full": Sizes(d_model=256, pass_s=60.0, repeats=5)}


def measure(families: Mapping[str, Config], sizes: Sizes, console: Console) -> dict[str, Any]:
    """Measure families side by side, and count each one's operators."""
    cfg = next(iter(families.values()))
    device = choose_device(cfg.trainer)
    precision, max_bytes = choose_precision(cfg.trainer, device), sizes.memory_share * free_bytes(device)
    systems, depths = list[System](), dict[str, dict[str, Any]]()
    for name, family in families.items():
        console.live(f"counting operators of {name} ...")
        task = family_task(family, sizes.d_model, precision)
        depths[name] = depth_law(task.model)
        systems.append(System(name, task.to(device)))
    measured = {sweep.system.name: with_depth(sweep.found(), depths[sweep.system.name])
                for sweep in climb(systems, sizes, max_bytes, console)}
    return {"vocab_size": VOCAB, "memory_limit_gib": max_bytes / GIB, "families": measured,
            "crossover": crossover(measured, "transformer", "lstm"),
            "claims": [asdict(claim) for claim in claims(measured)]}


def with_depth(found: Mapping[str, Any], law: dict[str, Any]) -> dict[str, Any]:
    """Add the serial depth at each length to what `LengthSweep.found` returns. law: as `depth_law` returns it"""
    points = [{**point, "depth": depth_at(law, point["length"])} for point in found["points"]]
    return {**found, "points": points, "depth": law}


# --- serial depth


def depth_law(model: Seq2Seq) -> dict[str, Any]:
    """Fit the serial depth, constant + a_token L + a_doubling log2(L), to some short lengths L, each twice the last.

    `exact`: it holds at all of them.
    """
    counted = {length: serial_depth(model, length) for length in COUNTED}
    first = COUNTED[0]
    once, twice = (counted[2 * length] - counted[length] for length in (first, 2 * first))
    a_token = (twice - once) / first
    a_doubling = once - a_token * first
    constant = counted[first] - a_token * first - a_doubling * log2(first)
    law = {"constant": constant, "a_token": a_token, "a_doubling": a_doubling}
    return law | {"counted": counted, "exact": all(depth_at(law, length) == depth
                                                   for length, depth in counted.items())}


def depth_at(law: Mapping[str, float], length: int) -> float:
    """Return the serial depth at a length that is a power of two."""
    return law["constant"] + law["a_token"] * length + law["a_doubling"] * log2(length)


def serial_depth(model: Seq2Seq, length: int) -> int:
    """Count the operators of the longest chain in which each waits for the one before, forward and backward."""
    batch = sentence_batch(length)
    with unfused():
        loss_sum, _ = linear_cross_entropy(model(batch.src, batch.tgt), model.output.weight, batch.labels)
    return 2 * longest_chain(loss_sum)


@contextmanager
def unfused() -> Iterator[None]:
    """Let autograd's graph show what a recurrence is made of inside the block.

    An LSTM is run without oneDNN, as a few operators a step; a scan in rounds, as on a GPU, not as one loop.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TF32 acceleration")  # on Intel's GPUs; setting any of the flags warns of it
        with torch.backends.mkldnn.flags(enabled=False), patch.object(linear_rnn, "scan", in_rounds):
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
    lstm, transformer, linear = found["lstm"], found["transformer"], found["linear_rnn"]
    yield grows("the time of the LSTM grows linearly with length", lstm["time"], (0.85, 1.15))
    yield grows("the time of the Transformer grows with the square of length", transformer["time"], (1.7, 2.3))
    yield grows("the time of a linear RNN grows linearly with length", linear["time"], (0.85, 1.15)).predicting("0.95")
    yield grows("the memory of the LSTM grows linearly with length", lstm["memory"], (0.9, 1.1))
    yield grows("the memory of the Transformer grows with the square of length", transformer["memory"],
                (1.7, 2.3)).predicting("does not hold: 1.0, since long sentences are attended to in blocks")
    yield waits("each token of the LSTM waits for the one before", lstm["depth"], (1, inf))
    yield waits("the serial depth of the Transformer does not grow with length", transformer["depth"], (0, 0))
    yield waits("nor does that of a linear RNN grow with each token", linear["depth"], (0, 0)).predicting(
        "0, and some 20 more with each doubling: rounds of four scans, forwards and backwards")
    yield at_compared("the Transformer is 5 to 10 times as fast as the LSTM, or more", transformer, lstm, (5, inf))
    yield at_compared("a linear RNN with attention is 1.5 times as fast as an LSTM with attention, or more",
                      found["linear_rnn_attention"], found["lstm_attention"], (1.5, inf)).predicting("1.5 to 2.5")
    both = common_points(transformer["points"], lstm["points"])
    longest = max(both)
    yield speedup(f"at {longest:,} tokens, the longest sentence that both were given, the LSTM is the faster one",
                  both[longest][::-1], (1, inf))


def at_compared(claim: str, one: Mapping[str, Any], other: Mapping[str, Any], bounds: Interval) -> Claim:
    """Decide how many times as fast one family is as another, at the length at which speeds are compared."""
    both, claim = common_points(one["points"], other["points"]), f"at {COMPARED} tokens {claim}"
    return speedup(claim, both[COMPARED], bounds) if COMPARED in both else (
        undecided(claim, bounds, "that length was not measured"))


def waits(claim: str, depth: Mapping[str, Any], bounds: Interval) -> Claim:
    """Decide how many operators a token adds to the longest chain."""
    if not depth["exact"]:
        return undecided(claim, bounds, f"no constant number of operators a token: {depth['counted']}")
    return judge(claim, depth["a_token"], (depth["a_token"], depth["a_token"]), bounds)


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield each point, the fits, and where the curves cross. found: as `measure` returns it"""
    rows, fits = [["", "tokens", "ms", "from", "to", "MiB", "operators in turn"]], list[tuple[str, str]]()
    for name, family in found["families"].items():
        rows += [[name, f"{point['length']:,}", *step_cells(point), f"{point['depth']:,.0f}"]
                 for point in family["points"]]
        fits += [(name, growth_text(family[what], what)) for what in ("time", "memory") if family[what] is not None]
        fits.append((name, f"stopped {family['stopped'] or 'at the longest length'}"))
    yield from aligned(rows)
    yield from aligned(fits, "<")
    crossing = found["crossover"]
    where = "nowhere" if crossing is None else f"at {crossing:,.0f} tokens"
    yield f"the Transformer's time passes the LSTM's {where}"
