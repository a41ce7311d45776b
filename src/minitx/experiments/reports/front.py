"""README's picture and table: what attention, positions and recurrence are worth and cost, in the ledger's numbers."""

from typing import TYPE_CHECKING, Any

from minitx.experiments.reports.evidence import CAPTIONS, MISSING, NAMES, Evidence, counted_seeds
from minitx.experiments.reports.plots import FORMS, INK, machine, new_figure, note_below, powers_of_two, styles
from minitx.experiments.reports.tables import COLUMNS
from minitx.utils.tables import bullets, markdown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEAD = ("system", "BLEU on captions", "BLEU on the embedded text", "who did what, right", "operators in a row")
CAPTION = "What attention is worth, what positions are worth, and what recurrence costs."


def table(evidence: Evidence | None) -> str:
    """Write a line for each of the four systems as Markdown, and below it the conditions."""
    if evidence is None:
        return MISSING
    captions, embedded = evidence.rows["headline"], evidence.rows["embedded"]
    lines = [[name, *(COLUMNS[column](rows) or "-" for column, rows in (
        ("test_2016_flickr BLEU", captions[model]), ("test BLEU", embedded[model]), ("roles right", embedded[model]))),
        chain(evidence, model)] for model, name in NAMES.items()]
    return f"{markdown(HEAD, lines)}\n\n{bullets(conditions(evidence))}"


def chain(evidence: Evidence, model: str) -> str:
    """Write the longest chain of operators for a sentence of L tokens, or a dash if it was not counted."""
    family = evidence.lengths["families"].get(model)
    if family is None:
        return "-"
    constant, a_token = family["depth"]["constant"], family["depth"]["a_token"]
    return f"{constant:g} + {a_token:g} L" if a_token else f"{constant:g}"


def conditions(evidence: Evidence) -> list[str]:
    """Say what was trained for how long on what, and what was counted."""
    captions, embedded = evidence.rows["headline"], evidence.rows["embedded"]
    seeds = max(len(rows) for rows in captions.values())
    minutes = {round(row.result.train_s / 60) for rows in captions.values() for row in rows}
    steps = {row.result.steps for rows in embedded.values() for row in rows}
    study = evidence.lengths
    return [f"Captions: Multi30k, English to German, {_one(minutes)} minutes of training each, mean ± deviation of "
            f"{counted_seeds(seeds)} ({evidence.hardware('headline')}).",
            f"Embedded text: {_one(steps)} updates, one seed ({evidence.hardware('embedded')}).",
            "Operators in a row: those that wait for one another in a sentence of L tokens, forwards and backwards, "
            f"counted at width {study['sizes']['d_model']}."]


def _one(values: set[int]) -> str:
    return " to ".join(f"{value:,}" for value in sorted({min(values), max(values)}))


# --- the picture


def draw(evidence: Evidence, form: str = "svg") -> bytes:
    """Draw BLEU on captions, shares of roles, and chains of operators, side by side. form: one of `plots.FORMS`"""
    with new_figure(9.8, 3.0) as figure:
        bleu, roles, chains = figure.subplots(1, 3, width_ratios=(1, 1, 1.1))
        draw_bleu(bleu, evidence)
        draw_roles(roles, evidence, [""] * len(NAMES))
        draw_chains(chains, evidence)
        note_below(figure, " ".join(machines(evidence, "Left", "Middle", "Right")))
        return FORMS[form](figure)


def draw_narrow(evidence: Evidence, form: str = "svg") -> bytes:
    """Draw the same, one below another: for screens on which the letters of three panels in a row are too small."""
    with new_figure(3.6, 8.4) as figure:
        bleu, roles, chains = figure.subplots(3, 1)
        draw_bleu(bleu, evidence)
        draw_roles(roles, evidence, list(NAMES.values()))
        draw_chains(chains, evidence)
        note_below(figure, "\n".join(machines(evidence, "Above", "Middle", "Below")))
        return FORMS[form](figure)


def machines(evidence: Evidence, *panels: str) -> list[str]:
    """Say what each panel was measured on. panels: where they are"""
    study = evidence.lengths["conditions"]
    where = (evidence.hardware("headline"), evidence.hardware("embedded"), f"{machine(study)}, {study['precision']}")
    return [f"{panel}: {what}." for panel, what in zip(panels, where, strict=True)]


def draw_bleu(axes: "Axes", evidence: Evidence) -> None:
    """Draw a bar for each system, its BLEU on captions, with its 95 % interval."""
    found = [evidence.bleu("headline", model, CAPTIONS) for model in NAMES]
    draw_bars(axes, [point for point, *_ in found], "{:.1f}", list(NAMES.values()))
    for place, (_, low, high) in enumerate(found):
        axes.plot([low, high], [place, place], color=INK, linewidth=1)
    axes.set_title("What attention is worth", loc="left", fontweight="bold")
    axes.set_xlabel("BLEU on captions, 95 % interval")


def draw_roles(axes: "Axes", evidence: Evidence, names: list[str]) -> None:
    """Draw a bar for each system: how often it told who did what to whom. names: beside the bars"""
    shares = [evidence.score("embedded", model, "minimal_pairs", "role_accuracy_pct") for model in NAMES]
    draw_bars(axes, shares, "{:.1f} %", names)
    axes.axvline(50, color=INK, linewidth=0.8, linestyle="--")
    axes.text(52, 0.45, "at most, if blind to order", fontsize=7)
    axes.set_title("What positions are worth", loc="left", fontweight="bold")
    axes.set_xlabel("who did what, told right, %")


def draw_bars(axes: "Axes", values: list[float], form: str, names: list[str]) -> None:
    """Draw horizontal bars from top to bottom in the systems' colours, each with its value inside or beside it."""
    colours = [colour for colour, _ in styles(NAMES)]
    axes.barh(range(len(values)), values, 0.7, color=colours)
    most = max(values)
    for place, value in enumerate(values):
        inside = value > most / 2
        axes.text(most * 0.02 if inside else value + most * 0.03, place, form.format(value), va="center",
                  color="white" if inside else INK, fontweight="bold", fontsize=8)
    axes.set_yticks(range(len(values)), [name.replace(" without", "\nwithout") for name in names])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.invert_yaxis()


def told(evidence: Evidence) -> dict[str, Any]:
    """Return the families of the study of lengths that the story is of."""
    return {name: family for name, family in evidence.lengths["families"].items() if name in NAMES}


def draw_chains(axes: "Axes", evidence: Evidence) -> None:
    """Draw the longest chain of operators against length, both axes logarithmic."""
    families = told(evidence)
    for (name, family), (colour, marker) in zip(families.items(), styles(families), strict=True):
        axes.plot([point["length"] for point in family["points"]], [point["depth"] for point in family["points"]],
                  color=colour, marker=marker, markersize=4, label=f"{NAMES[name]}: {chain(evidence, name)}")
    lengths = sorted({point["length"] for family in families.values() for point in family["points"]})
    axes.set_yscale("log")
    powers_of_two(axes, lengths[::3], "tokens of a sentence, L")
    axes.set_ylim(top=100 * axes.get_ylim()[1])  # room for the legend
    axes.legend(loc="upper left", fontsize=7, borderaxespad=0)
    axes.set_ylabel("operators that wait in a row")
    axes.set_title("What recurrence costs", loc="left", fontweight="bold")


def describe(evidence: Evidence) -> str:
    """Say what the picture shows, for those who do not see it."""
    captions = [f"{name} {COLUMNS['test_2016_flickr BLEU'](evidence.rows['headline'][model])}"
                for model, name in NAMES.items()]
    roles = [f"{name} {evidence.score('embedded', model, 'minimal_pairs', 'role_accuracy_pct'):.1f} %"
             for model, name in NAMES.items()]
    chains = [f"{NAMES[name]} {chain(evidence, name)}" for name in told(evidence)]
    return (f"BLEU on captions: {'; '.join(captions)}. Who did what, told right: {'; '.join(roles)}. Operators that "
            f"wait for one another in a sentence of L tokens: {'; '.join(chains)}.")
