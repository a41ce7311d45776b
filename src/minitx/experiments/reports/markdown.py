"""`minitx report`: publish runs in the ledger, and write the ledger's tables into README and docs/."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from minitx.experiments.reports import (
    constants,
    durations,
    findings,
    front,
    predictions,
    results,
    scan_tables,
    story,
    study_tables,
)
from minitx.experiments.reports.evidence import gather
from minitx.experiments.reports.results import Row
from minitx.experiments.reports.study_plots import FIGURES
from minitx.experiments.reports.tables import TABLES, render
from minitx.runs.result import disturbance
from minitx.utils.errors import Exit, UserError
from minitx.utils.files import write_atomically

START, END = "<!-- report: ", "<!-- /report -->"
NO_OTHERS, NO_EVIDENCE = predictions.Others(), constants.Evidence()

Blocks = Mapping[str, Callable[[], str]]  # by marker, what writes the block below it


def report(ledger: Path, readme: Path, runs: Sequence[Path] = ()) -> None:
    """Add runs to the ledger, and write its tables into README and the pages of docs/ beside it.

    All is composed before anything is written, and the same rows give the same bytes. Errors: `UserError` for a ledger
    that is missing or stays empty, a run that cannot be published, a page that is missing, cannot be written or has
    lost a marker, or a table that has no page.
    """
    results.require_ledger(ledger)
    new = [_checked_row(run_dir) for run_dir in runs]
    rows = {row.name: row for row in (*results.read_rows(ledger, may_be_empty=bool(new)), *new)}
    pages = fill_pages(readme, make_blocks(list(rows.values()), findings.read_studies(ledger / "studies"),
                                           predictions.read_others(ledger), constants.read_evidence(ledger)))
    _write_rows(new, ledger, print)
    for page, (text, filled) in pages.items():
        if filled != text:
            try:
                write_atomically(page, filled.encode())
            except OSError as error:
                raise UserError(f"{page}: cannot be written: {error.strerror}", Exit.STORAGE) from error
        print(f"{page}: tables {'are up to date' if filled == text else 'written'}")


def make_blocks(rows: Sequence[Row], studies: Mapping[str, findings.StudyResult],
                others: predictions.Others = NO_OTHERS, known: constants.Evidence = NO_EVIDENCE) -> Blocks:
    """Return every block that a page may show: tables, studies, README's table, the story, times, predictions.

    others, known: what no run and no study of the ledger has, as `read_others` and `read_evidence` return it
    """
    evidence = gather(rows, studies)
    return {"front": partial(front.table, evidence), "durations": partial(durations.render, rows),
            **{f"story_{step}": partial(story.render, step, evidence) for step in story.STEPS},
            **{name: partial(render, table, rows) for name, table in TABLES.items()},
            **{f"study_{name}": partial(findings.render, name, studies.get(name)) for name in FIGURES},
            **{f"study_{name}_systems": partial(study_tables.render, name, studies.get(name))
               for name in study_tables.TABLES},
            **{f"study_{name}_counted": partial(study_tables.render, name, studies.get(name), study_tables.COUNTED)
               for name in study_tables.COUNTED},
            **{name: partial(scan_tables.render, name, studies) for name in scan_tables.BLOCKS},
            **{name: partial(predictions.render, name, studies.get("gpu"), others) for name in predictions.BLOCKS},
            **{name: partial(constants.render, name, known) for name in constants.BLOCKS}}


def publish(runs: Sequence[Path], ledger: Path, say: Callable[[str], None] = print) -> None:
    """Add runs' rows, each in place of an older one of the same config and seed. say: gets a line for each

    Errors: `UserError` for a run that cannot be published; then none is.
    """
    _write_rows([_checked_row(run_dir) for run_dir in runs], ledger, say)


def _write_rows(rows: Sequence[Row], ledger: Path, say: Callable[[str], None]) -> None:
    """Write rows; say what each replaces, and what is wrong with it."""
    for row in rows:
        known = results.read_rows(ledger, may_be_empty=True)
        alike = [other.name for other in known if other.sort_key[:2] == row.sort_key[:2]]
        path, replaced = results.write_row(row, ledger)
        say(f"{path}: {'replaced: there was a row of this config and seed' if replaced else 'published'}"
            f"{'' if row.committed else ', and marked: its code is in no commit'}")
        if (disturbed := disturbance(row.result.other_cpu_pct)) is not None:
            say(f"{path}: warning: marked as disturbed, {disturbed}; train it again on a quiet machine, and publish "
                "that")
        if others := [name for name in alike if name != row.name]:
            say(f"{path}: of the same experiment and seed, with another config: {', '.join(others)}; delete what "
                "this one replaces")


def _checked_row(run_dir: Path) -> Row:
    """Make the row of a run.

    Errors: `UserError` for a run that no table shows or that lacks scores of its table, and a row that is too large.
    """
    row = results.make_row(run_dir)
    row.file()  # refuses a row that is too large
    tables = [table for table in TABLES.values() if table.shows(row)]
    if not tables:
        shown = ", ".join(table.experiments for table in TABLES.values())
        raise UserError(f"{run_dir}: no table shows experiment={row.result.experiment} (they show {shown}), so it is "
                        "not published")
    for table in tables:
        if lacking := table.lacks(row):
            scored = ", ".join(row.result.test) or "no test set"
            raise UserError(f"{run_dir}: has no {', '.join(lacking)} for its table, which shows scores of "
                            f"{', '.join(table.test_sets)}; this run scored {scored}")
    return row


def fill_pages(readme: Path, known: Blocks) -> dict[Path, tuple[str, str]]:
    """Return the text of README and of each page of docs/ that has a marker, as it is and as it should be.

    Errors: `UserError` for a page that is missing or has lost a marker, or a table that has no page.
    """
    pages: dict[Path, tuple[str, str]] = {}
    for page in (readme, *sorted(readme.parent.glob("docs/*.md"))):
        try:
            text = page.read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"{page}: {error.strerror}", Exit.USAGE if not page.exists() else Exit.STORAGE) from error
        if page == readme or START in text:
            pages[page] = text, fill(text, known, page)
    for name in known:
        if not any(f"{START}{name} -->" in text for text, _ in pages.values()):
            raise UserError(f"{readme}: neither here nor in docs/ are the markers {START}{name} --> ... {END}")
    return pages


def fill(text: str, known: Blocks, page: Path) -> str:
    """Fill what is between `<!-- report: NAME -->` and `<!-- /report -->`. Errors: `UserError` for a lost marker."""
    before, *blocks = text.split(START)
    filled = [before]
    for block in blocks:
        name, opened, rest = block.partition(" -->\n")
        _, closed, after = rest.partition(END)
        if name not in known or not (opened and closed) or END in after:
            began = name.partition("\n")[0]
            raise UserError(f"{page}: {START}{began} --> ... {END}: one of these lines is lost, or no table has that "
                            f"name ({', '.join(known)})")
        filled.append(f"{START}{name} -->\n{known[name]()}\n{END}{after}")
    return "".join(filled)
