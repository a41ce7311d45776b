"""The run directory: opened with its settings written down, locked, cut back to a checkpoint; what its disk refuses."""

import errno
import hashlib
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from time import sleep
from typing import Any, TextIO

from minitx.config import saved
from minitx.config.fields import text_word
from minitx.config.schema import Config, as_dict
from minitx.runs.compatibility import init_from, refuse_other_settings
from minitx.runs.result import Result
from minitx.utils.console import Console, warn_once
from minitx.utils.errors import Exit, UserError
from minitx.utils.files import create, write_atomically

RUNS = Path("runs")
LONGEST_NAME = 120  # bytes of a folder's name; file systems take 255
NEEDS_QUOTES = r"[^\w.,=+-]+"
FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def open_run_dir(cfg: Config) -> tuple[Path, bool]:
    """Make the run directory, or reopen it to resume. Returns it, and whether it is new; it then holds `config.yaml`.

    Errors: `UserError` (`Exit.STORAGE`) if it cannot be written or holds something else, or another run begins there
    at the same time; (`Exit.USAGE`) if the run to be resumed was begun with other settings.
    """
    run_dir = RUNS if cfg.run_dir is None else Path(cfg.run_dir)
    with _refusals(run_dir):
        run_dir = _new_run_dir(cfg) if cfg.run_dir is None else run_dir
        run_dir.mkdir(parents=True, exist_ok=True)
        if cfg.resume == "auto" and _was_killed_at_once(run_dir):
            (run_dir / saved.NAME).unlink()
        if is_new := not check_run_dir(cfg):
            create(run_dir / saved.NAME, saved.to_yaml(replace(cfg, run_dir=str(run_dir))))
    return run_dir, is_new


def check_run_dir(cfg: Config) -> bool:
    """Tell whether the run directory holds a run to resume; change nothing. Errors: as `open_run_dir`."""
    if cfg.run_dir is None:
        return False
    run_dir = Path(cfg.run_dir)
    with _refusals(run_dir):
        if not run_dir.exists() or not any(run_dir.iterdir()):
            return False
        if cfg.resume == "never":
            raise UserError(f"run_dir={run_dir}: is not empty; name a new folder, or add resume=auto", Exit.STORAGE)
        if _was_killed_at_once(run_dir):
            return False
        if not (run_dir / saved.NAME).is_file():
            raise UserError(f"run_dir={run_dir}: no run to resume, it has no {saved.NAME}", Exit.STORAGE)
    refuse_other_settings(as_dict(cfg), saved.read_settings(run_dir), run_dir)
    return True


@contextmanager
def _refusals(run_dir: Path) -> Iterator[None]:
    """Turn what the file system refuses into a `UserError`."""
    try:
        yield
    except OSError as error:
        is_taken = isinstance(error, FileExistsError)
        why = ("is a file, not a folder" if os.path.isfile(run_dir) else
               "another run began here just now" if is_taken and run_dir.is_dir() else
               f"{error.filename} is a link that leads nowhere" if is_taken else f"cannot be used: {error.strerror}")
        raise UserError(f"run_dir={run_dir}: {why}", Exit.STORAGE) from error


def remove_run_dir(run_dir: Path) -> None:
    """Remove a run directory. Of a link to one only the content goes; what cannot be removed stays."""
    with suppress(OSError):
        for path in run_dir.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        run_dir.rmdir()


def _new_run_dir(cfg: Config) -> Path:
    """Make runs/TIME-DATA-MODEL (or TIME-EXPERIMENT), with a number added if two runs begin in one second."""
    what = cfg.choices.experiment or f"{cfg.choices.data}-{cfg.choices.model}"
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{what}"
    RUNS.mkdir(exist_ok=True)
    for number in range(1, 1000):
        run_dir = RUNS / (name if number == 1 else f"{name}-{number}")
        try:
            run_dir.mkdir()
        except FileExistsError:
            continue
        return run_dir
    raise UserError(f"run_dir=null: {RUNS / name} and 999 more exist", Exit.STORAGE)


def job_name(words: Sequence[str]) -> str:
    """Name the run directory of one job of a sweep by words like key=value: `model=lstm,seed=2`.

    Characters of values that a shell would take for its own become `_`, brackets go. A name in which more than these
    was changed, or that is too long, ends in a digest, for another job's may become the same.
    """
    plain = ",".join(re.sub(r"[\[\]]", "", word.lstrip("+~")) for word in words) or "run"
    pairs = [word.lstrip("+~").partition("=") for word in words]
    name = ",".join(f"{key}={re.sub(NEEDS_QUOTES, '_', value).strip('_')}" for key, _, value in pairs) or "run"
    if name == plain and len(name.encode()) <= LONGEST_NAME:
        return name
    start = name.encode()[:LONGEST_NAME - 9].decode(errors="ignore")
    return f"{start}-{hashlib.sha256(' '.join(words).encode()).hexdigest()[:8]}"


def _was_killed_at_once(run_dir: Path) -> bool:
    """Tell whether all that is there is an empty config.yaml: a run that was killed while it began."""
    return [(path.name, path.stat().st_size) for path in run_dir.iterdir()] == [(saved.NAME, 0)]


# --- in use


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """Lock the run directory against a second process; the kernel unlocks it however this one ends.

    Errors: `UserError` if another process holds it. A system or file system without locks is no error, but is warned
    of.
    """
    with (run_dir / ".lock").open("w") as lock:
        try:
            _lock_patiently(lock)
        except BlockingIOError:
            raise UserError(f"run_dir={run_dir}: another process is training there", Exit.STORAGE) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            warn_once(f"{run_dir}: its file system has no locks ({error.strerror}): nothing stops a second process "
                      "from training there, so start only one")
        yield


def is_held(run_dir: Path) -> bool:
    """Tell whether a process is training in a run directory, as far as its file system can say."""
    try:
        with (run_dir / ".lock").open() as lock:
            _lock(lock, shared=True)
    except BlockingIOError:
        return True
    except OSError:  # no such file, no locks there, not ours to read
        pass
    return False


def _lock_patiently(file: TextIO) -> None:
    """Lock an open file, trying for a moment: `is_held` holds it while it looks. Errors: as of `_lock`"""
    for _ in range(3):
        with suppress(BlockingIOError):
            _lock(file)
            return
        sleep(0.1)
    _lock(file)


def _lock(file: TextIO, shared: bool = False) -> None:
    """Lock an open file. Errors: OSError; BlockingIOError where another process holds it"""
    try:
        import fcntl
    except ImportError:  # Windows
        raise OSError(errno.ENOSYS, "this system has no flock") from None
    fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


@contextmanager
def storage_errors(run_dir: Path) -> Iterator[None]:
    """Tell a full or forbidden disk from an error of ours."""
    try:
        yield
    except OSError as error:
        if error.errno not in (*FULL, *FORBIDDEN):
            raise
        what, remedy = ("written", "make room") if error.errno in FULL else ("read or written", "permit that")
        raise UserError(f"{error.filename or run_dir}: cannot be {what} ({error.strerror}); what was saved before is "
                        f"whole: {remedy}, then repeat the command with "
                        f"{shlex.quote(text_word('run_dir', str(run_dir)))} resume=auto",
                        Exit.STORAGE) from error


def is_finished(cfg: Config, run_dir: Path, console: Console) -> bool:
    """Tell whether nothing is left to do in a run directory. Errors: `UserError` if more is asked than can be done."""
    done = Result.read(run_dir / "result.json") if (run_dir / "result.json").exists() else None
    if done is not None and done.status == "finished":
        if done.stop_reason == "max_steps" and (cfg.trainer.max_steps or done.steps) > done.steps:
            raise UserError(f"trainer.max_steps={cfg.trainer.max_steps}: {run_dir} is finished, after the "
                            f"{done.steps:,} steps it decayed towards; to train on, start a new run with "
                            f"{init_from(run_dir)}")
        console.line(f"{run_dir}: this run is finished, see {run_dir / 'result.json'}; to train on, start a new "
                     f"run with {init_from(run_dir)}")
        return True
    if (run_dir / "model.safetensors").exists() and not (run_dir / "metrics.jsonl").exists():
        raise UserError(f"run_dir={run_dir}: holds weights that were not trained there, and would be overwritten; "
                        f"to train on from them: {init_from(run_dir)} and another run_dir", Exit.STORAGE)
    return False


def truncate_metrics(path: Path, step: int) -> list[dict[str, Any]]:
    """Cut metrics.jsonl back to what the checkpoint knows, and return that; the resumed run writes the rest again."""
    kept: list[tuple[bytes, dict[str, Any]]] = []
    if path.exists():
        for line in path.read_bytes().split(b"\n")[:-1]:
            try:
                entry = json.loads(line)
            except ValueError:
                break  # a power cut left it half written
            if entry["step"] <= step and entry["event"] != "mean":  # that of checkpoints comes after all updates
                kept.append((line, entry))
        write_atomically(path, b"".join(line + b"\n" for line, _ in kept))
    return [entry for _, entry in kept]
