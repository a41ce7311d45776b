"""Two systems out of the ledger, or out of run directories, side by side: each test set that both have."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minitx.errors import UserError
from minitx.schema import nearest
from minitx.suites import ledger
from minitx.suites.significance import Comparison, compare

Sentences = list[list[int]]  # `metrics.SENTENCE_COLUMNS` of each


@dataclass(frozen=True)
class System:
    """Hold one system's sentences, by test set and seed."""

    name: str
    sets: dict[str, list[Sentences]]


def find_system(name: str, folder: Path) -> System:
    """Find what a name means: a run directory, or an experiment of the ledger, all its seeds.

    Errors: `UserError` for what is neither, or an experiment whose rows are of several configs.
    """
    if (statistics := Path(name, "sentence_statistics.json")).exists():
        return System(name, {test: [rows] for test, rows in json.loads(statistics.read_text())["sets"].items()})
    rows = ledger.read(folder)
    mine = [row for row in rows if name in (row.result.experiment, row.name)]
    if not mine:
        known = {str(row.result.experiment) for row in rows}
        raise UserError(f"{name}: neither a run directory with scores nor an experiment in {folder} "
                        f"({', '.join(sorted(known)) or 'which has none'}){nearest(name, known)}")
    if any(_but_seed(row.command) != _but_seed(mine[0].command) for row in mine):
        raise UserError(f"{name}: its rows in {folder} are of several commands; name one: "
                        f"{', '.join(row.name for row in mine)}")
    tests = set.intersection(*(set(row.sentences) for row in mine))
    return System(name, {test: [row.sentences[test] for row in mine] for test in sorted(tests)})


def _but_seed(command: str) -> list[str]:
    return [word for word in shlex.split(command) if not word.startswith("seed=")]


def compared(first: System, second: System) -> Iterator[tuple[str, Comparison]]:
    """Compare on each test set that both have. Errors: `UserError` for sets that are not the same, or none."""
    shared = [test for test in first.sets if test in second.sets]
    if not shared:
        raise UserError(f"{first.name} has {', '.join(first.sets) or 'no test set'}, {second.name} "
                        f"{', '.join(second.sets) or 'none'}: no test set in common")
    for test in shared:
        references = {tuple(row[1] for row in sentences) for system in (first, second)
                      for sentences in system.sets[test]}
        if len(references) > 1:
            raise UserError(f"{test}: the systems were not scored on the same sentences (their references differ in "
                            "number or length)")
        yield test, compare(first.sets[test], second.sets[test])


def table(first: System, second: System, found: list[tuple[str, Comparison]]) -> str:
    """Write what was found, to be read."""
    lines = []
    for test, result in found:
        seeds = " and ".join(f"{n} seed{'s' * (n > 1)}" for n in result.seeds)
        low, high = result.interval
        lines += [
            f"{test}, {result.sentences:,} sentences, {seeds}",
            f"  {first.name:<40} {result.bleu[0]:6.2f} BLEU",
            f"  {second.name:<40} {result.bleu[1]:6.2f} BLEU",
            f"  difference {result.difference:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}",
            f"  {result.verdict}: p = {result.p_bootstrap:.4f} (paired bootstrap), {result.p_randomisation:.4f} "
            "(approximate randomisation)",
        ]
        if result.verdict != "significant":
            lines.append(f"  a difference of less than {result.detectable:.2f} is missed more often than twice in ten")
        if min(result.seeds) == 1:
            lines.append("  of the sentences alone: one seed says nothing of what another would do")
    return "\n".join(lines)
