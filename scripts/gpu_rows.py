"""Rows of checks and measurements, a part's file of them, which is whole after each row, and the loop that fills it."""

import json
import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Thread
from time import monotonic, perf_counter, time
from typing import Any

from minitx.utils.console import Console
from minitx.utils.errors import UserError
from minitx.utils.files import write_atomically
from minitx.utils.progress import Eta

HANGS_S = 20.0  # beyond twice what a job needs
Result = tuple[str, dict[str, Any]]  # a line for a person, values for a file


class Unseen(Exception):
    """Say why something cannot be looked at here; that is no failure."""


@dataclass(frozen=True)
class Job:
    """Something to check or to measure, and the seconds that it should take."""

    name: str
    work: Callable[[], Result]
    need_s: float = 4.0

    @property
    def limit_s(self) -> float:
        """Return the seconds after which it hangs."""
        return HANGS_S + 2 * self.need_s


@dataclass(frozen=True)
class Row:
    """The outcome of a job."""

    name: str
    status: str  # ok, failed, unseen
    text: str
    seconds: float
    values: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.status:7} {self.name:44} {self.text}"


def take(job: Job) -> Row:
    """Do a job, and return its outcome even if it raises an error."""
    began = perf_counter()
    try:
        text, values = job.work()
        status = "ok"
    except Unseen as reason:
        status, text, values = "unseen", str(reason), {}
    except Exception as error:
        status, text, values = "failed", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", {}
    return Row(job.name, status, text, round(perf_counter() - began, 2), values)


@dataclass(frozen=True)
class Running:
    """The row that is being worked on, since when (in seconds since 1970), and when it hangs."""

    name: str
    since: float
    limit_s: float

    @property
    def age_s(self) -> float:
        """Return the seconds that it has taken so far."""
        return time() - self.since


@dataclass(frozen=True)
class Sheet:
    """A part's rows so far, and what they depend on; `planned` names all that there would be, the most valuable first.

    What is missing when time is up has no row, and gets one in a later run.
    """

    conditions: dict[str, Any] = field(default_factory=dict)
    planned: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    running: Running | None = None

    @classmethod
    def read(cls, path: Path) -> "Sheet":
        """Read what `write` wrote; an empty sheet where there is no file."""
        if not path.is_file():
            return cls()
        found = json.loads(path.read_text(encoding="utf-8"))
        running = found.pop("running")
        rows = [Row(**row) for row in found.pop("rows")]
        return cls(**found, rows=rows, running=running and Running(**running))

    def write(self, path: Path) -> None:
        """Put the file in place, whole or not at all."""
        write_atomically(path, (json.dumps(asdict(self), indent=1) + "\n").encode())

    def begin(self, job: Job) -> "Sheet":
        """Note which row is being worked on."""
        return replace(self, running=Running(job.name, time(), job.limit_s))

    def add(self, row: Row) -> "Sheet":
        """Add a row; none is being worked on then."""
        return replace(self, rows=[*self.rows, row], running=None)

    def without_failed(self) -> "Sheet":
        """Forget the rows that failed, so that they are tried again."""
        return replace(self, rows=[row for row in self.rows if row.status != "failed"])

    @property
    def missing(self) -> list[str]:
        """Return the names of rows that are planned and not there."""
        there = {row.name for row in self.rows}
        return [name for name in self.planned if name not in there]

    @property
    def is_done(self) -> bool:
        """Tell whether all that is planned is there."""
        return bool(self.planned) and not self.missing


def different(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names of values that differ, as JSON has them."""
    return [name for name in one.keys() | other.keys()
            if json.dumps(one.get(name), sort_keys=True) != json.dumps(other.get(name), sort_keys=True)]


def failed(rows: Sequence[Row]) -> list[str]:
    """Return the names of rows that failed."""
    return [row.name for row in rows if row.status == "failed"]


def work_through(jobs: Iterable[Job], path: Path, conditions: dict[str, Any], until: float, console: Console,
                 is_usable: Callable[[], bool]) -> bool:
    """Do the jobs that have no row yet and for which there is time until then (`monotonic`), and write after each.

    is_usable: asked after each. Returns False as soon as it does. Errors: `UserError` for rows of other conditions.
    """
    todo, sheet = list(jobs), Sheet.read(path)
    if sheet.rows and (differ := different(sheet.conditions, conditions)):
        raise UserError(f"{path}: its rows are of another {', '.join(differ)}; take another folder")
    sheet = replace(sheet, conditions=conditions, planned=[job.name for job in todo], running=None)
    sheet.write(path)
    todo = [job for job in todo if job.name in sheet.missing]
    eta, done_s = Eta(sum(job.need_s for job in todo)), 0.0
    for job in todo:
        if monotonic() + job.need_s > until:
            continue  # a shorter one may still fit
        sheet = sheet.begin(job)
        sheet.write(path)
        console.live(f"  {job.name} ...{eta(done_s)}")
        row = take(job)
        sheet = sheet.add(row)
        sheet.write(path)
        console.line(f"  {row}")
        done_s += job.need_s
        if not is_usable():
            return False
    return True


def end_at_eof() -> None:
    """End this process, and all that it has started, when whoever holds its standard input is gone."""
    def wait() -> None:
        while os.read(0, 1):  # not through `sys.stdin`, whose lock Python wants when it ends
            pass
        os.killpg(0, signal.SIGKILL)

    Thread(target=wait, daemon=True).start()
