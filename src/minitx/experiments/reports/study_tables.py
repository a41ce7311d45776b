"""Tables of what `minitx study` stores, beside its claims: a line for each system."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from minitx.experiments.reports.study_plots import STAGES, depth_text
from minitx.utils.tables import Row, markdown

Found = Mapping[str, Any]
MIB, KIB, GB = 2**20, 2**10, 1e9
MISSING = "–"


def lengths(found: Found) -> Iterator[Row]:
    """Yield how each family grows with length, and the longest sentence that it was given."""
    yield ("", "time grows as", "memory grows as", "operators that wait for one another", "longest sentence",
           "time of it")
    for name, family in found["families"].items():
        last = family["points"][-1]
        yield (name, power(family["time"]), power(family["memory"]), depth_text(family["depth"]),
               f"{last['length']:,}", f"{last['seconds']:.1f} s")


def memory(found: Found) -> Iterator[Row]:
    """Yield how each way grows, what a layer adds, and what is held at the shape of the arithmetic."""
    shape, sizes = found["shape"], found["sizes"]
    yield ("", "memory grows as", "time grows as", "longest sentence", "of it at most",
           f"a layer adds at {sizes['layers_length']:,} tokens", "and leaves to the backward pass",
           f"and {shape['sentences']} sentences of {shape['length']:,} in {shape['layers']} layers of {shape['heads']} "
           "heads")
    for name, system in found["by_length"].items():
        last, layers = system["points"][-1], found["by_layers"][name]
        held = found["at_shape"].get(name)
        yield (name, power(system["memory"]), power(system["time"]), f"{last['length']:,}",
               f"{last['peak_bytes'] / MIB:,.0f} MiB", f"{layers['a_layer'] / MIB:.1f} MiB",
               f"{layers['held_a_layer'] / MIB:.1f} MiB",
               MISSING if held is None else f"{held / GB:.1f} GB")


def decoding(found: Found) -> Iterator[Row]:
    """Yield what each family carries, and the time of the next token after some lengths."""
    points = next(iter(found["families"].values()))["points"]
    shown = sorted({0, len(points) // 2, len(points) - 1})
    yield ("", "carried to the next token", "more with each token", "held of the source",
           *(f"after {points[n]['length']:,} tokens" for n in shown))
    for name, family in found["families"].items():
        first = family["points"][0]
        yield (name, f"{first['state_bytes'] / KIB:,.1f} KiB after {first['length']:,}",
               f"{family['a_token']:,.0f} bytes", f"{family['source_bytes'] / KIB:,.1f} KiB",
               *(f"{1e3 * family['points'][n]['seconds']:.2f} ms" for n in shown))


def gradients(found: Found) -> Iterator[Row]:
    """Yield what is lost a step, and what comes back over the longest distance."""
    yield "", "", "a step", "kept from the shortest distance to the longest", "keys named over the longest"
    for name, stages in found["systems"].items():
        for stage, flow in stages.items():
            low, high = flow["kept_interval"]
            yield (name, STAGES[stage], f"× {flow['exponential']['a_step']:.4f}",
                   f"{flow['kept']:.2g} ({low:.2g} to {high:.2g})", f"{100 * flow['named']:.0f} %")


def retention(found: Found) -> Iterator[Row]:
    """Yield the share of first tokens that a probe reads, by distance."""
    points = next(iter(next(iter(found["systems"].values())).values()))
    yield "", "", *(f"after {point['distance']:,}" for point in points)
    for name, stages in found["systems"].items():
        for stage, points in stages.items():
            yield (name, STAGES[stage], *(f"{100 * point['share']:.0f} %" for point in points))


TABLES: dict[str, Callable[[Found], Iterator[Row]]] = {
    "lengths": lengths, "memory": memory, "decoding": decoding, "gradients": gradients, "retention": retention}


def power(fit: Mapping[str, Any] | None) -> str:
    """Write a power of the length, with its standard error and the lengths that it is of."""
    if fit is None:
        return MISSING
    return f"L^{fit['exponent']:.2f} ± {fit['standard_error']:.2f} ({fit['from']:,} to {fit['to']:,})"


def render(name: str, study: Found | None) -> str:
    """Write a study's table as Markdown; "" where it was not measured, which stands above."""
    if study is None:
        return ""
    head, *rows = TABLES[name](study)
    return markdown(head, rows)
