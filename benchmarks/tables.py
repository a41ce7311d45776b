"""Measured rows as Markdown tables: medians, and how many times as fast minitx is."""

from collections.abc import Callable, Iterable, Sequence
from math import ceil
from statistics import median
from typing import Any

from minitx.utils.tables import markdown

Row = dict[str, Any]
Key = tuple[Any, ...]
OWN = ("auto", "bf16", "fp32")  # precisions of minitx
TRAINING = ("system", "precision", "target tokens an update", "target tokens/s (least-most)", "sentences/s",
            "peak memory", "windows", "minitx is faster by", "minitx in fp32")
DECODING = ("system", "precision", "beam", "batch 1, sentences/s", "batch 64", "best batch", "peak memory", "passes",
            "minitx is faster by", "minitx in fp32")
GREEDY = {"beam_size": 1}  # of rows that were measured before there was a beam
QUALITY = ("system", "precision", "minutes of training", "updates", "greedy BLEU", "minitx got there in")


def render(results: dict[str, Any]) -> str:
    """Return the page of all tables that have rows."""
    tables: dict[str, Callable[[Sequence[Row]], str]] = {
        "training": training_table, "decoding": decoding_table, "quality": quality_table}
    parts = [f"## {name.capitalize()}\n\n{table(results[name]['rows'])}\n\n{_conditions(results[name])}"
             for name, table in tables.items() if name in results]
    return "# minitx beside other toolkits\n\nMade by `python -m benchmarks`; what is compared and how is in " \
           "[README.md](../README.md).\n\n" + "\n\n".join(parts) + "\n"


def training_table(rows: Sequence[Row]) -> str:
    """One line a system and precision; ratios in tokens/s and, in brackets, in sentences/s."""
    groups = _grouped(rows, ("system", "precision"))

    def line(key: Key) -> list[str]:
        used, note = _undisturbed(groups[key])
        if not used:
            return [*key, "", _errors(groups[key]), *[""] * (len(TRAINING) - 4)]
        speeds = [row["tokens_per_s"] for row in used]
        return [*key, f"{_middle(used, 'tokens_per_update'):,.0f}",
                f"{median(speeds):,.0f} ({min(speeds):,.0f}-{max(speeds):,.0f})",
                f"{_middle(used, 'sentences_per_s'):.1f}", f"{max(row['peak_gib'] for row in used):.1f} GiB",
                f"{len(used)}{note}", *(ratio(key, own) for own in (OWN, ("fp32",)))]

    def ratio(key: Key, own: Sequence[str]) -> str:
        ours = [used for p in own if (used := _undisturbed(groups.get(("minitx", p), []))[0])]
        if key[0] == "minitx" or not ours:
            return "" if ours else "-"
        fastest, theirs = max(ours, key=lambda rows: _middle(rows, "tokens_per_s")), _undisturbed(groups[key])[0]
        tokens, sentences = (_middle(fastest, name) / _middle(theirs, name)
                             for name in ("tokens_per_s", "sentences_per_s"))
        return f"{tokens:.2f} ({sentences:.2f})"

    return markdown(TRAINING, map(line, groups))


def decoding_table(rows: Sequence[Row]) -> str:
    """One line a system, precision and beam; ratios are of each one's best batch."""
    systems = _grouped([GREEDY | row for row in rows], ("system", "precision", "beam_size"))

    def best(key: Key) -> tuple[int, float] | None:
        sizes = _grouped(_undisturbed(systems.get(key, []))[0], ("batch_size",))
        speeds = [(size, _middle(found, "sentences_per_s")) for (size,), found in sizes.items()]
        return max(speeds, key=lambda speed: speed[1], default=None)

    def at(used: Sequence[Row], size: int) -> str:
        found = [row for row in used if row["batch_size"] == size]
        return f"{_middle(found, 'sentences_per_s'):{'.1f' if size == 1 else '.0f'}}" if found else "-"

    def line(key: Key) -> list[str]:
        used, note = _undisturbed(systems[key])
        top = best(key)
        if top is None:
            return [*map(str, key), "", _errors(systems[key]), *[""] * (len(DECODING) - 5)]
        ratios = ("" if key[0] == "minitx" else _over(max(
            (own[1] for p in ours if (own := best(("minitx", p, key[2])))), default=None), top[1])
            for ours in (OWN, ("fp32",)))
        return [*map(str, key), at(used, 1), at(used, 64), f"{top[1]:.0f} (batch {top[0]})",
                f"{max(row['peak_gib'] for row in used):.1f} GiB",
                f"{sum(row['batch_size'] == top[0] for row in used)}{note}", *ratios]

    return markdown(DECODING, map(line, systems))


def quality_table(rows: Sequence[Row]) -> str:
    """One line for each of a peer's scores; minitx's time is the shortest of all its runs."""
    own = [point for row in rows if row["system"] == "minitx" for point in row["curve"]]
    lines = []
    for row in rows:
        about = [row["system"], row["precision"]]
        if "error" in row:
            lines.append([*about, "", "", row["error"], ""])
        for seconds, updates, bleu in row["curve"] if row["system"] != "minitx" else ():
            reached = min((s for s, _, b in own if b >= bleu), default=None)
            there = "-" if reached is None else f"{reached / 60:.1f} minutes ({reached / seconds:.2f} of its time)"
            lines.append([*about, f"{seconds / 60:.1f}", f"{updates:,}", f"{bleu:.1f}", there])
    own_runs = [f"minitx, a run of {row['minutes']} minutes, BLEU at minute: "
                + ", ".join(f"{bleu:.1f} at {seconds / 60:.1f}" for seconds, _, bleu in _by_minute(row["curve"])) + "."
                for row in rows if row["system"] == "minitx"]
    return "\n".join([markdown(QUALITY, lines), "", *own_runs])


def _by_minute(curve: Sequence[Sequence[float]]) -> list[Sequence[float]]:
    """Keep the last point of each minute."""
    return [*{ceil(point[0] / 60): point for point in curve}.values()]


def _grouped(rows: Iterable[Row], by: Sequence[str]) -> dict[Key, list[Row]]:
    """Group rows by some keys, in the order of their first appearance."""
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    return groups


def _undisturbed(rows: Sequence[Row]) -> tuple[list[Row], str]:
    """Return the rows that count and a note: the undisturbed rows or, if there are none, all."""
    measured = [row for row in rows if "error" not in row]
    quiet = [row for row in measured if not row["disturbed"]]
    failed = ", then failed" if measured and len(measured) < len(rows) else ""
    return (quiet, failed) if quiet else (measured, f", all disturbed{failed}" * bool(measured))


def _over(ours: float | None, theirs: float) -> str:
    return "-" if ours is None else f"{ours / theirs:.2f}"


def _errors(rows: Sequence[Row]) -> str:
    return "; ".join(dict.fromkeys(row["error"].replace("|", "/") for row in rows if "error" in row))


def _middle(rows: Sequence[Row], name: str) -> float:
    return float(median(row[name] for row in rows))


def _conditions(section: dict[str, Any]) -> str:
    machine, disturbed = section["machine"], sum(bool(row.get("disturbed")) for row in section["rows"])
    left_out = f" {disturbed} disturbed by others are left out where a quiet one is there." if disturbed else ""
    commits, dates = ("/".join(dict.fromkeys(values)) for values in (
        [row["commit"] for row in section["rows"] if row["system"] == "minitx"],
        sorted(row["date"] for row in section["rows"])))
    return (f"{machine['cpu']}, {machine['cores']} cores, {section['threads']} threads, tuned malloc; minitx "
            f"{commits or 'not measured'}; {dates}. {section['settings']}{left_out}")
