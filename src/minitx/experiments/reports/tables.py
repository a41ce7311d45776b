"""The tables of docs/: their rows, their columns, and below them the conditions under which the numbers hold.

A line shows one row of the ledger or, in a table by system, all seeds of a system: mean and standard deviation.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import combinations, groupby
from statistics import fmean, stdev

from minitx.evaluation.significance import compare, interval, rounded
from minitx.experiments.reports.results import Row, refuse_duplicates
from minitx.runs.result import DISTURBED_PCT, Result, searched
from minitx.utils.console import counted, duration
from minitx.utils.tables import bullets, markdown

Cell = Callable[[Sequence[Row]], str | None]  # from the rows of a line; None = not known of each of them
UNCOMMITTED, DISTURBED = "†", "‡"
RESAMPLES = 2_000  # of a comparison below a table; `minitx compare` takes more


def _number(name: str, form: str, unit: str = "") -> Cell:
    return lambda rows: _mean_and_std([getattr(row.result, name) for row in rows], form, unit)


def _mean_and_std(values: Sequence[float | None], form: str, unit: str = "") -> str | None:
    """Write the mean, and the standard deviation where values differ."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    text = f"{fmean(known):{form}}"
    return text + (f" ± {stdev(known):{form}}" if len(set(known)) > 1 else "") + unit


@dataclass(frozen=True)
class ScoreColumn:
    """Show a score of a test set. with_interval: and its 95 % interval, which BLEU has"""

    test_set: str
    key: str
    unit: str = ""
    with_interval: bool = False

    def of(self, row: Row) -> float | None:
        """Return the score, or None where the row has none."""
        scores: dict[str, float] = {**row.result.test.get(self.test_set, {})}  # type: ignore[dict-item]
        return scores.get(self.key)

    def __call__(self, rows: Sequence[Row]) -> str | None:
        """Write the mean of these rows, all seeds of a line, or None where one has no score."""
        text = _mean_and_std([self.of(row) for row in rows], ".1f", self.unit)
        if text is None or not self.with_interval:
            return text
        _, low, high = interval([row.sentences[self.test_set] for row in rows], resamples=RESAMPLES)
        return f"{text} ({low:.1f} to {high:.1f})"


@dataclass(frozen=True)
class LengthColumn:
    """Show BLEU on the sentences whose source has `min_words` to `max_words` words, its 95 % interval, their number."""

    test_set: str
    min_words: int
    max_words: int

    def __call__(self, rows: Sequence[Row]) -> str | None:
        """Write the score of these rows, all seeds of a line, or None where they have no such sentences in common."""
        words = rows[0].source_words.get(self.test_set)
        if words is None or any(row.source_words.get(self.test_set) != words for row in rows):
            return None
        chosen = [n for n, count in enumerate(words) if self.min_words <= count <= self.max_words]
        if not chosen:
            return None
        bleu, low, high = interval([[row.sentences[self.test_set][n] for n in chosen] for row in rows],
                                   resamples=RESAMPLES)
        return f"{bleu:.1f} ({low:.1f} to {high:.1f}; {len(chosen):,})"


def _model(rows: Sequence[Row]) -> str:
    marks = (UNCOMMITTED if not all(row.committed for row in rows) else "",
             DISTURBED if any(row.result.disturbed for row in rows) else "")
    return rows[0].result.model + "".join(marks)


def _training(rows: Sequence[Row]) -> str:
    return duration(fmean(row.result.train_s for row in rows))


def _to_target(rows: Sequence[Row]) -> str | None:
    """Write the training time to the target; of runs that did not reach it, a lower bound (they are censored)."""
    results = [row.result for row in rows]
    if any(result.target_bleu is None for result in results):
        return None
    reached = [result.time_to_target_s for result in results if result.time_to_target_s is not None]
    if len(reached) < len(results):
        at_least = fmean(result.time_to_target_s or result.train_s for result in results)
        return f"> {duration(at_least)}" + (f" ({len(reached)} of {len(results)} reached it)" if reached else "")
    return duration(fmean(reached)) + (f" ± {duration(stdev(reached))}" if len(reached) > 1 else "")


def _at_target(name: str, form: str, unit: str = "") -> Cell:
    def cell(rows: Sequence[Row]) -> str | None:
        return _mean_and_std([(row.result.at_target or {}).get(name) for row in rows], form, unit)

    return cell


COLUMNS: dict[str, Cell] = {
    "model": _model,
    "direction": lambda rows: f"{rows[0].result.src}-{rows[0].result.tgt}",
    "seeds": lambda rows: str(len(rows)),
    "parameters": _number("params", ",.0f"),
    "steps": _number("steps", ",.0f"),
    "epochs": _number("epochs", ".1f"),
    "training": _training,
    "to target": _to_target,
    "energy to target": _at_target("energy_wh", ".1f", " Wh"),
    "cost to target": _at_target("cost", ".2f"),
    "checkpoints averaged": lambda rows: _mean_and_std([len(row.result.averaged_steps or [1]) for row in rows], ".0f"),
    "valid loss": _number("valid_loss", ".3f"),
    "valid BLEU": _number("best_valid_bleu", ".1f"),
    "target tokens/s": _number("tgt_tokens_per_s", ",.0f"),
    "MFU": _number("mfu_pct", ".1f", " %"),
    "busy": _number("busy_pct", ".0f", " %"),
    "peak memory": _number("peak_memory_gib", ".1f", " GiB"),
    "test BLEU": ScoreColumn("test", "bleu"),
    "roles right": ScoreColumn("minimal_pairs", "role_accuracy_pct", " %"),
    "dictionary BLEU": ScoreColumn("test", "dictionary_bleu"),
    "test_2016_flickr BLEU": ScoreColumn("test_2016_flickr", "bleu"),
    "chrF": ScoreColumn("test_2016_flickr", "chrf"),
    "Moses BLEU": ScoreColumn("test_2016_flickr", "moses_bleu"),
    "shuffled BLEU": ScoreColumn("test_shuffled", "bleu"),
    "roles swapped": ScoreColumn("minimal_pairs", "roles_swapped_pct", " %"),
    **{f"BLEU, {words} words": ScoreColumn(f"length_{words}", "bleu", with_interval=True)
       for words in (10, 20, 50, 100, 200)},
    **{f"roles, {words} words": ScoreColumn(f"pairs_{words}", "role_accuracy_pct", " %")
       for words in (20, 50, 100, 200)},
    **{f"swapped, {words} words": ScoreColumn(f"pairs_{words}", "roles_swapped_pct", " %")
       for words in (20, 50, 100, 200)},
    "up to 40 words": LengthColumn("test", 0, 40),
    "over 40 words": LengthColumn("test", 41, sys.maxsize),
}

NAMES = ("direction", "model")  # columns that say what a line is


@dataclass(frozen=True)
class Table:
    """Show every row whose experiment fits a pattern.

    suite: the suite that trains them and its size, whose seeds share a line. models: their order, if not alphabetical.
    rivals: pairs of models to compare although another line stands between them.
    """

    experiments: str
    columns: tuple[str, ...]
    suite: str | None = None
    models: tuple[str, ...] = ()
    rivals: tuple[tuple[str, str], ...] = ()

    @property
    def by_system(self) -> bool:
        """Whether a line is a system with all its seeds."""
        return self.suite is not None

    def covers(self, experiment: str | None) -> bool:
        """Whether it shows runs of this experiment."""
        return fnmatchcase(str(experiment), self.experiments)

    def shows(self, row: Row) -> bool:
        """Whether it shows this row."""
        return self.covers(row.result.experiment)

    @property
    def scores(self) -> dict[str, ScoreColumn]:
        """Return the columns that show a score."""
        return {name: cell for name in self.columns if isinstance(cell := COLUMNS[name], ScoreColumn)}

    @property
    def test_sets(self) -> list[str]:
        """Return the test sets whose scores it shows."""
        return list(dict.fromkeys(score.test_set for score in self.scores.values()))

    def lacks(self, row: Row) -> list[str]:
        """Return the columns for which a row has no score."""
        return [name for name, score in self.scores.items() if score.of(row) is None]

    def lines(self, rows: Sequence[Row]) -> list[list[Row]]:
        """Group the rows that it shows by line, whatever their order. Errors: `UserError` for a seed given twice."""
        def place(row: Row) -> tuple[str, int, str, list[str]]:
            model = row.result.model
            return (str(row.result.experiment), self.models.index(model) if model in self.models else len(self.models),
                    row.result.system, row.recipe)

        chosen = sorted(filter(self.shows, rows), key=lambda row: row.sort_key)
        if not self.by_system:
            return [[row] for row in chosen]
        refuse_duplicates(chosen)
        return [list(group) for _, group in groupby(sorted(chosen, key=place), place)]


HEADLINE = ("lstm", "lstm_attention", "transformer_nope", "transformer")  # as the story goes
RIVALS = (("lstm_attention", "transformer"),)
ENCODINGS = ("transformer_nope", "transformer", "transformer_learned", "transformer_rope")
WITH_RECURRENCE = ("linear_rnn", "linear_rnn_attention", "lstm_attention", "transformer", "transformer_window")
BY_LENGTH = ("model", "seeds", "steps", "test BLEU", "shuffled BLEU",
             *(name for name in COLUMNS if name.startswith("BLEU, ")))
ROLES = ("model", "roles right", "roles swapped",
         *(name for name in COLUMNS if name.startswith(("roles, ", "swapped, "))))
TABLES = {
    "headline": Table("headline_small", (
        "model", "seeds", "parameters", "steps", "training", "target tokens/s", "MFU", "busy", "valid loss",
        "to target", "energy to target", "cost to target", "test_2016_flickr BLEU", "chrF"),
        suite="headline --size small", models=HEADLINE, rivals=RIVALS),
    "headline_full": Table("headline_b*", (
        "model", "seeds", "parameters", "steps", "target tokens/s", "MFU", "busy", "valid loss", "to target",
        "energy to target", "cost to target", "test BLEU"), suite="headline --size full",
        models=HEADLINE, rivals=RIVALS),
    "embedded": Table("synthetic_*", (
        "model", "parameters", "steps", "training", "target tokens/s", "test BLEU", "roles right", "dictionary BLEU")),
    "multi30k": Table("multi30k_*", (
        "direction", "model", "parameters", "steps", "epochs", "training", "target tokens/s", "MFU", "valid loss",
        "test_2016_flickr BLEU", "chrF", "peak memory")),
    "best": Table("best_*", (
        "direction", "model", "parameters", "steps", "epochs", "training", "checkpoints averaged", "valid loss",
        "valid BLEU", "test_2016_flickr BLEU", "chrF", "Moses BLEU")),
    "positions_short": Table("positions_short", BY_LENGTH, suite="positions --size small", models=ENCODINGS),
    "positions_all": Table("positions_all", BY_LENGTH, suite="positions --size small", models=ENCODINGS),
    "roles_short": Table("positions_short", ROLES, suite="positions --size small", models=ENCODINGS),
    "roles_all": Table("positions_all", ROLES, suite="positions --size small", models=ENCODINGS),
    "positions_bible": Table("positions_bible", (
        "model", "seeds", "parameters", "steps", "valid loss", "test BLEU", "up to 40 words", "over 40 words"),
        suite="verses --size small", models=ENCODINGS),
    "recurrence_captions": Table("recurrence_captions", (
        "model", "seeds", "parameters", "steps", "valid loss", "test_2016_flickr BLEU", "chrF"),
        suite="recurrence --size small", models=WITH_RECURRENCE, rivals=(("linear_rnn_attention", "transformer"),)),
    "recurrence_short": Table("recurrence_short", (*BY_LENGTH, "roles right", "roles, 50 words"),
                              suite="recurrence --size small", models=WITH_RECURRENCE),
    "recurrence_all": Table("recurrence_all", (*BY_LENGTH, "roles right", "roles, 50 words"),
                            suite="recurrence --size small", models=WITH_RECURRENCE),
    "recurrence_verses": Table("recurrence_verses", (
        "model", "seeds", "parameters", "steps", "valid loss", "test BLEU", "up to 40 words", "over 40 words"),
        suite="recurrence --size small", models=WITH_RECURRENCE),
}


def render(table: Table, rows: Sequence[Row]) -> str:
    """Write the table as Markdown, whatever the order of rows; without any, how to get the first."""
    lines = table.lines(rows)
    if not lines:
        return f"No rows yet: `{_first_step(table)}` trains them, `minitx report runs/RUN` puts one here."
    chosen = [row for line in lines for row in line]
    head, cells = scores_first(*grid(table, lines))
    compared, known = (bullets(texts) for texts in (comparisons(table, lines), conditions(table, chosen)))
    commands = dict.fromkeys(row.command for row in chosen)
    return "\n".join([markdown(head, cells), "", *([compared, ""] if compared else []), "Conditions:", "", known, "",
                      "```", *commands, "```"])


def _first_step(table: Table) -> str:
    if table.suite is not None:
        return f"minitx suite {table.suite} --publish"
    return f"python train.py --multirun 'experiment=glob({table.experiments})'"


def grid(table: Table, lines: Sequence[Sequence[Row]]) -> tuple[list[str], list[list[str]]]:
    """Return a table's header and the cells of its lines; a table by system leaves out columns without a figure."""
    peaks = highest_peaks([row for line in lines for row in line])
    lines = [[_with_peak(row, peaks.get(_machine(row))) for row in line] for line in lines]
    cells = {name: [COLUMNS[name](line) for line in lines] for name in table.columns}
    cells["model"] = [_label(table, line, lines) for line in lines]
    heads = [name for name, column in cells.items() if not table.by_system or any(cell is not None for cell in column)]
    return heads, [[cells[name][n] or "-" for name in heads] for n in range(len(lines))]


def scores_first(head: Sequence[str], cells: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Put the columns of scores right behind those that say what a line is: a narrow screen shows these."""
    def place(name: str) -> int:
        return 0 if name in NAMES else 1 if isinstance(COLUMNS[name], ScoreColumn | LengthColumn) else 2

    order = sorted(range(len(head)), key=lambda n: place(head[n]))
    return [head[n] for n in order], [[line[n] for n in order] for line in cells]


def highest_peaks(rows: Sequence[Row]) -> dict[str, float]:
    """Return, by machine, the highest peak in TFLOP/s that any of these runs measured.

    Each run measures it, and one that starts while a shared machine is busy measures too little.
    """
    peaks: dict[str, float] = {}
    for row in rows:
        if row.result.peak_source == "measured" and row.result.peak_tflops is not None:
            peaks[_machine(row)] = max(peaks.get(_machine(row), 0.0), row.result.peak_tflops)
    return peaks


def _machine(row: Row) -> str:
    """Describe what a run was trained on."""
    result = row.result
    return (f"{result.hardware.get('gpu') or result.hardware['cpu']}, {result.hardware['cores']} cores, "
            f"{counted(result.threads, 'thread')}, {result.precision}"
            + (f", {result.world_size} ranks" if result.world_size > 1 else ""))


def _with_peak(row: Row, tflops: float | None) -> Row:
    """Return the row with its MFU as a share of this peak, if there is one."""
    result = row.result
    if tflops is None or result.peak_tflops is None or result.mfu_pct is None:
        return row
    return replace(row, result=replace(result, mfu_pct=result.mfu_pct * result.peak_tflops / tflops))


def _label(table: Table, line: Sequence[Row], lines: Sequence[Sequence[Row]]) -> str:
    """Return a line's model; in a table by system, also the words of its command that other lines of it have not."""
    alike = [other for other in lines if other[0].result.model == line[0].result.model]
    words = [word for word in line[0].recipe if any(word not in other[0].recipe for other in alike)]
    return _model(line) + (f" ({' '.join(words)})" if words and table.by_system else "")


def comparisons(table: Table, lines: Sequence[Sequence[Row]]) -> Iterator[str]:
    """Yield how each system's BLEU differs from the line before it, and from a rival, by `significance.compare`.

    Only systems of one experiment are compared that differ in model and were scored on the same sentences.
    """
    test_set = next((score.test_set for score in table.scores.values() if score.key == "bleu"), None)
    if test_set is None or not table.by_system:
        return
    for (n, first), (m, second) in combinations(enumerate(lines), 2):
        if m > n + 1 and (first[0].result.model, second[0].result.model) not in table.rivals:
            continue
        references = {tuple(counts[1] for counts in row.sentences.get(test_set, ())) for row in (*first, *second)}
        one, other = first[0].result, second[0].result
        if len(references) > 1 or () in references or one.experiment != other.experiment or one.model == other.model:
            continue
        result = compare(*([row.sentences[test_set] for row in line] for line in (first, second)), resamples=RESAMPLES)
        low, high = result.interval
        yield (f"{one.model} to {other.model}: {result.difference:+.1f} BLEU, 95 % interval {low:+.1f} to {high:+.1f}, "
               f"p {rounded(result.p_bootstrap, 3)} and {rounded(result.p_randomisation, 3)}: {result.verdict}")


def conditions(table: Table, rows: Sequence[Row]) -> list[str]:
    """Return the conditions that a table's rows share or differ in."""
    results = [row.result for row in rows]
    notes = {
        "Hardware": list(map(_machine, rows)),
        "Seed": [str(seed) for seed in sorted(result.seed for result in results)],
        "Target": [f"BLEU {result.target_bleu:g} on the whole validation set, greedy; time of training, > = not "
                   "reached in it" for result in results if result.target_bleu is not None],
        "MFU": [f"of {tflops:.3g} TFLOP/s, the most that one of these runs measured"
                for tflops in highest_peaks(rows).values() if "MFU" in table.columns],
        "Search": [searched(result.decode) for result in results],
        "BLEU": [f"`{score['bleu_signature']}`" for result in results for score in result.test.values()],
        "Moses BLEU": [f"`{score['moses_signature']}`, {score['moses_reference_tokens']:,} reference tokens"
                       for result in results for score in result.test.values() if "moses_bleu" in score],
        "Versions": [f"torch {result.versions['torch']}, lightning {result.versions['lightning']}"
                     for result in results],
        "Not measured": list(_not_measured(results)),
    }
    lines = [f"{name}: {'; '.join(dict.fromkeys(values))}." for name, values in notes.items() if values]
    if not all(row.committed for row in rows):
        lines.append(f"{UNCOMMITTED} Trained with code that is in no commit.")
    if any(row.result.disturbed for row in rows):
        lines.append(f"{DISTURBED} Other processes took more than {DISTURBED_PCT:g} % of the cores: it would be faster "
                     "alone.")
    return lines


def _not_measured(results: Sequence[Result]) -> Iterator[str]:
    """Yield what a table about a target lacks, and why."""
    aimed = [result for result in results if result.target_bleu is not None]
    for reason in dict.fromkeys(result.not_measured.get("energy_wh") for result in aimed):
        if reason is not None:
            yield f"energy ({reason})"
    if aimed and all(result.cost is None for result in aimed):
        yield "cost (no trainer.price_per_hour was given)"
