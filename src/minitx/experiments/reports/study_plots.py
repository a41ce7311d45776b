"""Figures of what `minitx study` stores, in the style of `plots`: the same numbers give the same bytes."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from minitx.experiments.fits import fit_law
from minitx.experiments.reports import gpu_plots, scan_plots
from minitx.experiments.reports.plots import (
    FAINT,
    FORMS,
    INK,
    legend_above,
    machine,
    named,
    new_figure,
    note_below,
    powers_of_two,
    styles,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MIN_SHARE = 1e-12  # of a gradient: the axis ends there
STAGES = {"initial": "drawn at random", "trained": "trained to remember"}
MEASURES = (("seconds", "time", 1e3, "ms, forwards and backwards"), ("peak_bytes", "memory", 2**-20, "MiB at most"))
HELD = MEASURES[::-1]  # what is asked comes first
DEPTH = "steps that wait for one another", "operators one after another"
LAWS = (("a power", False, "--"), ("a power and a floor", True, ":"))  # name, whether it has a floor, style
SCALES = {"size": ("weights", "Loss by size", "weights N, but for the vocabulary's"),
          "text": ("text_tokens", "Loss by text", "target tokens of text, D")}


def draw_panels(panels: int, draw: Callable[[Sequence["Axes"]], None], found: Mapping[str, Any], note: str,
                form: str) -> bytes:
    """Draw panels side by side, and below them what was measured, and on what. form: one of `plots.FORMS`"""
    with new_figure(4.2 * panels, 3.9) as figure:
        draw(list(figure.subplots(1, panels)))
        conditions = found["conditions"]
        note_below(figure, f"{note}: {machine(conditions)}, {conditions['precision']}")
        return FORMS[form](figure)


def lengths(found: Mapping[str, Any], form: str = "svg") -> bytes:
    """Draw time, memory and serial depth against length, all axes logarithmic."""
    return draw_panels(1 + len(MEASURES), lambda panels: draw_lengths(panels, found["families"]), found,
                       f"One sentence, d_model {found['sizes']['d_model']}", form)


def draw_lengths(panels: Sequence["Axes"], families: Mapping[str, Any]) -> None:
    """Draw a line for each family, with its exponents beside its name; it ends where a limit was met."""
    ticks = sorted({point["length"] for family in families.values() for point in family["points"]})
    for (name, family), (colour, marker) in zip(families.items(), styles(families), strict=True):
        points, depth = family["points"], family["depth"]
        x = [point["length"] for point in points]
        for axes, (key, fitted, scale, _) in zip(panels, MEASURES, strict=False):
            axes.plot(x, [scale * point[key] for point in points], color=colour, marker=marker,
                      label=named(name, family[fitted]))
        panels[-1].plot(x, [point["depth"] for point in points], color=colour, marker=marker,
                        label=f"{name}: {depth_text(depth)}")
    shown = [*((title, label) for _, title, _, label in MEASURES), DEPTH]
    for axes, (title, label) in zip(panels, shown, strict=True):
        axes.set_yscale("log")
        powers_of_two(axes, ticks[::2], "tokens a sentence, L")
        axes.set_ylabel(label)
        legend_above(axes, title.capitalize())


def depth_text(law: Mapping[str, Any]) -> str:
    """Write the law of a serial depth; files that were made earlier know no logarithm."""
    terms = ((law["a_token"], " L"), (law.get("a_doubling", 0), " log2 L"))
    return " + ".join([f"{law['constant']:g}", *(f"{factor:g}{what}" for factor, what in terms if factor)])


def memory(found: Mapping[str, Any], form: str = "svg") -> bytes:
    """Draw memory and time against length, and memory against layers, all axes logarithmic."""
    sizes = found["sizes"]
    return draw_panels(3, lambda panels: draw_memory(panels, found), found,
                       f"A training step of one sentence, d_model {sizes['d_model']}, {found['num_layers']} layers on "
                       f"either side at the left; {sizes['layers_length']:,} tokens at the right", form)


def draw_memory(panels: Sequence["Axes"], found: Mapping[str, Any]) -> None:
    """Draw a line for each system; those of the first two panels end where a limit was met."""
    by_length, by_layers = found["by_length"], found["by_layers"]
    ticks = sorted({point["length"] for system in by_length.values() for point in system["points"]})
    for (name, system), (colour, marker) in zip(by_length.items(), styles(by_length), strict=True):
        x = [point["length"] for point in system["points"]]
        for axes, (key, fitted, scale, _) in zip(panels, HELD, strict=False):
            axes.plot(x, [scale * point[key] for point in system["points"]], color=colour, marker=marker,
                      label=named(name, system[fitted]))
        points = by_layers[name]["points"]
        panels[2].plot([point["layers"] for point in points], [2**-20 * point["peak_bytes"] for point in points],
                       color=colour, marker=marker, label=f"{name}: {2**-20 * by_layers[name]['a_layer']:,.1f} MiB a "
                                                          "layer")
    for axes, title, label in zip(panels, ("What a step holds, by length", "What it takes, by length",
                                           "What it holds, by layers"),
                                  ("MiB at most", "ms, forwards and backwards", "MiB at most"), strict=True):
        axes.set_yscale("log")
        powers_of_two(axes, ticks[::2], "tokens a sentence, L")
        axes.set_ylabel(label)
        legend_above(axes, title)
    powers_of_two(panels[2], found["sizes"]["layers"], "layers on either side")


def decoding(found: Mapping[str, Any], form: str = "svg") -> bytes:
    """Draw the time of the next token and the bytes carried, against the tokens so far."""
    sizes = found["sizes"]
    return draw_panels(2, lambda panels: draw_decoding(panels, found["families"]), found,
                       f"One sentence, one hypothesis, a source of {sizes['source']} tokens, d_model "
                       f"{sizes['d_model']}", form)


def draw_decoding(panels: Sequence["Axes"], families: Mapping[str, Any]) -> None:
    """Draw a line for each family."""
    ticks = [point["length"] for family in families.values() for point in family["points"]]
    for (name, family), (colour, marker) in zip(families.items(), styles(families), strict=True):
        points = family["points"]
        x = [point["length"] for point in points]
        more = f"{family['a_token']:,.0f} bytes more a token" if family["a_token"] else "no more with a token"
        for axes, key, scale, label in ((panels[0], "seconds", 1e3, name),
                                        (panels[1], "state_bytes", 2**-10, f"{name}: {more}")):
            axes.plot(x, [scale * point[key] for point in points], color=colour, marker=marker, label=label)
    for axes, title, label in zip(panels, ("Time of the next token", "What is carried to it"), ("ms", "KiB"),
                                  strict=True):
        axes.set_yscale("log")
        powers_of_two(axes, sorted(set(ticks))[::2], "tokens of the translation so far")
        axes.set_ylabel(label)
        legend_above(axes, title)


def gradients(found: Mapping[str, Any], form: str = "svg") -> bytes:
    """Draw the share of a gradient that flows back over a distance; an exponential is a straight line."""
    lesson = found["sizes"]["lesson"]
    return draw_panels(len(STAGES), lambda panels: draw_gradients(panels, found["systems"]), found,
                       f"Geometric means and extremes of {lesson['seeds']} seeds, width {lesson['width']}; float64",
                       form)


def draw_gradients(panels: Sequence["Axes"], systems: Mapping[str, Any]) -> None:
    """Draw a panel a stage, and in each a line a system."""
    for axes, (stage, title) in zip(panels, STAGES.items(), strict=True):
        for (name, stages), (colour, marker) in zip(systems.items(), styles(systems), strict=True):
            flow = stages[stage]
            points = [point for point in flow["points"] if point["carried_low"] > 0]
            x = [point["distance"] for point in points]
            axes.plot(x, [point["carried"] for point in points], color=colour, marker=marker,
                      label=f"{name}: × {flow['exponential']['a_step']:.4f} a step")
            axes.fill_between(x, [point["carried_low"] for point in points],
                              [point["carried_high"] for point in points], color=colour, alpha=0.15, linewidth=0)
        axes.set_yscale("log")
        axes.set_ylim(bottom=max(MIN_SHARE, axes.get_ylim()[0]))
        axes.set_xlabel("distance to the token, d (tokens)")
        axes.set_ylabel("share of the gradient that comes back, c(d)")
        legend_above(axes, title.capitalize())


def retention(found: Mapping[str, Any], form: str = "svg") -> bytes:
    """Draw the share of first tokens that a probe reads, with intervals, and the share that guessing would."""
    sizes = found["sizes"]
    return draw_panels(len(STAGES), lambda panels: draw_retention(panels, found["systems"], found["chance"]), found,
                       f"A linear probe of {found['state']} numbers, fitted to {sizes['fitted']:,} sentences, scored "
                       f"on {sizes['scored']:,} others, {sizes['lesson']['seeds']} seeds; 95 % intervals", form)


def draw_retention(panels: Sequence["Axes"], systems: Mapping[str, Any], chance: float) -> None:
    """Draw a panel a stage, and in each a line a system."""
    for axes, (stage, title) in zip(panels, STAGES.items(), strict=True):
        x: list[int] = []
        for number, ((name, stages), (colour, marker)) in enumerate(zip(systems.items(), styles(systems), strict=True)):
            points = stages[stage]
            x = [point["distance"] for point in points]
            beside = [distance * 1.05 ** number for distance in x]  # so that none hides another
            errors = [[100 * (point["share"] - point["low"]) for point in points],
                      [100 * (point["high"] - point["share"]) for point in points]]
            shares = [100 * point["share"] for point in points]
            axes.errorbar(beside, shares, errors, color=colour, marker=marker, label=name)
        axes.axhline(100 * chance, color=INK, linewidth=0.8, linestyle="--", label="chance")
        powers_of_two(axes, x, "tokens after the first, d")
        axes.set_ylim(0, 105)
        axes.set_ylabel("first tokens read, %")
        legend_above(axes, title.capitalize())


def scaling_law(found: Mapping[str, Any], form: str = "svg") -> bytes:
    """Draw the loss over model size and over text, both axes logarithmic, and what two laws predict of the largest."""
    return draw_panels(len(SCALES), lambda panels: draw_scaling(panels, found["laws"]), found,
                       f"{found['sizes']['updates']:,} updates of about {found['tokens_per_update']:,} target tokens, "
                       f"data={found['data']}", form)


def draw_scaling(panels: Sequence["Axes"], laws: Mapping[str, Any]) -> None:
    """Draw the measured points, and each law, fitted to all but the largest and drawn on to where it predicts that."""
    ((colour, marker),) = styles(["transformer"])
    for axes, (name, (key, title, label)) in zip(panels, SCALES.items(), strict=True):
        x, losses = ([point[of] for point in laws[name]["points"]] for of in (key, "loss"))
        axes.plot(x[:-1], losses[:-1], color=colour, marker=marker, linestyle="", label="measured, fitted to")
        axes.plot(x[-1:], losses[-1:], color=colour, marker=marker, linestyle="", markerfacecolor="none",
                  markersize=7, label=f"measured, to be predicted: {losses[-1]:.2f}")
        smooth = [x[0] * (x[-1] / x[0]) ** (i / 100) for i in range(101)]
        for form, floor, style in LAWS:
            law = fit_law(x[:-1], losses[:-1], floor=floor)
            none = " (it finds none)" if floor and law.constant <= 0 else ""
            axes.plot(smooth, [law.at(n) for n in smooth], color=INK, linestyle=style, marker="x", markevery=[100],
                      label=f"{form}{none}: {law.at(x[-1]):.2f}, {100 * (law.at(x[-1]) / losses[-1] - 1):+.1f} %")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.grid(which="minor", axis="y", color=FAINT, linewidth=0.6)
        axes.set_xlabel(label)
        axes.set_ylabel("held-out loss, nats a token")
        legend_above(axes, title)


class Draw(Protocol):
    """Draw what a study stored. form: one of `plots.FORMS`"""

    def __call__(self, found: Mapping[str, Any], form: str = "svg") -> bytes:
        """Return the figure as a file's bytes."""


FIGURES: dict[str, Draw] = {
    "lengths": lengths, "memory": memory, "decoding": decoding, "gradients": gradients, "retention": retention,
    "scaling-law": scaling_law, "scan": scan_plots.times, "gpu": gpu_plots.use}
FURTHER: dict[str, dict[str, Draw]] = {  # figures of a study beside its first, by name
    "scan": {"depth": scan_plots.depth},
    "gpu": {"quality": gpu_plots.quality, "speeds": gpu_plots.speeds}}
