"""Files whole or not at all, on file systems that cannot flush, too; and a home for a user whom no list names."""

import errno
import os
import warnings
from pathlib import Path

import pytest

from minitx.utils.files import create, ensure_home, expand_home, new_folder, write_atomically


def refuse_flush(monkeypatch: pytest.MonkeyPatch, number: int, folders_alone: bool = False) -> None:
    def fsync(descriptor: int) -> None:
        if not folders_alone or os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
@pytest.mark.parametrize("folders_alone", [True, False])
def test_a_file_system_that_cannot_flush_is_warned_of_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int,
                                                           folders_alone: bool) -> None:
    refuse_flush(monkeypatch, number, folders_alone)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for content in (b"one", b"two"):
            write_atomically(tmp_path / "file", content)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"two"
    assert [str(warning.message) for warning in warned] == [
        f"{tmp_path}: its file system cannot flush to disk ({os.strerror(number)}): a power cut may lose what was "
        "written last; a killed process loses nothing"]


def test_any_other_refusal_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    refuse_flush(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        write_atomically(tmp_path / "file", b"one")
    assert not list(tmp_path.iterdir())


def test_of_two_that_create_a_file_the_second_fails(tmp_path: Path) -> None:
    create(tmp_path / "file", b"one")
    with pytest.raises(FileExistsError):
        create(tmp_path / "file", b"two")
    assert (tmp_path / "file").read_bytes() == b"one"


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user without a home folder; returns where it gets one."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    monkeypatch.setattr("minitx.utils.files.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"minitx-{os.getuid()}"


def test_a_user_without_a_home_folder_gets_one_and_is_told_once(no_home: Path,
                                                                capsys: pytest.CaptureFixture[str]) -> None:
    assert ensure_home() == ensure_home() == no_home
    assert no_home.stat().st_mode & 0o777 == 0o700
    assert os.environ["HOME"] == str(no_home)
    assert capsys.readouterr().err == (
        f"minitx: warning: user {os.getuid()} has no home folder: caches go to {no_home}; HOME names another\n")
    del os.environ["HOME"]
    assert ensure_home() == no_home, "another process has the same"


def test_nobody_can_lay_a_home_folder_for_another(no_home: Path, tmp_path: Path) -> None:
    no_home.symlink_to(tmp_path)
    found = ensure_home()
    assert found not in (no_home, tmp_path)
    assert found.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("path", "expanded"), [
    ("~", "/home/a"), ("~/runs/x", "/home/a/runs/x"), ("runs/~", "runs/~"), ("./~/x", "./~/x"),
    ("~nobody-is-called-so/x", "~nobody-is-called-so/x"), ("", "")])
def test_a_tilde_that_no_shell_has_expanded_is_the_home_folder(path: str, expanded: str,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/a")
    assert expand_home(path) == expanded


def test_a_tilde_of_a_user_without_a_home_folder_is_the_one_it_gets(no_home: Path) -> None:
    assert expand_home("~/x") == f"{no_home}/x"


def test_a_new_folder_is_there_whole(tmp_path: Path) -> None:
    with new_folder(tmp_path / "folder") as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file").write_text("a")
        assert not (tmp_path / "folder").exists()
    assert (tmp_path / "folder" / "inner" / "file").read_text() == "a"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_new_folder_that_was_not_filled_is_not_there(tmp_path: Path) -> None:
    def fill(path: Path) -> None:
        with new_folder(path) as temporary:
            (temporary / "file").write_text("a")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "folder")
    assert not list(tmp_path.iterdir())


def test_a_new_folder_never_replaces_what_came_between(tmp_path: Path) -> None:
    def fill(path: Path) -> None:
        with new_folder(path):
            path.mkdir()
            (path / "file").write_text("other")

    with pytest.raises(OSError, match="not empty"):
        fill(tmp_path / "folder")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "file"]
