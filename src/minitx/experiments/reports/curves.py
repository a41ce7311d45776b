"""How runs learned: validation BLEU and loss against time and steps, a colour a system, thin lines for its seeds."""

from collections.abc import Mapping, Sequence
from itertools import product
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from minitx.experiments.reports.plots import FORMS, add_legend, new_figure, note_below, styles
from minitx.experiments.reports.results import CURVE
from minitx.runs.listing import system_names
from minitx.runs.overview import RunOverview, read_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = Sequence[Sequence[float | None]]  # rows of `results.CURVE`; a loss that is not finite is None
ENDS_TOGETHER = 1.1  # seeds whose training took about as long; the mean of their ends is the end of their mean


class Axis(NamedTuple):
    """What an axis shows of a validation. per: what one of its units is in those of the curve"""

    column: str
    label: str
    title: str
    per: float = 1.0


MINUTES = Axis("train_s", "training, minutes (validation not counted)", "minutes of training", 60.0)
STEPS = Axis("step", "training, updates", "updates")
BLEU = Axis("bleu", "validation BLEU", "BLEU")
LOSS = Axis("loss", "validation loss, nats a token", "Loss")
NOTE = "Thin: single seeds. Thick: their mean, at updates after which all of them were validated, and at their ends"


def learning_curves(systems: Mapping[str, Sequence[Curve]], form: str = "svg") -> bytes:
    """Draw BLEU and loss of each system against time and against steps. systems: the curves of the seeds of each"""
    several = any(len(curves) > 1 for curves in systems.values())
    with new_figure(8.4, 6.4) as figure:
        panels = figure.subplots(2, 2).flat
        for axes, (y, x) in zip(panels, product((BLEU, LOSS), (MINUTES, STEPS)), strict=True):
            axes.set_title(f"{y.title} by {x.title}", loc="left")
            draw_systems(axes, systems, x, y)
            axes.set_xlim(left=0)
            if y is BLEU:
                axes.set_ylim(bottom=0)
            if x is MINUTES:
                add_legend(axes)
        note_below(figure, NOTE if several else "Each point is a validation: greedy search, and loss without smoothing")
        return FORMS[form](figure)


def curves_by_system(runs: Sequence[RunOverview]) -> tuple[dict[str, list[Curve]], list[RunOverview]]:
    """Return the curves of runs by system, the seeds of one together, and the runs that were not validated yet."""
    systems, without = dict[str, list[Curve]](), list[RunOverview]()
    for name, run in zip(system_names(runs), runs, strict=True):
        if curve := read_curve(run.path):
            systems.setdefault(name, []).append(curve)
        else:
            without.append(run)
    return systems, without


def draw_systems(axes: "Axes", systems: Mapping[str, Sequence[Curve]], x: Axis, y: Axis) -> None:
    """Draw a line for each system: the mean of its seeds and, where they are several, a thin line for each."""
    for (name, seeds), (colour, marker) in zip(systems.items(), styles(systems), strict=True):
        for curve in seeds if len(seeds) > 1 else ():
            axes.plot(*columns(curve, x, y), color=colour, linewidth=0.6, alpha=0.6)
        axes.plot(*columns(mean_curve(seeds), x, y), color=colour, marker=marker, markersize=3.5,
                  label=f"{name}, mean of {len(seeds)} seeds" if len(seeds) > 1 else name)
    axes.set_xlabel(x.label)
    axes.set_ylabel(y.label)


def columns(curve: Curve, x: Axis, y: Axis) -> tuple[list[float], list[float]]:
    """Return what two axes show of a curve, without points that one of them lacks."""
    places = [CURVE.index(axis.column) for axis in (x, y)]
    pairs = [(across / x.per, up / y.per) for point in curve
             for across, up in [(point[places[0]], point[places[1]])] if across is not None and up is not None]
    return [across for across, _ in pairs], [up for _, up in pairs]


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Average seeds at the steps at which all were validated, and at their ends where they ended together."""
    by_step = [{point[0]: point for point in curve} for curve in curves]
    shared = sorted(step for step in set.intersection(*map(set, by_step)) if step is not None)
    points = [[points[step] for points in by_step] for step in shared]
    ends = [curve[-1] for curve in curves if curve]
    seconds = [end[1] or 0.0 for end in ends]
    if (len(ends) == len(curves) and all(not shared or (end[0] or 0) > shared[-1] for end in ends)
            and max(seconds) <= ENDS_TOGETHER * min(seconds)):
        points.append(ends)
    return [[_mean([point[column] for point in seeds]) for column in range(len(CURVE))] for seeds in points]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None
