"""Tables of what `minitx study` stores, beside its claims: a line for each system."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from minitx.experiments.fits import power_text
from minitx.experiments.reports.study_plots import STAGES, depth_text
from minitx.utils.tables import Row, markdown

Found = Mapping[str, Any]
Table = Callable[[Found], Iterator[Row]]
MIB, KIB, GB = 2**20, 2**10, 1e9
MISSING = "–"


def lengths(found: Found) -> Iterator[Row]:
    """Yield how each family grows with length, and the longest sentence that it was given."""
    yield ("", "time grows as", "memory grows as", "operators that wait for one another", "longest sentence",
           "time of it")
    for name, family in found["families"].items():
        last = family["points"][-1]
        yield (name, grown(family["time"]), grown(family["memory"]), depth_text(family["depth"]),
               f"{last['length']:,}", f"{last['seconds']:.1f} s")


def memory(found: Found) -> Iterator[Row]:
    """Yield how each way grows, what a layer adds, and what is held at the shape of the arithmetic."""
    shape, sizes = found["shape"], found["sizes"]
    common = min(system["points"][-1]["length"] for system in found["by_length"].values())
    yield ("", "memory grows as", "time grows as", f"at most, at {common:,} tokens", "longest sentence",
           f"a layer adds at {sizes['layers_length']:,} tokens", "and leaves to the backward pass",
           f"and {shape['sentences']} sentences of {shape['length']:,} in {shape['layers']} layers of {shape['heads']} "
           "heads")
    for name, system in found["by_length"].items():
        points, layers = {point["length"]: point for point in system["points"]}, found["by_layers"][name]
        held = found["at_shape"].get(name)
        yield (name, grown(system["memory"]), grown(system["time"]), mib(points[common]["peak_bytes"]),
               f"{max(points):,}", f"{layers['a_layer'] / MIB:.1f} MiB", f"{layers['held_a_layer'] / MIB:.1f} MiB",
               MISSING if held is None else f"{held / GB:.1f} GB")


def memory_counted(found: Found) -> Iterator[Row]:
    """Yield what a step holds at most at lengths at which none was run."""
    ways = found["counted"]
    yield ("at most, by tokens", *(f"{point['length']:,}" for point in next(iter(ways.values()))["points"]),
           "grows as")
    for name, way in ways.items():
        yield name, *(mib(point["peak_bytes"]) for point in way["points"]), grown(way["memory"])


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


TABLES: Mapping[str, Table] = {
    "lengths": lengths, "memory": memory, "decoding": decoding, "gradients": gradients, "retention": retention}
COUNTED: Mapping[str, Table] = {"memory": memory_counted}  # of what was not run


def grown(fit: Mapping[str, Any] | None) -> str:
    """Write a power of the length, and the lengths that it is of."""
    return power_text(fit, where=True, missing=MISSING)


def mib(nbytes: float) -> str:
    """Write bytes in MiB."""
    return f"{nbytes / MIB:,.0f} MiB"


def render(name: str, study: Found | None, tables: Mapping[str, Table] = TABLES) -> str:
    """Write one of a study's tables as Markdown; "" where it was not measured, which stands above."""
    if study is None:
        return ""
    head, *rows = tables[name](study)
    return markdown(head, rows)
