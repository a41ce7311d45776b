"""The page of one's own runs: their table, how they learned, BLEU by length, and where their time went."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from minitx.experiments.reports.curves import curves_by_system, learning_curves
from minitx.experiments.reports.page import Picture, Section, drawn, over_length, over_parts, rendered, write_files
from minitx.experiments.reports.results import Row, unpublished_row
from minitx.experiments.reports.tables import DISTURBED, UNCOMMITTED, Table, conditions
from minitx.runs.listing import about, grid
from minitx.runs.overview import RunOverview, find_runs
from minitx.runs.result import DISTURBED_PCT
from minitx.utils.console import Console
from minitx.utils.errors import UserError
from minitx.utils.progress import Progress

TITLE = "minitx: runs"
ANY = Table("*", ())  # for the conditions of rows that no table shows


def write_own_page(folders: Sequence[Path], page: Path | None, figures: Path | None, console: Console) -> None:
    """Write the page of the runs in these folders, and each of its figures as PNG into a folder.

    Errors: `UserError` for a folder without runs, a file that cannot be written, and where matplotlib is missing.
    """
    runs, unread = find_runs(folders, console)
    rows, more = finished_rows(runs, console)
    for note in (*unread, *more):
        console.warn(note)
    section = runs_section(runs, rows)
    files = {} if page is None else {page: rendered(TITLE, f"Made by `minitx report` of {len(runs):,} runs.", [section],
                                                    console)}
    if figures is not None:
        files |= drawn(section.pictures, figures, console)
    write_files(files, console)


def finished_rows(runs: Sequence[RunOverview], console: Console) -> tuple[list[Row], list[str]]:
    """Return the rows of finished runs, and of which runs none can be made, and why."""
    finished = [run for run in runs if run.status == "finished"]
    rows, notes, progress = list[Row](), list[str](), Progress(console, len(finished))
    for run in finished:
        try:
            rows.append(unpublished_row(run.path))
        except UserError as error:
            notes.append(f"{error}; it appears only in the table")
        progress(f"read {run.path}")
    return rows, notes


def runs_section(runs: Sequence[RunOverview], rows: Sequence[Row]) -> Section:
    """Return the table of runs with its figures. rows: of those that are finished"""
    head, cells = grid(runs)
    told = about(runs)
    return Section("runs", "Runs", f"{told[0].upper()}{told[1:]}.", "", head, cells,
                   notes=notes(rows), pictures=[*learning(runs), *of_rows(rows)],
                   commands="\n".join(dict.fromkeys(row.command for row in rows)))


def notes(rows: Sequence[Row]) -> list[str]:
    """Return the conditions that rows share or differ in, and how many of them a published table would mark."""
    shared = [note for note in (conditions(ANY, rows) if rows else []) if not note.startswith((UNCOMMITTED, DISTURBED))]
    marked = ((f"slowed down by other processes, which took more than {DISTURBED_PCT:g} % of the cores",
               [row.result.disturbed for row in rows]),
              ("trained with code that is in no commit", [not row.committed for row in rows]))
    return [*shared, *(f"Finished runs that were {what}: {sum(rows_marked)} of {len(rows)}."
                       for what, rows_marked in marked if any(rows_marked))]


def learning(runs: Sequence[RunOverview]) -> list[Picture]:
    """Return the figure of how runs learned, if any of them was validated yet."""
    systems, _ = curves_by_system(runs)
    if not systems:
        return []
    return [Picture("runs-learning-curves", "BLEU and loss on the validation set, against time and against updates.",
                    f"Curves of {', '.join(systems)}.", partial(learning_curves, systems))]


def of_rows(rows: Sequence[Row]) -> list[Picture]:
    """Return the figures of finished runs: BLEU by length, if all translated the same sentences; parts of the time."""
    if not rows:
        return []
    test_set = next(iter(rows[0].sentences), "")
    references = {tuple(counts[1] for counts in row.sentences.get(test_set, ())) for row in rows}
    same = [test_set] if len(references) == 1 and () not in references else []
    return [*over_length("runs", rows, same), over_parts("runs", rows)]
