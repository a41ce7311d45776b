"""What a training step holds in memory: by length, by layers, and at the shape of an arithmetic that lectures give.

Beside each other stand ways to compute the same step (attention's weights stored, or made again block by block, which
is flash attention; a layer's activations made again), one that computes less (a window), and recurrences. Bytes are
those of tensors: counted while the step runs, or, where no machine here could run it, on tensors that have a shape and
no data.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from math import inf
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from minitx.config.schema import Config
from minitx.data.batch import Batch, Packed
from minitx.experiments.costs.complexity import TimedBatch
from minitx.experiments.fits import Claim, Interval, fit_line, judge, undecided
from minitx.experiments.studies import growth
from minitx.experiments.studies.growth import (
    GIB,
    MIB,
    VOCAB,
    PeakBytes,
    System,
    climb,
    common_points,
    count_bytes,
    family_task,
    grows,
    growth_text,
    measure_step,
    sentence_batch,
    speedup,
    step_cells,
)
from minitx.models import cpu_attention
from minitx.profiling.memory import free_bytes
from minitx.training.build import choose_device, choose_precision
from minitx.utils.console import Console
from minitx.utils.progress import Progress
from minitx.utils.tables import aligned

GB = 1e9  # as the arithmetic has it
WINDOW = 128  # tokens before and after its own that one attends to


@dataclass(frozen=True)
class Way:
    """How a family's step is computed. model: keys of its config that differ"""

    family: str
    model: Mapping[str, Any] = field(default_factory=dict)
    stored: bool = False  # all of attention's weights, as before there were blocks
    recomputed: bool = False  # a layer's activations, from what it was given

    def config(self, families: Mapping[str, Config]) -> Config:
        """Return the config. Errors: KeyError for a family that is not there, TypeError for a key that it has not"""
        cfg = families[self.family]
        trainer = replace(cfg.trainer, activation_checkpointing=True) if self.recomputed else cfg.trainer
        return replace(cfg, model=replace(cfg.model, **self.model), trainer=trainer)

    @property
    def holds(self) -> Callable[[], AbstractContextManager[Any]]:
        """What is true while it is measured."""
        return partial(patch.object, cpu_attention, "LONG", inf) if self.stored else nullcontext


WAYS = {  # by name, as figures and tables have it
    "transformer, stored": Way("transformer", stored=True),
    "transformer": Way("transformer"),
    "transformer, window": Way("transformer", {"window": WINDOW}),
    "transformer, recomputed": Way("transformer", recomputed=True),
    "transformer, stored, recomputed": Way("transformer", stored=True, recomputed=True),
    "lstm": Way("lstm"), "linear_rnn": Way("linear_rnn"),
}
OF_TRANSFORMERS = [name for name, way in WAYS.items() if way.family == "transformer"]


@dataclass(frozen=True)
class Shape:
    """A batch of sentences of one length, and a Transformer of the size `big` that reads it."""

    sentences: int = 32
    length: int = 2_048
    layers: int = 4

    def scores_gb(self, heads: int) -> float:
        """Return what a layer's attention takes in fp32: sentences x heads x length^2 x 4 bytes."""
        return 4 * self.sentences * heads * self.length**2 / GB


@dataclass(frozen=True)
class Sizes(growth.Sizes):
    """How far lengths and layers go, and which shape is counted that does not run here."""

    d_model: int = 64
    shortest: int = 64
    longest: int = 2_048
    pass_s: float = 0.5
    repeats: int = 1
    layers: tuple[int, ...] = (1, 2, 4)
    layers_length: int = 256
    counted: tuple[int, ...] = (64, 128, 256, 512, 1_024)  # lengths whose bytes are counted without running a step
    shape: Shape = Shape(sentences=2, length=512)


SIZES = {"smoke": Sizes(),
         "full": Sizes(d_model=128, longest=65_536, pass_s=2.0, repeats=3, layers=(1, 2, 4, 8), layers_length=1_024,
                       counted=(2_048, 4_096, 8_192, 16_384, 32_768), shape=Shape())}


def measure(families: Mapping[str, Config], sizes: Sizes, console: Console) -> dict[str, Any]:
    """Measure all ways side by side, by length and by layers, and count at the shape."""
    device = choose_device(families["transformer"].trainer)
    max_bytes = sizes.memory_share * free_bytes(device)
    by_length = {sweep.system.name: sweep.found()
                 for sweep in climb([build_system(name, families, sizes, device) for name in WAYS], sizes, max_bytes,
                                    console)}
    by_layers = climb_layers(families, sizes, device, console)
    counted = count_lengths(families, sizes, console)
    at_shape = {}
    for number, name in enumerate(OF_TRANSFORMERS, start=1):
        console.live(f"counting {name} at {sizes.shape.sentences} sentences of {sizes.shape.length:,} tokens, "
                     f"{number}/{len(OF_TRANSFORMERS)} ...")
        at_shape[name] = held_at(WAYS[name], families, sizes.shape)
    shape = asdict(sizes.shape) | {"heads": big(families["transformer"], sizes.shape).model.sizes["big"]["n_heads"]}
    found = {"by_length": by_length, "by_layers": by_layers, "counted": counted, "shape": shape, "at_shape": at_shape,
             "scores_gb": sizes.shape.scores_gb(shape["heads"])}
    return {"vocab_size": VOCAB, "memory_limit_gib": max_bytes / GIB, "window": WINDOW,
            "num_layers": num_layers(families["transformer"]), **found,
            "claims": [asdict(claim) for claim in claims(found, sizes)]}


def num_layers(cfg: Config) -> int:
    """Return the layers on either side of a resolved config."""
    layers: int = cfg.model.num_layers  # type: ignore[attr-defined]
    return layers


def build_system(name: str, families: Mapping[str, Config], sizes: Sizes, device: torch.device,
                 layers: int | None = None) -> System:
    """Build what is measured under a name of `WAYS`. layers: on either side; None = the config's"""
    cfg = WAYS[name].config(families)
    if layers is not None:
        cfg = replace(cfg, model=replace(cfg.model, num_layers=layers))  # type: ignore[call-arg]
    task = family_task(cfg, sizes.d_model, choose_precision(cfg.trainer, device))
    return System(name, task.to(device), WAYS[name].holds)


# --- by layers


def climb_layers(families: Mapping[str, Config], sizes: Sizes, device: torch.device, console: Console) -> dict[
        str, dict[str, Any]]:
    """Measure a step at one length for each number of layers. --> by way: points, and the bytes that a layer adds"""
    points: dict[str, list[dict[str, Any]]] = {name: [] for name in WAYS}
    for layers in sizes.layers:
        systems = [build_system(name, families, sizes, device, layers) for name in WAYS]

        def say(name: str, repeat: int, layers: int = layers) -> None:
            console.live(f"{name}, {layers} layers of {max(sizes.layers)}, {repeat}/{sizes.repeats}")

        for name, record in zip(WAYS, measure_step(systems, sizes.layers_length, sizes, say), strict=True):
            points[name].append({"layers": layers} | record)
    return {name: {"points": of_way, "a_layer": per_layer(of_way, "peak_bytes"),
                   "held_a_layer": per_layer(of_way, "held_bytes")} for name, of_way in points.items()}


def per_layer(points: Sequence[Mapping[str, Any]], of: str) -> float:
    """Return how many bytes a layer adds, by least squares."""
    return fit_line([point["layers"] for point in points], [point[of] for point in points]).slope


# --- without data: at lengths and a shape that do not run here


def count_lengths(families: Mapping[str, Config], sizes: Sizes, console: Console) -> dict[str, Any]:
    """Count the bytes of a step at lengths that would not run here. --> by way: points, and the power that fits them"""
    progress = Progress(console, float(len(OF_TRANSFORMERS) * len(sizes.counted)))
    ways: dict[str, dict[str, Any]] = {}
    for name in OF_TRANSFORMERS:
        points = list[dict[str, Any]]()
        for length in sizes.counted:
            with steps_without_data(WAYS[name], WAYS[name].config(families), sizes.d_model, length, [1]) as (step,):
                held, peak = count_bytes(step)
            points.append({"length": length, "held_bytes": held, "peak_bytes": peak})
            progress(f"counted {name} at {length:,} tokens")
        ways[name] = {"points": points, "memory": growth.fit_growth(points, "peak_bytes")}
    return ways


def big(cfg: Config, shape: Shape) -> Config:
    """Return a Transformer of the size `big`, which has the heads of the arithmetic, with the shape's layers."""
    widths: dict[str, Any] = {**cfg.model.sizes["big"], "num_layers": shape.layers}
    return replace(cfg, model=replace(cfg.model, size="big", **widths))


def held_at(way: Way, families: Mapping[str, Config], shape: Shape) -> int:
    """Count what a forward pass leaves to the backward one: each sentence as much, so two counts give that of all."""
    one, two = held_without_data(way, families, shape, (1, 2))
    return one + (two - one) * (shape.sentences - 1)


def held_without_data(way: Way, families: Mapping[str, Config], shape: Shape, sentences: Sequence[int]) -> list[int]:
    """Count it without running the pass, for several numbers of sentences."""
    cfg = big(way.config(families), shape)
    assert cfg.model.d_model is not None
    with steps_without_data(way, cfg, cfg.model.d_model, shape.length, sentences) as steps:
        with torch.no_grad():
            steps[0].loss()  # what is made once, such as a table of positions, is there before
        return [held_by(step) for step in steps]


@contextmanager
def steps_without_data(way: Way, cfg: Config, d_model: int, length: int, sentences: Sequence[int]) -> Iterator[
        list[TimedBatch]]:
    """Yield steps in fp32 over so many sentences each, to be taken inside: tensors have a shape, and no data."""
    batches = [sentence_batch(length, number) for number in sentences]
    with torch.device("meta"):
        task = family_task(cfg, d_model, "32-true")
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, way.holds():
        drop_data(task)
        yield [TimedBatch("", task, without_data(batch, fake), length, d_model) for batch in batches]


def held_by(point: TimedBatch) -> int:
    """Count what a step's forward pass leaves."""
    with PeakBytes() as counter:
        loss = point.loss()
        held: int = counter.held
    del loss
    return held


def drop_data(module: nn.Module) -> None:
    """Put a weight without data, on the CPU, in the place of each that is on no device; what is shared stays so."""
    made: dict[nn.Parameter, nn.Parameter] = {}
    for part in module.modules():
        for name, weight in list(part.named_parameters(recurse=False)):
            if weight not in made:
                made[weight] = nn.Parameter(torch.empty_like(weight, device="cpu"))
            setattr(part, name, made[weight])


def without_data(batch: Batch, fake: FakeTensorMode) -> Batch:
    """Return a batch of the same shape whose tensors have no data."""
    def side(packed: Packed) -> Packed:
        tensors: dict[str, Any] = {name: fake.from_tensor(getattr(packed, name))
                                   for name in ("ids", "places", "slots", "rows", "mask")}
        return replace(packed, **tensors)

    return Batch(side(batch.src), side(batch.tgt), fake.from_tensor(batch.labels))


# --- what follows


def claims(found: Mapping[str, Any], sizes: Sizes) -> Iterator[Claim]:
    """Decide what is commonly said about memory. found: by length, by layers and at the shape, as `measure` has it"""
    lengths = found["by_length"]
    stored, flash, window = (lengths[name] for name in ("transformer, stored", "transformer", "transformer, window"))
    both = lengths["transformer, stored, recomputed"]
    yield grows("attention's memory grows with the square of length, if its weights are stored", stored["memory"],
                (1.7, 2.3)).predicting("1.9: 4 bytes x heads x L^2 in each of six attentions, beside 35 kB a token")
    yield grows("with flash attention, which makes them again block by block, it grows linearly", flash["memory"],
                (0.9, 1.1)).predicting("1.0: of each attention its inputs and its result are held")
    yield grows("flash attention hides the constants of memory, not its growth with the square", flash["memory"],
                (1.7, 2.3)).predicting("does not hold: 1.0")
    yield grows("with flash attention time still grows with the square of length", flash["time"],
                (1.7, 2.3)).predicting("1.6 to 1.8: at the upper lengths projections are a third of the work or less")
    yield faster("flash attention is 2 to 4 times as fast as stored weights", flash, stored, (2, 4)).predicting(
        "1.0 to 1.5: one product in five is made twice, and the squares stay in the caches")
    yield grows(f"with a window of {WINDOW} memory grows linearly", window["memory"], (0.9, 1.1)).predicting("1.0")
    yield grows(f"with a window of {WINDOW} time grows linearly", window["time"], (0.85, 1.15)).predicting(
        "1.3 to 1.6: attention to the source has no window, and stays whole")
    yield grows("recomputing layers takes the square of length out of stored weights", both["memory"],
                (0.9, 1.1)).predicting("does not hold, 1.8: the layer at hand still has its squares")
    yield from layer_claims(found["by_layers"], sizes)
    for name, what, predicted in (("lstm", "an LSTM's", "0.97"), ("linear_rnn", "a linear RNN's", "1.0")):
        yield grows(f"{what} memory grows linearly with length", lengths[name]["memory"], (0.9, 1.1)).predicting(
            predicted)
    yield from shape_claims(found)


def layer_claims(by_layers: Mapping[str, Any], sizes: Sizes) -> Iterator[Claim]:
    """Decide what recomputing layers saves, and what it costs."""
    recomputed, plain = by_layers["transformer, recomputed"], by_layers["transformer"]
    inputs = 2 * sizes.layers_length * sizes.d_model * 4
    kept, without = (system["held_a_layer"] / inputs for system in (recomputed, plain))
    yield judge("recomputed, a layer on either side leaves its inputs to the backward pass, and no more", kept,
                (kept, kept), (0.9, 1.2)).predicting("1.0")
    yield judge("without that it leaves more than ten times as much", without, (without, without),
                (10, inf)).predicting("30: some 12 widths a token in the encoder, and 18 in the decoder")
    first, second = (system["points"][-1] for system in (plain, recomputed))
    yield speedup("recomputing takes a third longer", (first, second), (1.2, 1.45)).predicting(
        "1.33: a forward pass more beside a backward pass of two")


def faster(claim: str, one: Mapping[str, Any], other: Mapping[str, Any], bounds: Interval) -> Claim:
    """Decide how many times as fast one is as the other, at the longest sentence that both were given."""
    both = common_points(one["points"], other["points"])
    if not both:
        return undecided(claim, bounds, "no length was given to both")
    longest = max(both)
    return speedup(f"{claim}, at {longest:,} tokens", both[longest], bounds)


def shape_claims(found: Mapping[str, Any]) -> Iterator[Claim]:
    """Hold the arithmetic against what is counted: what stored weights leave to the backward pass beside blocks."""
    shape, scores, at_shape = found["shape"], found["scores_gb"], found["at_shape"]
    where = f"{shape['sentences']} sentences, {shape['heads']} heads, {shape['length']:,} tokens"
    more = (at_shape["transformer, stored"] - at_shape["transformer"]) / GB
    one = more / (3 * shape["layers"])
    yield judge(f"the weights of one attention take {scores:.2g} GB ({where})", one, (one, one),
                about(scores)).predicting(f"{scores:.2f}")
    every = scores * shape["layers"]
    yield judge(f"and {every:.3g} GB with {shape['layers']} layers", more, (more, more), about(every)).predicting(
        f"does not hold, {3 * every:.3g}: a translator's layers have three attentions, two of them in the decoder")


def about(value: float) -> Interval:
    """Return what is within a twentieth of a number."""
    return round(0.95 * value, 3), round(1.05 * value, 3)


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield points by length and by layers, the fits, and what is counted at the shape. found: as `measure` has it"""
    rows, fits = [["", "tokens", "ms", "from", "to", "MiB"]], list[tuple[str, str]]()
    for name, system in found["by_length"].items():
        rows += [[name, f"{point['length']:,}", *step_cells(point)] for point in system["points"]]
        fits += [(name, growth_text(system[what], what)) for what in ("time", "memory") if system[what] is not None]
        fits.append((name, f"stopped {system['stopped'] or 'at the longest length'}"))
    yield from aligned(rows)
    yield from aligned(fits, "<")
    rows = [["", "layers", "ms", "from", "to", "MiB", "MiB held"]]
    for name, system in found["by_layers"].items():
        rows += [[name, str(point["layers"]), *step_cells(point), f"{point['held_bytes'] / MIB:,.1f}"]
                 for point in system["points"]]
    yield from aligned(rows)
    counted = found["counted"]
    yield "one sentence, counted without data:"
    yield from aligned([("tokens", *counted), *(
        (f"{points[0]['length']:,}", *(f"{point['peak_bytes'] / MIB:,.1f} MiB" for point in points))
        for points in zip(*(way["points"] for way in counted.values()), strict=True))])
    yield from aligned([(name, growth_text(way["memory"], "memory")) for name, way in counted.items()
                        if way["memory"] is not None], "<")
    shape = found["shape"]
    yield (f"{shape['sentences']} sentences of {shape['length']:,} tokens, {shape['layers']} layers of "
           f"{shape['heads']} heads, counted:")
    yield from aligned([(name, f"{held / GB:,.1f} GB are left to the backward pass")
                        for name, held in found["at_shape"].items()])
