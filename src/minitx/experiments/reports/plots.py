"""Figures as SVG or PNG, drawn from stored numbers: the same numbers give the same bytes.

matplotlib comes with the extra `report`, and is imported when something is drawn.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import cycle
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

from minitx.experiments.fits import power_text
from minitx.utils.console import counted
from minitx.utils.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT = "#333333", "#dddddd"
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "minitx",  # without one, ids in an SVG are random
    "figure.facecolor": "white", "savefig.facecolor": "white",  # a page may be dark
    "font.size": 9, "axes.titlesize": 9, "axes.titleweight": "bold", "text.color": INK, "axes.labelcolor": INK,
    "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": FAINT, "grid.linewidth": 0.6, "axes.axisbelow": True,
    "lines.linewidth": 1.5, "lines.markersize": 5, "legend.frameon": False, "legend.fontsize": 8,
}  # fmt: skip
# Colour and marker, for the colour-blind and for print. Source: Okabe & Ito 2008, Color Universal Design.
FAMILY_STYLES = {"transformer": ("#0072B2", "o"), "lstm_attention": ("#D55E00", "s"), "lstm": ("#009E73", "^"),
                 "transformer_nope": ("#CC79A7", "D"), "transformer_learned": ("#E69F00", "v"),
                 "transformer_rope": ("#56B4E9", "P")}
OTHER_STYLES = (("#000000", "X"), ("#F0E442", "*"))
LEGEND_TITLE = {"weight": "bold", "size": 9}  # as of a panel


class Panel(NamedTuple):
    """How one kind of cost curve is shown."""

    key: str  # in the measurements
    title: str
    x_label: str
    y_label: str
    scale: float  # of seconds
    base: str  # of the power law


PANELS = (Panel("by_length", "Time by length", "tokens a sentence, L", "ms a sentence", 1e3, "L"),
          Panel("by_width", "Time by width", "d_model, D", "µs a target token", 1e6, "D"))


def require_matplotlib() -> None:
    """Check before the work that its figure can be drawn. Errors: `UserError` where matplotlib is not installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UserError("a figure needs matplotlib, which is not installed; pip install -c constraints.txt -e "
                        "'.[report]'") from error


@contextmanager
def new_figure(width: float, height: float) -> Iterator["Figure"]:
    """Yield a figure of this size in inches, in our style within the block. Errors: as `require_matplotlib`"""
    require_matplotlib()
    from matplotlib import rc_context, rcdefaults, rcParams
    from matplotlib.figure import Figure

    with rc_context():
        rcdefaults()  # a user's matplotlibrc makes no difference
        rcParams.update(STYLE)
        yield Figure(figsize=(width, height), layout="constrained")


def cost_curves(found: Mapping[str, Any]) -> bytes:
    """Draw what `minitx bench cost` stores: time against length and against width, both axes logarithmic."""
    with new_figure(8.4, 3.9) as figure:
        for axes, panel in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
            draw_costs(axes, panel, found[panel.key])
        conditions = found["conditions"]
        note_below(figure, f"One micro-batch of {conditions['tokens']:,} target tokens, forwards and backwards: "
                         f"{machine(conditions)}, {conditions['precision']}")
        return svg(figure)


def logarithmic_y(axes: "Axes") -> None:
    """Make the y axis logarithmic, with few ticks."""
    from matplotlib.ticker import LogLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.yaxis.set_minor_formatter("")


def draw_costs(axes: "Axes", panel: Panel, curves: Mapping[str, Any]) -> None:
    """Draw a line for each family, with its exponents beside its name."""
    ticks: list[int] = []
    for (name, curve), (colour, marker) in zip(curves.items(), styles(curves), strict=True):
        points = curve["points"]
        ticks = [point[curve["x"]] for point in points]
        axes.plot(ticks, [panel.scale * point[curve["y"]] for point in points], color=colour, marker=marker,
                  label=f"{name}: {exponents(curve, panel.base)}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, list(map(str, ticks)))
    logarithmic_y(axes)
    axes.minorticks_off()
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    legend_above(axes, panel.title)


def named(name: str, fit: Mapping[str, Any] | None, base: str = "L") -> str:
    """Write a curve's name, and the power of the length that it was found to be, if one was fitted."""
    return name if fit is None else f"{name}: {power_text(fit, base)}"


def exponents(curve: Mapping[str, Any], base: str) -> str:
    """Write a curve's power law, and that of its last two points: L^1.02 ± 0.01 (256 → 512: L^1.10)."""
    error = curve["standard_error"]
    before, last = (point[curve["x"]] for point in curve["points"][-2:])
    return (f"{base}^{curve['exponent']:.2f}" + ("" if error is None else f" ± {error:.2f}")
            + f" ({before} → {last}: {base}^{curve['last_exponent']:.2f})")


def machine(conditions: Mapping[str, Any]) -> str:
    """Return the processor or GPU of a measurement."""
    hardware = conditions["hardware"]
    return hardware.get("gpu") or f"{hardware['cpu']}, {counted(conditions['threads'], 'thread')}"


def styles(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return a colour and a marker for each name; those of published families are the same in every figure."""
    names = list(names)
    black, *faint = OTHER_STYLES
    others = cycle([black, *(style for name, style in FAMILY_STYLES.items() if name not in names), *faint])
    return [FAMILY_STYLES[name] if name in FAMILY_STYLES else next(others) for name in names]


def add_legend(axes: "Axes", **options: Any) -> None:
    """Add a legend in the order in which the curves end at the right, the highest first. options: of `Axes.legend`"""
    handles, labels = axes.get_legend_handles_labels()
    entries = sorted(zip(handles, labels, strict=True), key=lambda entry: _right_end(entry[0]), reverse=True)
    axes.legend([handle for handle, _ in entries], [label for _, label in entries], **options)


def legend_above(axes: "Axes", title: str) -> None:
    """Put title and legend above the panel, where no line is."""
    add_legend(axes, loc="lower left", bbox_to_anchor=(-0.05, 1), title=title, alignment="left",
               title_fontproperties=LEGEND_TITLE)


def _right_end(handle: Any) -> float:
    """Return where a line, or a line with its error bars, ends."""
    line = handle[0] if isinstance(handle, tuple) else handle
    heights = [float(height) for height in line.get_ydata() if isfinite(height)]
    return heights[-1] if heights else -inf


def powers_of_two(axes: "Axes", ticks: Sequence[int], label: str) -> None:
    """Make the horizontal axis logarithmic, with these ticks."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(label)


def note_below(figure: "Figure", text: str) -> None:
    """Write a sentence below all panels: what is shown, and under which conditions."""
    figure.supxlabel(text, fontsize=7, x=0.01, ha="left")


def lay_out(figure: "Figure") -> None:
    """Give the panels their places, rounded: the order in which the layout's solver adds up depends on addresses."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        left, bottom, width, height = (round(edge, 6) for edge in axes.get_position(original=True).bounds)
        axes.set_position((left, bottom, width, height))


def svg(figure: "Figure") -> bytes:
    """Write an SVG without date and version: the same figure gives the same bytes."""
    lay_out(figure)
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def png(figure: "Figure") -> bytes:
    """Write a PNG without version, for the same reason."""
    lay_out(figure)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


FORMS: dict[str, Callable[["Figure"], bytes]] = {"svg": svg, "png": png}
