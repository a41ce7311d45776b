"""Files that appear whole or not at all, and what a path that cannot be used is called."""

import errno
import os
from pathlib import Path

import pytest

from minitx.cli.streams import created, exit_of
from minitx.utils.errors import Exit, UserError


@pytest.mark.parametrize(("number", "code"), [
    (errno.ENOENT, Exit.USAGE), (errno.ENOTDIR, Exit.USAGE), (errno.EISDIR, Exit.USAGE),
    (errno.EACCES, Exit.STORAGE), (errno.ENOSPC, Exit.STORAGE), (errno.EROFS, Exit.STORAGE)])
def test_a_wrong_path_is_the_users_and_all_else_the_storages(number: int, code: Exit, tmp_path: Path) -> None:
    assert exit_of(OSError(number, os.strerror(number))) is code
    with pytest.raises(UserError) as slip, created(tmp_path / "out"):
        raise OSError(number, os.strerror(number))
    assert slip.value.code is code
    assert os.listdir(tmp_path) == []


def test_an_error_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error, created(tmp_path / "out"):
        Path("no/such").read_bytes()
    assert error.value.filename == "no/such"
    assert os.listdir(tmp_path) == []


def test_a_file_is_replaced_at_the_end_and_not_before(tmp_path: Path) -> None:
    place = tmp_path / "out"
    place.write_text("old")
    with created(place) as sink:
        sink.write(b"new")
        sink.flush()
        assert place.read_text() == "old"
    assert place.read_text() == "new"
