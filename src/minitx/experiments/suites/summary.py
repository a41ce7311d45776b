"""What a suite has measured so far, in the columns of README's table, for a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from minitx.experiments.reports import results
from minitx.experiments.reports.results import Row
from minitx.experiments.reports.tables import TABLES, comparisons, conditions, grid
from minitx.experiments.suites.suite import Job, State
from minitx.utils.errors import UserError
from minitx.utils.tables import aligned


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
