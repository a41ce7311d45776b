"""How long the published trainings took, for who asks before training: a line for each experiment and machine."""

from collections.abc import Callable, Iterable, Sequence

from minitx.experiments.reports.plots import machine
from minitx.experiments.reports.results import Row
from minitx.experiments.reports.tables import TABLES
from minitx.utils.console import duration
from minitx.utils.tables import markdown

HEAD = ("experiment", "in all", "training", "updates", "runs", "text", "machine")
MISSING = "No run has been published yet."


def render(rows: Sequence[Row]) -> str:
    """Write the table as Markdown, the shortest first, whatever the order of rows; of several runs the extremes.

    *In all* is from the start of the command to its end: validation and the scoring of test sets are in it. Runs that
    were disturbed are left out: they would take less on a machine of their own.
    """
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row.result.disturbed:
            continue
        conditions = {"hardware": row.result.hardware, "threads": row.result.threads}
        where = f"{machine(conditions)}, {row.result.precision}"
        groups.setdefault((_experiments(row), row.result.data, where), []).append(row)
    lines = [(experiments, _extremes((row.result.wall_s for row in runs), duration),
              _extremes((row.result.train_s for row in runs), duration),
              _extremes((row.result.steps for row in runs), "{:,}".format), str(len(runs)), data, where)
             for (experiments, data, where), runs in sorted(groups.items(), key=_shortest)]
    return markdown(HEAD, lines) if lines else MISSING


def _experiments(row: Row) -> str:
    """Name the experiments of its table, as in `experiment=`."""
    return next(f"`{table.experiments}`" for table in TABLES.values() if table.shows(row))


def _shortest(group: tuple[tuple[str, str, str], Sequence[Row]]) -> tuple[float, tuple[str, str, str]]:
    names, runs = group
    return min(row.result.wall_s for row in runs), names


def _extremes(values: Iterable[float], write: Callable[[float], str]) -> str:
    """Write the least and the largest value, or the one that all have."""
    ordered = sorted(values)
    return " to ".join(dict.fromkeys((write(ordered[0]), write(ordered[-1]))))
