"""What a person sees is never essential: a log that cannot be written ends nothing, and changes no exit code."""

import io
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import pytest

from minitx.utils.console import Console, duration, notify, show_warnings, warn_once

ROOT = Path(__file__).resolve().parents[2]


def left_by_its_reader() -> TextIO:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def closed_terminal() -> TextIO:
    terminal, inside = os.openpty()
    os.close(terminal)
    return os.fdopen(inside, "w")


def full_disk() -> TextIO:
    return open("/dev/full", "w")


def closed() -> TextIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [left_by_its_reader, closed_terminal, full_disk, closed])
def test_what_cannot_be_written_is_lost(stream: Callable[[], TextIO]) -> None:
    console = Console(stream(), every_s=0.0)
    console.terminal = True  # the hardest case: the live line is wiped, too
    for _ in range(3):
        console.line("x" * 10_000)
        console.warn("careful")
        console.live("step 1")
        console.clear()
    if console.stream is not None and not console.stream.closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), console.stream.fileno())  # for its last flush, in this very process


def test_a_process_without_a_log_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    console = Console()
    console.line("nobody reads this")
    assert not console.terminal


CHATTY = """
import logging, sys, warnings
from minitx.utils.console import Console, ignore_write_errors
ignore_write_errors("stdout", "stderr")
for _ in range(3):
    Console().line("ours" * 5000)
    print("a library's" * 5000)
    print("a library's" * 5000, file=sys.stderr)
    warnings.warn("careful" * 5000)
    logging.warning("careful" * 5000)
with open(sys.argv[1], "w") as file:
    assert file.fileno() > 2, "it would get what is meant for the log"
sys.exit(7)
"""


@pytest.mark.parametrize("streams", ["2>&-", "<&- >&- 2>&-", ">/dev/full 2>&1", "2>&1 | true"])
def test_nobody_s_log_ends_a_process_or_changes_its_exit_code(streams: str, tmp_path: Path) -> None:
    script = f'"$0" -c "$1" "$2" {streams}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", script, sys.executable, CHATTY, str(tmp_path / "file")],
                          env=os.environ | {"PYTHONPATH": str(ROOT / "src")})
    assert done.returncode == 7


def test_a_stream_that_still_has_a_reader_gets_every_word(tmp_path: Path) -> None:
    program = ("import sys\nfrom minitx.utils.console import Console, ignore_write_errors\nprint('one')\n"
               "ignore_write_errors('stdout', 'stderr')\nignore_write_errors('stdout')\nprint('two \u00e9')\n"
               "Console().line('three')\nassert sys.stdout.encoding == 'utf-8'\n1 / 0")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, encoding="utf-8",
                          env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONUTF8": "1"})
    assert done.stdout == "one\ntwo \u00e9\n"
    assert done.stderr.startswith("three\nTraceback")
    assert "ZeroDivisionError" in done.stderr


def test_warnings_are_lines_of_the_console() -> None:
    console = Console(io.StringIO())
    with show_warnings(console):
        warnings.warn("the disk is slow", stacklevel=1)
    assert isinstance(console.stream, io.StringIO)
    assert console.stream.getvalue() == "minitx: warning: the disk is slow\n"


def test_a_notice_is_no_error_even_where_warnings_are() -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("error")
        notify("the disk is slow", stacklevel=1)
    assert [(str(one.message), one.filename) for one in warned] == [("the disk is slow", __file__)]
    console = Console(io.StringIO())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with show_warnings(console):
            notify("the disk is slow")
            with pytest.raises(UserWarning, match="of another"):
                warnings.warn("of another library", stacklevel=1)
    assert isinstance(console.stream, io.StringIO)
    assert console.stream.getvalue() == "minitx: warning: the disk is slow\n"
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("ignore")
        notify("the disk is slow")
    assert not warned


def test_what_holds_for_the_whole_process_is_warned_of_once(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for _ in range(2):
            warn_once(f"{tmp_path} is slow")
    assert [str(warning.message) for warning in warned] == [f"{tmp_path} is slow"]


@pytest.mark.parametrize(("seconds", "text"), [(-1, "0s"), (59.4, "59s"), (59.6, "1m00s"), (185, "3m05s"),
                                               (3599.6, "1h00m"), (7650, "2h07m")])
def test_seconds_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
