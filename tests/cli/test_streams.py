"""Files that appear whole or not at all, and what a path that cannot be used is called."""

import errno
import os
import sys
from pathlib import Path

import pytest

from minitx.cli.main import main
from minitx.cli.streams import created, exit_of, reader_may_leave
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


# --- standard output


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output is a pipe whose reader has left."""
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "stdout", os.fdopen(writer, "w"))


@pytest.mark.usefixtures("left")
@pytest.mark.parametrize("text", ["short", "long" * 50_000])
def test_a_reader_who_leaves_ends_the_output_quietly(text: str) -> None:
    with reader_may_leave():
        print(text)
    sys.stdout.flush()  # as Python does at exit


@pytest.mark.usefixtures("left")
def test_the_exit_code_is_the_command_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: object) -> int:
        print("a table")
        return 3

    monkeypatch.setattr("minitx.cli.compare.run", run)
    assert main(["compare", "one", "other"]) == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_output_that_a_full_disk_refuses_gets_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as disk:
        monkeypatch.setattr(sys, "stdout", disk)
        with pytest.raises(UserError, match="output: cannot be written: No space left") as full, reader_may_leave():
            print("short")
        assert full.value.code == Exit.STORAGE
