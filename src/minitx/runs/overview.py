"""Folders of runs as they are found: the settings of each run, how far it is, and what it scored.

Nothing is required of a run but settings that can be read: it may be going on, be broken off, or be of another version.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

from minitx.config import saved
from minitx.config.fields import flatten
from minitx.runs.directory import is_held
from minitx.runs.records import read_records
from minitx.runs.result import STATUSES
from minitx.utils.checkout import TRAIN
from minitx.utils.console import Console
from minitx.utils.errors import UserError
from minitx.utils.progress import Progress

DEPTH = 3  # folders from the one that is asked for down to a run: those of a sweep or a suite lie in one of their own
CHOICES = ("experiment", "data", "model")  # the options by which a run's settings were chosen
STARTS_S = 60  # a run writes its settings, and takes seconds until it locks its directory
STATUS_OF = {"terminated": "interrupted"}  # a result's status, where the table has another word for it
Point = tuple[int, float, float | None, float]  # of a validation: step, seconds of training, loss, BLEU


@dataclass(frozen=True)
class RunOverview:
    """What is known of a run: its figures are None, and `test` is empty, as long as there are none.

    settings: by dotted key, with its choices as `experiment`, `data` and `model`; test: BLEU by test set.
    status: finished, running, interrupted (`resume=auto` goes on with it), diverged, or failed (nothing was saved).
    """

    path: Path
    settings: Mapping[str, Any]
    status: str
    steps: int | None
    train_s: float | None
    valid_bleu: float | None
    test: Mapping[str, float]

    @property
    def seed(self) -> int | None:
        """Return the seed of weights, order and dropout."""
        return self.settings.get("seed")

    @property
    def test_bleu(self) -> float | None:
        """Return the BLEU of the first test set."""
        return next(iter(self.test.values()), None)

    @property
    def minutes(self) -> float | None:
        """Return the minutes of training, validation not counted."""
        return None if self.train_s is None else self.train_s / 60


# --- found and read


def find_runs(folders: Sequence[Path], console: Console) -> tuple[list[RunOverview], list[str]]:
    """Read every run in these folders, which may be runs themselves. --> the runs; what could not be read, and why

    Errors: `UserError` for a folder that is missing, or where none holds a run.
    """
    places, notes = list[Path](), list[str]()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; {TRAIN} writes each run into one, in runs/")
        within = [folder] if _is_run(folder) else _folders(folder)
        for child in within:
            found = list(_run_dirs(child, DEPTH))
            places += found
            notes += [] if found else [f"{child}: holds no run"]
    runs, progress = list[RunOverview](), Progress(console, len(places))
    for place in dict.fromkeys(places):
        try:
            runs.append(read_run(place))
            notes += _faults(place)
        except (UserError, OSError) as error:  # or one that is removed meanwhile
            notes.append(str(error))
        progress(f"reading {place}")
    console.clear()
    if not runs:
        raise UserError(f"{', '.join(map(str, folders))}: no run there" + (f" ({'; '.join(notes)})" if notes else ""))
    return runs, notes


def _run_dirs(folder: Path, depth: int) -> Iterator[Path]:
    """Yield the runs in a folder, and in folders in it; there are none within a run."""
    if _is_run(folder):
        yield folder
    elif depth > 1:
        for child in _folders(folder):
            yield from _run_dirs(child, depth - 1)


def _is_run(folder: Path) -> bool:
    return os.path.isfile(folder / saved.NAME)  # False too in a folder that may not be entered


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:  # not ours to read
        return []


def read_run(run_dir: Path) -> RunOverview:
    """Read what is known of a run. Errors: `UserError` if its settings are missing, damaged, or not those of a run."""
    values = saved.read_settings(run_dir)
    chosen = values.get("choices")
    if not isinstance(chosen, Mapping) or not isinstance(values.get("model"), Mapping):
        raise UserError(f"{run_dir}: its {saved.NAME} is not that of a run")
    settings = {name: chosen.get(name) for name in CHOICES}
    settings |= flatten({name: value for name, value in values.items() if name != "choices"})
    result = _result(run_dir)
    records = [] if result.get("status") == "finished" else read_records(run_dir)
    last = records[-1] if records else {}  # newer than a result, where a run that was interrupted has gone on
    best = max((bleu for *_, bleu in _curve(records)), default=None)
    scores = {name: _number(_mapping(score).get("bleu")) for name, score in _mapping(result.get("test")).items()}
    return RunOverview(
        run_dir, settings, _status(run_dir, result.get("status")), _number(last.get("step", result.get("steps"))),
        _number(last.get("train_s", result.get("train_s"))),
        _number(result.get("best_valid_bleu") if best is None else best),
        {name: bleu for name, bleu in scores.items() if bleu is not None})


def _faults(run_dir: Path) -> list[str]:
    path = run_dir / "result.json"
    return [f"{path}: damaged; the run is shown without it"] if path.is_file() and not _result(run_dir) else []


def _status(run_dir: Path, result: Any) -> str:
    if result == "finished":
        return "finished"
    if is_held(run_dir):
        return "running"
    if result in STATUSES:
        return STATUS_OF.get(result, str(result))
    if (run_dir / "model.safetensors").exists() and not (run_dir / "metrics.jsonl").exists():
        return "finished"  # of weights that were made elsewhere, such as a mean of checkpoints
    if any(run_dir.glob("checkpoints/step-*")):
        return "interrupted"
    age_s = time() - (run_dir / saved.NAME).stat().st_mtime
    return "running" if 0 <= age_s < STARTS_S and not (run_dir / ".lock").exists() else "failed"


def _result(run_dir: Path) -> Mapping[str, Any]:
    """Read result.json as it is; nothing of one that is missing, damaged or of another kind."""
    try:
        return _mapping(json.loads((run_dir / "result.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def read_curve(run_dir: Path) -> list[Point]:
    """Return a run's validations, in their order."""
    return _curve(read_records(run_dir))


def _curve(records: Sequence[Mapping[str, Any]]) -> list[Point]:
    return [(record["step"], record["train_s"], _number(record.get("loss")), record["bleu"]) for record in records
            if record.get("event") == "valid" and _number(record.get("bleu")) is not None
            and _number(record.get("train_s")) is not None]
