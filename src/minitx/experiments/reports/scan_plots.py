"""Figures of the study `scan`: seconds over length and over width, and which combinations of a scan wait for which."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minitx.experiments.prefix_scan import SCANS, Trace, trace
from minitx.experiments.reports.plots import (
    FORMS,
    INK,
    legend_above,
    logarithmic_y,
    machine,
    named,
    new_figure,
    note_below,
    powers_of_two,
    styles,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EIGHT = range(1, 9)  # places in the drawing of a scan
NAMES = {"serial": "One after another", "hillis_steele": "By doubling (Hillis and Steele)",
         "work_efficient": "Work-efficient (Ladner and Fischer)"}
LOOKS = {"attention": "transformer", "recurrence": "lstm", "scan by doubling": "linear_rnn",
         "reduction": "transformer_nope"}  # whose colour and marker each way has
NODE, EDGE = 19, "#999999"  # points; colour of a line to what is combined


def times(found: Mapping[str, Any], form: str = "svg") -> bytes:
    """Draw the seconds of each way against length, and of a step of a recurrence against width."""
    with new_figure(9.6, 4.2) as figure:
        by_length, by_width = figure.subplots(1, 2)
        draw_lengths(by_length, found["lengths"])
        draw_widths(by_width, found["widths"])
        conditions = found["conditions"]
        note_below(figure, f"Left: forwards alone, fp32, {found['width']} states. Medians of blocks: "
                           f"{machine(conditions)}")
        return FORMS[form](figure)


def draw_lengths(axes: "Axes", ways: Mapping[str, Any]) -> None:
    """Draw a line for each way, with its exponent beside its name."""
    ticks: list[int] = []
    for (way, of), (colour, marker) in zip(ways.items(), styles(LOOKS[way] for way in ways), strict=True):
        points, fit = of["points"], of["time"]
        lengths = [point["length"] for point in points]
        ticks = max(ticks, lengths, key=len)
        axes.plot(lengths, [1e3 * point["seconds"] for point in points], color=colour, marker=marker,
                  label=named(way, fit, "N"))
    powers_of_two(axes, ticks[::2], "positions, N")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.set_ylabel("ms")
    legend_above(axes, "Time over length")


def draw_widths(axes: "Axes", ways: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Draw the microseconds of a step for each way of writing it."""
    ticks: list[int] = []
    for (way, points), (colour, marker) in zip(ways.items(), styles(ways), strict=True):
        widths = [point["width"] for point in points]
        ticks = max(ticks, widths, key=len)
        axes.plot(widths, [1e6 * point["seconds"] for point in points], color=colour, marker=marker, label=way)
    powers_of_two(axes, ticks, "states")
    logarithmic_y(axes)
    axes.set_ylabel("µs a step")
    legend_above(axes, "A step of a recurrence, over the width of its state")


def depth(found: Mapping[str, Any], form: str = "svg") -> bytes:
    """Draw three scans of eight places: each combination below what it waits for. found: is not used, all is counted"""
    traces = {name: trace(scan, EIGHT, lambda a, b: a + b) for name, scan in SCANS.items()}
    deepest = max(traced.depth for traced in traces.values())
    with new_figure(12.6, 4.6) as figure:
        for axes, (name, traced) in zip(figure.subplots(1, len(traces), sharey=True), traces.items(), strict=True):
            draw_scan(axes, traced)
            axes.set_title(f"{NAMES[name]}: {traced.depth} in turn, {traced.work} in all", loc="left")
            axes.set_ylim(deepest + 0.5, -0.5)
            axes.set_yticks(range(deepest + 1))
            axes.set_xlabel("place")
        figure.axes[0].set_ylabel("combinations that wait for one another")
        note_below(figure, "A circle is a combination of all places from its first number to its second; filled: a "
                           "result. Lines lead to the two that it is made of.")
        return FORMS[form](figure)


def draw_scan(axes: "Axes", traced: Trace[int]) -> None:
    """Draw what was combined, each at its last place, as deep as its chain is long."""
    (colour, _), results = styles(["transformer"])[0], set(traced.results)
    for node in traced.combined:
        for part in node.made_of:
            axes.plot([part.last, node.last], [part.depth, node.depth], color=EDGE, linewidth=1, zorder=1)
    for node in (*traced.inputs, *traced.combined):
        done = node in results
        axes.plot(node.last, node.depth, marker="o", markersize=NODE, markeredgecolor=colour, zorder=2,
                  markerfacecolor=colour if done else "white")
        places = f"{node.first + 1}" if node.first == node.last else f"{node.first + 1}-{node.last + 1}"
        axes.text(node.last, node.depth, places, ha="center", va="center", fontsize=7, zorder=3,
                  color="white" if done else INK)
    axes.set_xticks(range(len(traced.results)), [str(place) for place in EIGHT])
    axes.grid(visible=False)
