"""The tables of docs/scan.md: what the study `scan` counted, timed and had predicted, and what each family costs."""

from collections.abc import Callable, Mapping
from typing import Any

from minitx.experiments.fits import VERDICTS, power_text
from minitx.experiments.prefix_scan import COMPARED, REDUCTIONS, SCANS
from minitx.experiments.reports import findings
from minitx.experiments.reports.findings import StudyResult
from minitx.utils.tables import markdown

Studies = Mapping[str, StudyResult]
NAMES = {"serial": "scan, one after another", "hillis_steele": "scan by doubling (Hillis and Steele)",
         "work_efficient": "scan, work-efficient (Ladner and Fischer)",
         "serial_reduction": "reduction, one after another", "tree_reduction": "reduction by a tree"}
NOT_YET = "not yet"
# By family of the study `lengths`: what it is called, and what it should cost over N positions of width D.
FORMULAS = {
    "lstm": ("LSTM", "$N$", "$N D^2$", "$N D$", "$D$"),
    "linear_rnn": ("linear RNN, scanned", "$\\log N$", "$N D^2$", "$N D$", "$D$"),
    "transformer": ("Transformer", "$1$, or $\\log N$ for its sums", "$N D^2 + N^2 D$",
                    "$N^2$, or $N D$ if no weights are kept", "$N D$"),
    "transformer_window": ("Transformer, window of $w$", "$1$, or $\\log w$", "$N D^2 + N w D$", "$N D$", "$w D$"),
}
AS_CARRIED = {"lstm": "lstm_attention"}  # whose decoder carries the same; `decoding` has one of them
HEAD = ("", "steps in turn", "work", "memory of training", "state while decoding",
        "*measured*: operators in turn that length adds", "time", "memory", "bytes more to carry, a token more")


def render(name: str, studies: Studies) -> str:
    """Write one of `BLOCKS` as Markdown, or which study makes its numbers."""
    for needed in BLOCKS[name][0]:
        if needed not in studies:
            return findings.render(needed, None)
    return BLOCKS[name][1](studies)


def counts(studies: Studies) -> str:
    """Write depth and work at each length."""
    found = studies["scan"]
    head = ["combinations: in turn / in all", *(f"{each['length']:,} positions" for each in found["counts"])]
    rows = [(NAMES[name], *(f"{each[name]['depth']:,} / {each[name]['work']:,}" for each in found["counts"]))
            for name in (*SCANS, *REDUCTIONS)]
    numbers = found["numbers"]
    same = "the same numbers as" if numbers["exact"] else "other numbers than"
    return _joined(markdown(head, rows),
                   "Counted, by following what each combination was made of. In exact fractions doubling gives "
                   f"{same} one after another ({numbers['exact_positions']} positions); in floats they differ by "
                   f"{numbers['error']:.1g} of the largest ({COMPARED:,} positions).")


def steps(studies: Studies) -> str:
    """Write the microseconds of a step over the width of the state."""
    found = studies["scan"]
    widths = [point["width"] for point in found["widths"]["torch"]]
    rows = list[list[str]]()
    for way, points in found["widths"].items():
        by_width = {point["width"]: f"{1e6 * point['seconds']:,.2f}" for point in points}
        rows.append([way, *(by_width.get(width, "-") for width in widths)])
    return _joined(markdown(["µs a step, by states", *map(str, widths)], rows), _measured(found))


def times(studies: Studies) -> str:
    """Write the milliseconds of each way over length, and how they grow."""
    found = studies["scan"]
    lengths = [point["length"] for point in found["lengths"]["recurrence"]["points"]][::2]
    rows = list[list[str]]()
    for way, of in found["lengths"].items():
        by_length = {point["length"]: f"{1e3 * point['seconds']:,.3g}" for point in of["points"]}
        rows.append([way, *(by_length.get(length, "-") for length in lengths),
                     power_text(of["time"], "N", missing="-")])
    plain = found["plain_python"]
    told = ", ".join(f"{name} {1e6 * each['seconds']:,.1f} µs" for name, each in plain.items())
    return _joined(markdown(["ms, by positions", *(f"{length:,}" for length in lengths), "grows as"], rows),
                   f"Over {COMPARED:,} numbers in plain Python: {told}.", _measured(found))


def predictions(studies: Studies) -> str:
    """Write what was predicted, why, and what came out."""
    found = studies["scan"]
    rows = [(each["claim"], each["expected"], each["because"], f"{each['measured']} ({each['why']})",
             VERDICTS[each["holds"]]) for each in found["predictions"]]
    return _joined(markdown(("figure", "predicted", "because", "measured", ""), rows), _measured(found))


def costs(studies: Studies) -> str:
    """Write formulas beside what the studies `lengths` and, if it is there, `decoding` measured of each family."""
    lengths, decoding = studies["lengths"], studies.get("decoding", {"families": {}})
    rows = list[tuple[str, ...]]()
    for name, formulas in FORMULAS.items():
        family, carried = lengths["families"].get(name), decoding["families"].get(AS_CARRIED.get(name, name))
        grown = [NOT_YET] * 3 if family is None else [_more(family["depth"]), power_text(family["time"], missing="-"),
                                                      power_text(family["memory"], missing="-")]
        rows.append((*formulas, *grown, NOT_YET if carried is None else f"{carried['a_token']:,.0f}"))
    known = [study for name in ("lengths", "decoding") if (study := studies.get(name)) is not None]
    commands = "\n".join(findings.command(study["study"], study) for study in known)
    return _joined(markdown(HEAD, rows), *(f"`{study['study']}`: {findings.conditions(study)}" for study in known),
                   f"```\n{commands}\n```")


BLOCKS: Mapping[str, tuple[tuple[str, ...], Callable[[Studies], str]]] = {  # the studies that each needs
    "scan_counts": (("scan",), counts), "scan_steps": (("scan",), steps), "scan_times": (("scan",), times),
    "scan_predictions": (("scan",), predictions), "scan_costs": (("lengths",), costs)}


def _more(depth: Mapping[str, Any]) -> str:
    doubling = depth.get("a_doubling", 0)  # which older files do not have
    return f"{doubling:g} a doubling" if doubling else f"{depth['a_token']:g} a token"


def _measured(found: StudyResult) -> str:
    return _joined(findings.conditions(found), f"```\n{findings.command('scan', found)}\n```")


def _joined(*parts: str) -> str:
    return "\n\n".join(parts)
