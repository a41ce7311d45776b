"""Figures of the study `gpu`: how busy a GPU is, how soon it reaches a BLEU, and predicted beside published speeds."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from minitx.experiments.reports.evidence import NAMES
from minitx.experiments.reports.plots import (
    FORMS,
    INK,
    legend_above,
    logarithmic_y,
    new_figure,
    note_below,
    powers_of_two,
    styles,
)
from minitx.profiling.devices import article

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOOP = "lstm_cell_loop"
SYSTEMS = {LOOP: "LSTM, cell by cell"} | NAMES  # as the page tells of them
PUBLISHED = {"gnmt": "GNMT (LSTM)", "gnmt_cell_loop": "GNMT, cell by cell", "transformer_big": "Transformer big"}
AS_DRAWN = {"gnmt": "lstm_attention", "gnmt_cell_loop": LOOP, "transformer_big": "transformer"}  # in whose look
MOST_TESTED = 16  # GPUs, of the published trainings
SHAPES = (("by_width", "d_model", "width, d_model"), ("by_length", "length", "tokens a sentence"))
KINDS = {"shared": "one update, shared by all GPUs", "growing": "updates that grow with the GPUs"}
ALIKE = "transformer_nope"  # launches what the Transformer does, but for one sum
BESIDE = 0.055  # of the distance of two ticks: so that no bar hides another

Rows = Sequence[Mapping[str, Any]]


def use(found: Mapping[str, Any], form: str = "svg") -> bytes:
    """Draw the share of the time in which a GPU is busy, and of its peak, over width and over length."""
    device, tokens = found["sizes"]["shape_device"].upper(), found["sizes"]["tokens"]
    with new_figure(8.4, 7.0) as figure:
        panels = figure.subplots(2, len(SHAPES), squeeze=False)
        for column, (key, of, label) in enumerate(SHAPES):
            rows = [row for row in found[key] if row["system"] != ALIKE]
            draw_busy(panels[0][column], rows, of, label)
            draw_mfu(panels[1][column], rows, of, label)
            for of_row, title in zip(panels, ("Busy", "Share of the peak"), strict=True):
                of_row[column].set_title(f"{title}, by {label}", loc="left")
        panels[0][0].set_title("", loc="left")
        legend_above(panels[0][0], f"Busy, by {SHAPES[0][2]}")
        note_below(figure, f"Predicted for {article(device)}, nothing is measured: an update of {tokens:,} target "
                           "tokens. Bars of busy: from what is surely a running kernel\nto all that may be one. Bands "
                           "of MFU: slow to fast hosts and small kernels. The Transformer without positions is as the "
                           "Transformer.")
        return FORMS[form](figure)


def draw_busy(axes: "Axes", rows: Rows, of: str, label: str) -> None:
    """Draw a bar from the least to the most of busy for each system, side by side."""
    lines = by_system(rows)
    for number, ((name, points), (colour, marker)) in enumerate(zip(lines, styles(dict(lines)), strict=True)):
        x = [point[of] * 2 ** (2 * BESIDE * (number - (len(lines) - 1) / 2)) for point in points]
        low, high = zip(*(point["busy_pct"] for point in points), strict=True)
        axes.vlines(x, low, high, color=colour, linewidth=3, alpha=0.45)
        axes.plot(x, high, color=colour, marker=marker, linestyle="", label=SYSTEMS.get(name, name))
        axes.plot(x, low, color=colour, marker=marker, linestyle="", markerfacecolor="white")
    powers_of_two(axes, ticks_of(rows, of), label)
    axes.set_ylim(0, 104)
    axes.set_ylabel("busy (some kernel runs), % of the time")


def draw_mfu(axes: "Axes", rows: Rows, of: str, label: str) -> None:
    """Draw a line of MFU for each system that counts its operations, with a band from slow to fast hosts."""
    lines = by_system([row for row in rows if row["mfu_pct"] is not None])
    for (name, points), (colour, marker) in zip(lines, styles(dict(lines)), strict=True):
        x, middle = [point[of] for point in points], [point["mfu_pct"] for point in points]
        low, high = ([point["mfu_pct"] * point["update_ms"] / point[key] for point in points]
                     for key in ("slow_ms", "fast_ms"))
        axes.plot(x, middle, color=colour, marker=marker, label=SYSTEMS.get(name, name))
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    powers_of_two(axes, ticks_of(rows, of), label)
    logarithmic_y(axes)
    axes.set_ylabel("MFU, % of the peak in 16 bits")


def quality(found: Mapping[str, Any], form: str = "svg") -> bytes:
    """Draw seconds to each BLEU against the number of GPUs: updates that are shared, and updates that grow."""
    device = found["sizes"]["shape_device"]
    rows = [row for row in found["quality"] if row["device"] == device and row["minutes"] is not None]
    targets = sorted({row["bleu"] for row in rows})
    with new_figure(8.4, 3.9 * len(targets)) as figure:
        panels = figure.subplots(len(targets), len(KINDS), squeeze=False)
        for of_target, bleu in zip(panels, targets, strict=True):
            for axes, (kind, title) in zip(of_target, KINDS.items(), strict=True):
                draw_quality(axes, [row for row in rows if row["kind"] == kind and row["bleu"] == bleu],
                             f"BLEU {bleu:g}: {title}")
            least, most = (end(axes.get_ylim()[side] for axes in of_target) for side, end in enumerate((min, max)))
            for axes in of_target:
                axes.set_ylim(least, most)
        note_below(figure, f"Predicted for {device.upper()}s, nothing is measured: model small on captions; updates as "
                           "the published runs needed, seconds as predicted. Bands: seeds, errors of\npredictions "
                           f"(95 %), slow and fast hosts. Dashed: beyond the {MOST_TESTED} GPUs that published "
                           "trainings test.")
        return FORMS[form](figure)


def draw_quality(axes: "Axes", rows: Rows, title: str) -> None:
    """Draw a line for each system that gets there; dashed, and its band fainter, where no published training tests."""
    lines = by_system(rows)
    for (name, points), (colour, marker) in zip(lines, styles(dict(lines)), strict=True):
        tested = [point for point in points if point["gpus"] <= MOST_TESTED]
        for part, style, alpha in ((tested, "-", 0.15), (points[len(tested) - 1:], "--", 0.05)):
            x = [point["gpus"] for point in part]
            middle, low, high = zip(*([60 * end for end in point["minutes"]] for point in part), strict=True)
            axes.plot(x, middle, color=colour, marker=marker, linestyle=style,
                      label=SYSTEMS.get(name, name) if part is tested else "_")
            axes.fill_between(x, low, high, color=colour, alpha=alpha, linewidth=0)
    logarithmic_y(axes)
    ticks = ticks_of(rows, "gpus")
    powers_of_two(axes, ticks[::1 + len(ticks) // 8], "GPUs")
    axes.set_ylabel("seconds of training")
    legend_above(axes, title)


def speeds(found: Mapping[str, Any], form: str = "svg") -> bytes:
    """Draw predicted against published speeds of trainings that no constant was fitted on, about the diagonal."""
    with new_figure(8.4, 4.4) as figure:
        for axes, (way, tested) in zip(figure.subplots(1, len(found["tests"])), found["tests"].items(), strict=True):
            draw_speeds(axes, tested["rows"], way)
        note_below(figure, "Tokens as the publisher counts them; filled: half precision, hollow: fp32 or TF32. Dotted: "
                           "15 % more and less than was published.")
        return FORMS[form](figure)


def draw_speeds(axes: "Axes", rows: Rows, way: str) -> None:
    """Draw a point for each training. way: "v100 to a100", what constants are from and what is predicted"""
    from matplotlib.ticker import LogLocator

    one, other = way.upper().split(" TO ")
    ends = [end(row[key] for row in rows for key in ("published", "predicted")) for end in (min, max)]
    line = [ends[0] / 1.3, ends[1] * 1.3]
    axes.plot(line, line, color=INK, linewidth=1, label="_")
    for off in (0.85, 1.15):
        axes.plot(line, [off * x for x in line], color=INK, linewidth=0.8, linestyle=":", label="_")
    lines = by_system(rows)
    for (name, points), (colour, marker) in zip(lines, styles(AS_DRAWN.get(name, name) for name, _ in lines),
                                                strict=True):
        for half, fill in ((True, colour), (False, "white")):
            part = [point for point in points if (point["precision"] == "half") == half]
            axes.plot([point["published"] for point in part], [point["predicted"] for point in part], color=colour,
                      marker=marker, linestyle="", markerfacecolor=fill,
                      label=PUBLISHED.get(name, name) if half else "_")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.set_major_formatter(lambda x, _: f"{x / 1e3:,.0f}")
        axis.set_minor_formatter("")
    axes.set_xlim(*line)
    axes.set_ylim(*line)
    axes.set_xlabel("published, thousand tokens/s")
    axes.set_ylabel("predicted, thousand tokens/s")
    legend_above(axes, f"Trainings on {other}, with constants of {article(one)}")


def by_system(rows: Rows) -> list[tuple[str, Rows]]:
    """Group rows by system, as the page tells of them."""
    order = [*SYSTEMS, *PUBLISHED]
    found = sorted(rows, key=lambda row: order.index(row["system"]))
    return [(name, list(points)) for name, points in groupby(found, itemgetter("system"))]


def ticks_of(rows: Rows, of: str) -> list[int]:
    """Return the values of a key, each once."""
    return sorted({row[of] for row in rows})
