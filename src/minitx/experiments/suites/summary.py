"""What a suite has found so far, in the columns of README's table, to be read on a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from minitx.experiments.reports import results as ledgers
from minitx.experiments.reports.results import Row
from minitx.experiments.reports.tables import TABLES, conditions, grid, neighbours
from minitx.experiments.suites.suite import Job, State
from minitx.utils.errors import UserError
from minitx.utils.tables import aligned


def summary(jobs: Sequence[Job], states: Mapping[Job, State], ledger: Path | None) -> Iterator[str]:
    """Yield a line a system, its seeds together, and whether neighbours differ. ledger: where published rows are"""
    published = [] if ledger is None else ledgers.read(ledger)
    rows: list[Row] = []
    for job in jobs:
        state = states[job]
        if not state.trained:
            continue
        try:
            rows += [row for row in published if row.result == state.result] or [ledgers.gather(job.run_dir)]
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
        yield from neighbours(table, lines)
        yield from conditions(table, [row for line in lines for row in line])
