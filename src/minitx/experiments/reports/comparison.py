"""Two systems, of the ledger or of run directories, compared on each test set that both have."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minitx.config.fields import nearest
from minitx.evaluation.metrics import SENTENCE_COLUMNS
from minitx.evaluation.significance import LEVEL, MATTERS, Comparison, compare, rounded
from minitx.experiments.reports import results
from minitx.utils.errors import Exit, UserError

Sentences = list[list[int]]  # `metrics.SENTENCE_COLUMNS` of each sentence of a test set


@dataclass(frozen=True)
class System:
    """One system's sentences, by test set and seed."""

    name: str
    sets: dict[str, list[Sentences]]


def find_system(name: str, folder: Path) -> System:
    """Find what a name stands for: a run directory, a system of the ledger with all its seeds, or one row of it.

    A system is named by its experiment, and by its model where an experiment has several. folder: the ledger.
    Errors: `UserError` for a name of nothing, or of rows with several commands.
    """
    if name and Path(name).is_dir():
        return System(name, _read_statistics(Path(name, "sentence_statistics.json")))
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of published rows, and {name!r} is not a run directory")
    rows = results.read_rows(folder)
    row_name = Path(name).name.removesuffix(".gz").removesuffix(".json")
    mine = [row for row in rows if name in (row.result.experiment, row.result.system) or row_name == row.name]
    if not mine:
        known = {row.result.system for row in rows}
        raise UserError(f"{name!r}: neither a run directory nor a system or row of {folder} "
                        f"({', '.join(sorted(known))}){nearest(name, known)}")
    if any(row.recipe != mine[0].recipe for row in mine):
        systems = dict.fromkeys(row.result.system for row in mine)
        raise UserError(f"{name}: its rows in {folder} are of several commands; name one: "
                        f"{', '.join(systems if len(systems) > 1 else [row.name for row in mine])}")
    results.refuse_duplicates(mine)
    tests = set.intersection(*(set(row.sentences) for row in mine))
    return System(name, {test: [row.sentences[test] for row in mine] for test in sorted(tests)})


def _read_statistics(path: Path) -> dict[str, list[Sentences]]:
    """Read the test sets of a run. Errors: `UserError` if it has none, or their file is damaged"""
    if not path.is_file():
        raise UserError(f"{path.parent}: has no {path.name}: this run has not scored its test sets yet; continue it "
                        "with resume=auto")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["columns"] != list(SENTENCE_COLUMNS):
            raise ValueError("other columns than this version's")
        for rows in values["sets"].values():
            for row in rows:
                if len(row) != len(SENTENCE_COLUMNS) or not all(type(n) is int and n >= 0 for n in row):
                    raise ValueError(f"not counts of a sentence: {row}")
        return {test: [rows] for test, rows in values["sets"].items() if rows}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: damaged ({' '.join(str(error).split())})", Exit.STORAGE) from error


def compare_systems(first: System, second: System) -> Iterator[tuple[str, Comparison]]:
    """Compare on each test set that both have. Errors: `UserError` where there is none, or its sentences differ."""
    shared = [test for test in first.sets if test in second.sets]
    if not shared:
        raise UserError(f"{first.name} has {', '.join(first.sets) or 'no test set'}, {second.name} "
                        f"{', '.join(second.sets) or 'none'}: no test set in common")
    for test in shared:
        references = {tuple(row[1] for row in sentences) for system in (first, second)
                      for sentences in system.sets[test]}
        if len(references) > 1:
            raise UserError(f"{test}: the systems were not scored on the same sentences with the same tokenizer "
                            "(their references differ in number or length)")
        yield test, compare(first.sets[test], second.sets[test])


def as_text(first: System, second: System, comparisons: list[tuple[str, Comparison]]) -> str:
    """Write comparisons for people."""
    lines = []
    for test, result in comparisons:
        seeds = " and ".join(f"{n} seed{'s' * (n > 1)}" for n in result.seeds)
        low, high = result.interval
        lines += [
            f"{test}, {result.sentences:,} sentences, {seeds}",
            f"  {first.name:<40} {result.bleu[0]:6.2f} BLEU",
            f"  {second.name:<40} {result.bleu[1]:6.2f} BLEU",
            f"  difference {result.difference:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}",
            f"  p {rounded(result.p_bootstrap, 4)} by paired bootstrap, {rounded(result.p_randomisation, 4)} by "
            "approximate randomisation",
            f"  {result.verdict}{_reason(result)}",
        ]
        if min(result.seeds) == 1:
            lines.append("  this is about the sentences alone: one seed says nothing of what another would do")
    return "\n".join(lines)


def _reason(result: Comparison) -> str:
    criterion = f"both p must be below {LEVEL:g}, and the interval without 0"
    if result.verdict == "significant":
        return f" ({criterion})"
    if not result.detectable:
        return ": the outputs score alike, sentence by sentence"
    return (f" ({criterion}); with these sentences and seeds a true difference of {result.detectable:.2f} is found "
            f"eight times in ten" + (f", one of {MATTERS:g} less often" if result.detectable > MATTERS else ""))
