"""Two systems, of the ledger or of run directories, compared on each test set that both have."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

from minitx.config import saved
from minitx.config.fields import nearest
from minitx.evaluation.metrics import LEARNED_BLEU, SENTENCE_COLUMNS, bleu_from_sentences
from minitx.evaluation.significance import LEVEL, MATTERS, NEITHER, Comparison, compare, rounded
from minitx.experiments.reports import results
from minitx.runs.listing import differences
from minitx.runs.overview import read_run
from minitx.utils.errors import Exit, UserError

Sentences = list[list[int]]  # `metrics.SENTENCE_COLUMNS` of each sentence of a test set


@dataclass(frozen=True)
class System:
    """One system's sentences, by test set and seed.

    seeds: in the same order; None = not known. published: it is of the ledger, not of run directories
    """

    name: str
    sets: dict[str, list[Sentences]]
    seeds: list[int | None]
    published: bool = False


def find_group(names: Sequence[str], folder: Path, warn: Callable[[str], None]) -> System:
    """Find what names stand for: one of `find_system`, or several run directories, the seeds of one system.

    A name may be a pattern of run directories, such as `runs/a*`. warn: told if these differ in more than the seed.
    Errors: `UserError` for a name of nothing, and for two runs of one seed.
    """
    found = list(dict.fromkeys(match for name in names for match in _matches(name)))
    if len(found) == 1:
        return find_system(found[0], folder)
    runs = [read_run(Path(name)) for name in found]
    for number, run in enumerate(runs):
        if run.seed in (seeds := [other.seed for other in runs[:number]]):
            raise UserError(f"{runs[seeds.index(run.seed)].path}, {run.path}: both of seed {run.seed}; a group is one "
                            "system, and each of its runs has a seed of its own")
    if differ := dict.fromkeys(key for told in differences(runs) for key in told):
        warn(f"{' '.join(names)}: these runs differ in more than the seed ({', '.join(differ)}), and are taken for one "
             "system all the same")
    runs.sort(key=lambda run: run.seed or 0)
    parts = [_read_statistics(run.path / "sentence_statistics.json") for run in runs]
    tests = set.intersection(*map(set, parts))
    return System(names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more",
                  {test: [part[test][0] for part in parts] for test in parts[0] if test in tests},
                  [run.seed for run in runs])


def _matches(name: str) -> list[str]:
    """Return the run directories that a pattern matches, and any other name as it is. Errors: `UserError` for none"""
    if Path(name).is_dir() or not has_magic(name):
        return [name]
    if not (found := sorted(place for place in glob(name) if (Path(place) / saved.NAME).is_file())):
        raise UserError(f"{name}: matches no run directory")
    return found


def find_system(name: str, folder: Path) -> System:
    """Find what a name stands for: a run directory, a system of the ledger with all its seeds, or one row of it.

    A system is named by its experiment, and by its model where an experiment has several. folder: the ledger.
    Errors: `UserError` for a name of nothing, or of rows with several commands.
    """
    if name and Path(name).is_dir():
        return System(name, _read_statistics(Path(name, "sentence_statistics.json")), [_seed(Path(name))])
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
    return System(name, {test: [row.sentences[test] for row in mine] for test in sorted(tests)},
                  [row.result.seed for row in mine], published=True)


def _seed(run_dir: Path) -> int | None:
    try:
        return saved.read_settings(run_dir).get("seed")
    except UserError:  # a folder with scores alone will do
        return None


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
        yield test, compare(first.sets[test], second.sets[test], paired=_paired(first, second))


def _paired(first: System, second: System) -> bool:
    """Tell whether runs of the same seeds are compared. Published systems are not paired, as they are not in tables."""
    known = None not in first.seeds and first.seeds == second.seeds and len(first.seeds) > 1
    return known and not (first.published or second.published)


def as_text(first: System, second: System, comparisons: list[tuple[str, Comparison]]) -> str:
    """Write comparisons for people."""
    lines, width = list[str](), max(40, len(first.name), len(second.name))
    for test, result in comparisons:
        seeds = " and ".join(f"{n} seed{'s' * (n > 1)}" for n in result.seeds) + ", paired" * result.paired
        low, high = result.interval
        lines += [
            f"{test}, {result.sentences:,} sentences, {seeds}",
            f"  {first.name:<{width}} {result.bleu[0]:6.2f} BLEU",
            f"  {second.name:<{width}} {result.bleu[1]:6.2f} BLEU",
            f"  difference {result.difference:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}",
            f"  p {rounded(result.p_bootstrap, 4)} by paired bootstrap, {rounded(result.p_randomisation, 4)} by "
            "approximate randomisation",
            f"  {result.verdict}{_reason(result)}",
        ]
        if result.verdict == NEITHER:
            continue
        if (which_p := result.which_p) is not None:
            lines.append(f"  one p is below {LEVEL:g} and one is not: {which_p}")
        if len(of_seeds := by_seed(first, second, test)) > 1:
            lines.append("  difference by seed: " + ", ".join(f"{seed}: {d:+.2f}" for seed, d in of_seeds.items()))
        if min(result.seeds) == 1:
            lines.append("  this is about the sentences alone: one seed says nothing of what another would do")
    return "\n".join(lines)


def by_seed(first: System, second: System, test: str) -> dict[int, float]:
    """Return how BLEU differs, second minus first, between runs of one seed. Nothing where the two have other seeds."""
    if None in first.seeds or sorted(first.seeds, key=str) != sorted(second.seeds, key=str):
        return {}
    one, other = ({seed: bleu_from_sentences(rows) for seed, rows in zip(system.seeds, system.sets[test], strict=True)}
                  for system in (first, second))
    return {seed: other[seed] - bleu for seed, bleu in one.items() if seed is not None}


def _reason(result: Comparison) -> str:
    if result.verdict == NEITHER:
        return f": below {LEARNED_BLEU:g} BLEU a difference means nothing, whatever its p"
    criterion = f"both p must be below {LEVEL:g}, and the interval without 0"
    if result.verdict == "significant":
        return f" ({criterion})"
    if not result.detectable:
        return ": the outputs score alike, sentence by sentence"
    return (f" ({criterion}); with these sentences and seeds a true difference of {result.detectable:.2f} is found "
            f"eight times in ten" + (f", one of {MATTERS:g} less often" if result.detectable > MATTERS else ""))
