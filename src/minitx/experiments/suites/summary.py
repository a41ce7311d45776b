"""What a suite has measured so far, for a terminal: the columns of README's table, and sentences side by side."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from minitx.data.corpus import load_corpus, local_folder, spread
from minitx.data.lines import read_lines
from minitx.experiments.reports import results
from minitx.experiments.reports.results import Row
from minitx.experiments.reports.tables import TABLES, comparisons, conditions, grid
from minitx.experiments.suites.suite import Job, State
from minitx.utils.errors import UserError
from minitx.utils.tables import aligned

SENTENCES, LONGEST = 5, 150  # of a test set, shown side by side; characters of one: a model may repeat itself for ever


def summary(jobs: Sequence[Job], states: Mapping[Job, State], ledger: Path | None) -> Iterator[str]:
    """Yield a line for each system, and how systems differ. ledger: where published runs are found"""
    published = [] if ledger is None else results.read_rows(ledger, may_be_empty=True)
    rows: list[Row] = []
    for job in jobs:
        state = states[job]
        if not state.trained:
            continue
        try:
            rows += [row for row in published if row.result == state.result] or [results.make_row(job.run_dir)]
        except UserError as error:
            yield f"not shown: {error}"
    tables = [table for table in TABLES.values() if any(map(table.shows, rows))]
    for table in tables:
        table = replace(table, suite=table.suite or "")
        lines = table.lines(rows)
        head, cells = grid(table, lines)
        yield ""
        yield from aligned([head, *cells])
        yield ""
        yield from comparisons(table, lines)
        yield from conditions(table, [row for line in lines for row in line])


def side_by_side(jobs: Sequence[Job], states: Mapping[Job, State]) -> Iterator[str]:
    """Yield the same sentences of a test set with what each system, in its first seed, made of them.

    Nothing of runs that are published but not here, and nothing of a text that does not lie here.
    """
    firsts: dict[str, Job] = {}
    for job in jobs:
        if states[job].trained and (job.run_dir / "hypotheses").is_dir():
            firsts.setdefault(job.system, job)
    data = next((job.cfg.data for job in firsts.values()), None)
    if data is None:
        return
    shown = [job for job in firsts.values() if job.cfg.data == data]
    try:
        if data.source != "synthetic" and local_folder(data) is None:
            return
        corpus = load_corpus(data)
        test_set = corpus.test_sets[0]
        pairs = corpus.pairs(test_set)
        outputs = [read_lines(job.run_dir / "hypotheses" / f"{test_set}.{corpus.tgt}", strict=False) for job in shown]
        if any(len(lines) != len(pairs) for lines in outputs):
            raise UserError(f"{test_set} has changed since these runs")
    except UserError as error:
        yield f"no sentences side by side: {error}"
        return
    models = [job.cfg.choices.model for job in shown]
    names = models if len(set(models)) == len(shown) else [job.system for job in shown]
    yield f"\n{SENTENCES} sentences of {test_set}, translated by each system (seed {shown[0].cfg.seed})"
    for place in spread(len(pairs), SENTENCES):
        texts = [shortened(text) for text in (*pairs[place], *(lines[place] for lines in outputs))]
        yield ""
        yield from aligned(list(zip(["source", "reference", *names], texts, strict=True)), "<")


def shortened(text: str) -> str:
    """Cut a text that is too long to be read at a glance."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST - 2]} …"
