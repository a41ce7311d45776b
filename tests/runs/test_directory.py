"""The run directory in use: locked, where the file system can; what its disk refuses is a line that says what to do."""

import errno
import fcntl
import os
import shlex
import sys
import warnings
from pathlib import Path

import pytest

from minitx.config.compose import compose
from minitx.runs.directory import held, is_held, job_name, remove_run_dir, storage_errors
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


@pytest.mark.parametrize(("words", "name"), [
    (["model=lstm", "seed=2"], "model=lstm,seed=2"),
    (["+optim.lr=1e-3"], "optim.lr=1e-3"),
    (["data.test_sets=[test, other]", "data.dir=my texts/'a'"],
     "data.test_sets=test,_other,data.dir=my_texts_a-66a79700"),
    ([], "run")])
def test_a_job_is_named_by_its_words(words: list[str], name: str) -> None:
    assert job_name(words) == name


def test_a_name_is_no_longer_than_a_file_system_takes_and_still_its_own() -> None:
    long = [job_name([f"data.dir={'ü' * 300}{n}"]) for n in range(2)]
    assert long[0] != long[1]
    assert all(len(name.encode()) <= 255 for name in long)


def test_whether_someone_trains_there_is_seen_without_holding_it(tmp_path: Path) -> None:
    assert not is_held(tmp_path), "no run"
    with held(tmp_path):
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
    with held(tmp_path):
        pass


def test_where_there_are_no_locks_nobody_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    refuse_locks(monkeypatch, errno.ENOLCK)
    assert not is_held(tmp_path)


def test_what_is_to_be_repeated_is_quoted_as_a_shell_and_hydra_need_it() -> None:
    with pytest.raises(UserError, match="No space left") as refused, storage_errors(Path("my run's")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    words = shlex.split(str(refused.value).rpartition(" with ")[2])
    assert words[1] == "resume=auto"
    assert compose(words).run_dir == "my run's"


def test_a_run_directory_is_removed_and_a_link_to_one_is_emptied(tmp_path: Path) -> None:
    """A link may be the user's way to another disk."""
    link = tmp_path / "link"
    for name in ("run", "disk"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "config.yaml").touch()
    link.symlink_to(tmp_path / "disk")
    for run_dir in (tmp_path / "run", link, tmp_path / "none"):
        remove_run_dir(run_dir)
    assert sorted(os.listdir(tmp_path)) == ["disk", "link"]
    assert os.listdir(link) == []
