"""README's tables: which rows, which columns, and below them the conditions under which their numbers hold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from minitx.console import duration
from minitx.result import DISTURBED_PCT, searched
from minitx.suites.ledger import Row

Cell = Callable[[Row], str]
UNCOMMITTED, DISTURBED = "†", "‡"


def _value(name: str, form: str, unit: str = "") -> Cell:
    def cell(row: Row) -> str:
        value = getattr(row.result, name)
        return "-" if value is None else f"{value:{form}}{unit}"

    return cell


@dataclass(frozen=True)
class Score:
    """Show a score of a test set."""

    test_set: str
    key: str
    unit: str = ""

    def of(self, row: Row) -> float | None:
        """Return the score, or None where the row has none."""
        scores: dict[str, float] = {**row.result.test.get(self.test_set, {})}  # type: ignore[dict-item]
        return scores.get(self.key)

    def __call__(self, row: Row) -> str:
        score = self.of(row)
        return "-" if score is None else f"{score:.1f}{self.unit}"


COLUMNS: dict[str, Cell] = {
    "model": lambda row: row.result.model + ("" if row.committed else UNCOMMITTED),
    "direction": lambda row: f"{row.result.src}-{row.result.tgt}",
    "parameters": _value("params", ","),
    "steps": _value("steps", ","),
    "epochs": _value("epochs", ".1f"),
    "training": lambda row: duration(row.result.train_s) + (DISTURBED if row.result.disturbed else ""),
    "valid loss": _value("valid_loss", ".3f"),
    "target tokens/s": _value("tgt_tokens_per_s", ",.0f"),
    "MFU": _value("mfu_pct", ".1f", " %"),
    "peak memory": _value("peak_memory_gib", ".1f", " GiB"),
    "test BLEU": Score("test", "bleu"),
    "roles right": Score("minimal_pairs", "role_accuracy_pct", " %"),
    "dictionary BLEU": Score("test", "dictionary_bleu"),
    "test_2016_flickr BLEU": Score("test_2016_flickr", "bleu"),
    "chrF": Score("test_2016_flickr", "chrf"),
}


@dataclass(frozen=True)
class Table:
    """Show every row whose experiment's name fits the pattern."""

    experiments: str
    columns: tuple[str, ...]

    def shows(self, row: Row) -> bool:
        return fnmatchcase(str(row.result.experiment), self.experiments)

    @property
    def scores(self) -> dict[str, Score]:
        """Return those of its columns that show a score."""
        return {name: cell for name in self.columns if isinstance(cell := COLUMNS[name], Score)}

    @property
    def test_sets(self) -> list[str]:
        """Name the test sets whose scores it shows."""
        return list(dict.fromkeys(score.test_set for score in self.scores.values()))

    def lacks(self, row: Row) -> list[str]:
        """Name the columns for which a row has no score."""
        return [name for name, score in self.scores.items() if score.of(row) is None]


TABLES = {
    "embedded": Table("synthetic_*", (
        "model", "parameters", "steps", "training", "target tokens/s", "test BLEU", "roles right", "dictionary BLEU")),
    "multi30k": Table("multi30k_*", (
        "direction", "model", "parameters", "steps", "epochs", "training", "target tokens/s", "MFU", "valid loss",
        "test_2016_flickr BLEU", "chrF", "peak memory")),
}


def render(table: Table, rows: Sequence[Row]) -> str:
    """Write the table of those rows that it shows, whatever their order, as Markdown; or how to get its first row."""
    if not (chosen := sorted(filter(table.shows, rows), key=lambda row: row.order)):
        sweep = f"python train.py --multirun 'experiment=glob({table.experiments})'"
        return f"No rows yet: `{sweep}` trains them, `minitx report runs/RUN` puts one here."
    head, *lines = [f"| {' | '.join(line)} |" for line in
                    (table.columns, *([COLUMNS[name](row) for name in table.columns] for row in chosen))]
    return "\n".join([head, "|---" * len(table.columns) + "|", *lines, "", *_conditions(chosen)])


def _conditions(rows: Sequence[Row]) -> list[str]:
    """Say what the rows share or differ in, and the command of each."""
    results = [row.result for row in rows]
    notes = {
        "Hardware": [f"{result.hardware.get('gpu') or result.hardware['cpu']}, {result.hardware['cores']} cores, "
                     f"{result.threads} threads, {result.precision}" for result in results],
        "Seed": [str(seed) for seed in sorted(result.seed for result in results)],
        "Search": [searched(result.decode) for result in results],
        "BLEU": [f"`{score['bleu_signature']}`" for result in results for score in result.test.values()],
        "Versions": [f"torch {result.versions['torch']}, lightning {result.versions['lightning']}"
                     for result in results],
    }
    lines = [f"{name}: {'; '.join(dict.fromkeys(values))}." for name, values in notes.items()]
    if not all(row.committed for row in rows):
        lines.append(f"{UNCOMMITTED} Trained with code that is in no commit.")
    if any(row.result.disturbed for row in rows):
        lines.append(f"{DISTURBED} Other processes took more than {DISTURBED_PCT:g} % of the cores: it would be faster "
                     "alone.")
    return [*lines, "", "```", *dict.fromkeys(row.command for row in rows), "```"]
