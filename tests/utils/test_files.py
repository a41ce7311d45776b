"""Files whole or not at all, on file systems that cannot flush, too."""

import errno
import os
import warnings
from pathlib import Path

import pytest

from minitx.utils.files import create, write_atomically


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
