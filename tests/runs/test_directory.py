"""The run directory in use: locked, where the file system can; what its disk refuses is a line that says what to do."""

import errno
import fcntl
import os
import sys
import warnings
from pathlib import Path

import pytest

from minitx.runs.directory import held, storage_errors
from minitx.utils.errors import Exit, UserError


def refuse_locks(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_a_run_directory_is_one_process_s_at_a_time(tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(UserError, match="another process is training there") as refused, held(tmp_path):
        pytest.fail("both hold it")
    assert refused.value.code == Exit.STORAGE
    with held(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_warned_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int) -> None:
    refuse_locks(monkeypatch, number)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with held(tmp_path):
            (tmp_path / "result.json").touch()
    assert [str(warning.message) for warning in warned] == [
        f"{tmp_path}: its file system has no locks ({os.strerror(number)}): nothing stops a second process from "
        "training there, so start only one"]


def test_a_system_without_locks_is_warned_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    said = "has no locks .this system has no flock.: nothing stops a second process"
    with pytest.warns(UserWarning, match=said), held(tmp_path):
        (tmp_path / "result.json").touch()


def test_a_lock_that_fails_otherwise_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    refuse_locks(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"), held(tmp_path):
        pytest.fail("it is not held")


@pytest.mark.parametrize(("number", "line"), [
    (errno.ENOSPC, "made/up: cannot be written (No space left on device); what was saved before is whole: make room, "
                   "then repeat the command with run_dir=RUN resume=auto"),
    (errno.EACCES, "made/up: cannot be read or written (Permission denied); what was saved before is whole: permit "
                   "that, then repeat the command with run_dir=RUN resume=auto"),
])
def test_what_the_disk_refuses_says_what_to_do(number: int, line: str) -> None:
    with pytest.raises(UserError) as refused, storage_errors(Path("RUN")):
        raise OSError(number, os.strerror(number), "made/up")
    assert (str(refused.value), refused.value.code) == (line, Exit.STORAGE)


def test_any_other_error_is_ours() -> None:
    with pytest.raises(FileNotFoundError), storage_errors(Path("RUN")):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "made/up")
