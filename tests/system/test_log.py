"""The real command where nobody can read its log: it trains to the end, and its exit code says how that went."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from trials import command

from minitx.runs.result import Result

STUB = """
import sys, types
run = types.ModuleType("minitx.training.train")
def train(cfg):
    for _ in range(3):
        print("said " * 5000, flush=True)
        print("said " * 5000, file=sys.stderr)
    with open(f"trained-{cfg.seed}", "w"):
        return 3 if cfg.seed == 13 else 0
run.train = train
sys.modules["minitx.training.train"] = run
from minitx.cli.train import main
main()
"""


def piped_to_head(words: list[str]) -> int:
    """`2>&1 | head -1`"""
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    return process.wait(300)


def in_a_terminal_that_closes(words: list[str]) -> int:
    """As after `disown`: no signal comes, but every write fails with EIO."""
    terminal, inside = os.openpty()
    process = subprocess.Popen(words, stdin=inside, stdout=inside, stderr=inside)
    os.close(inside)
    os.read(terminal, 1)
    os.close(terminal)
    return process.wait(300)


def closed(words: list[str]) -> int:
    """`2>&-`"""
    return subprocess.run(["bash", "-c", '"$@" 2>&-', "bash", *words], timeout=300).returncode


def full_disk(words: list[str]) -> int:
    """`> log 2>&1` on a full disk."""
    with open("/dev/full", "wb") as log:
        return subprocess.run(words, stdout=log, stderr=log, timeout=300).returncode


LOGS = [piped_to_head, in_a_terminal_that_closes, closed, full_disk]


@pytest.mark.slow
@pytest.mark.parametrize("run", LOGS)
def test_a_training_whose_log_cannot_be_written_finishes(run: Callable[[list[str]], int], text: Path,
                                                         tmp_path: Path) -> None:
    assert run(command(text, tmp_path / "run", "trainer.max_steps=10")) == 0
    assert Result.read(tmp_path / "run/result.json").status == "finished"


@pytest.mark.slow
@pytest.mark.parametrize("run", LOGS)
def test_a_sweep_whose_log_cannot_be_written_goes_on_and_its_exit_code_is_its_jobs(
        run: Callable[[list[str]], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINITX_ALLOCATOR", "as it is")
    Path("stub.py").write_text(STUB)
    assert run([sys.executable, "stub.py", "--multirun", "seed=13,1"]) == 3
    assert sorted(path.name for path in tmp_path.glob("trained-*")) == ["trained-1", "trained-13"]


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--help"], ["--cfg", "job"]])
def test_a_reader_of_help_who_leaves_is_no_error(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "stub.py").write_text(STUB)
    script = '"$@" | true; exit ${PIPESTATUS[0]}'
    done = subprocess.run(["bash", "-c", script, "bash", sys.executable, str(tmp_path / "stub.py"), *words],
                          stderr=subprocess.PIPE, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
