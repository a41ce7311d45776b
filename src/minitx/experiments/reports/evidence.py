"""What README's front and the story of docs/ tell of: rows of the ledger by system, and the study of lengths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minitx.evaluation.significance import Comparison, compare, interval
from minitx.experiments.reports.plots import machine
from minitx.experiments.reports.results import Row
from minitx.experiments.reports.tables import RESAMPLES, TABLES, ScoreColumn

NAMES = {"lstm": "LSTM", "lstm_attention": "LSTM + attention", "transformer_nope": "Transformer without positions",
         "transformer": "Transformer"}  # as the story goes
BY_SYSTEM = {"headline": tuple(NAMES), "embedded": tuple(NAMES), "positions_short": ("transformer_nope", "transformer"),
             "positions_all": ("transformer_nope", "transformer")}  # by table, the models that are told of
CAPTIONS = "test_2016_flickr"
MISSING = ("Not measured yet: `minitx suite headline --size small --publish`, the same of `positions`, the experiments "
           "`synthetic_*` and `minitx study lengths` make this part.")

Study = Mapping[str, Any]


@dataclass(frozen=True)
class Evidence:
    """Hold what is told of. rows: by table and model, all seeds; lengths: the study"""

    rows: Mapping[str, Mapping[str, Sequence[Row]]]
    lengths: Study

    def score(self, table: str, model: str, test_set: str, key: str = "bleu") -> float:
        """Return a score of a system's first seed."""
        score = ScoreColumn(test_set, key).of(self.rows[table][model][0])
        assert score is not None, f"{table}: publishing refuses a row without it"
        return score

    def bleu(self, table: str, model: str, test_set: str) -> tuple[float, float, float]:
        """Return a system's BLEU, the mean over its seeds, with the ends of its 95 % interval."""
        return interval(self._counts(table, model, test_set), resamples=RESAMPLES)

    def difference(self, table: str, first: str, second: str, test_set: str) -> Comparison:
        """Return how the second system's BLEU differs from the first's."""
        return compare(*(self._counts(table, model, test_set) for model in (first, second)), resamples=RESAMPLES)

    def _counts(self, table: str, model: str, test_set: str) -> list[list[list[int]]]:
        return [row.sentences[test_set] for row in self.rows[table][model]]

    def hardware(self, table: str) -> str:
        """Return what a table's systems were trained on."""
        results = [row.result for rows in self.rows[table].values() for row in rows]
        return "; ".join(dict.fromkeys(
            f"{machine({'hardware': result.hardware, 'threads': result.threads})}, {result.precision}"
            for result in results))


def gather(rows: Sequence[Row], studies: Mapping[str, Study]) -> Evidence | None:
    """Find what is told of, or return None where a part of it has not been published. Of several recipes the shortest.

    Errors: `UserError` for a seed that is given twice.
    """
    found: dict[str, dict[str, Sequence[Row]]] = {}
    for name, models in BY_SYSTEM.items():
        lines: dict[str, Sequence[Row]] = {}
        for line in sorted(TABLES[name].lines(rows), key=lambda line: len(line[0].recipe)):
            lines.setdefault(line[0].result.model, line)
        if not lines.keys() >= set(models):
            return None
        found[name] = {model: lines[model] for model in models}
    return Evidence(found, studies["lengths"]) if "lengths" in studies else None


def counted_seeds(n: int) -> str:
    """Write how many seeds a number is of."""
    return "one seed" if n == 1 else f"{n} seeds"
