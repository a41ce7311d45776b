"""The last lines of a run: what others took of the cores, and what to type next."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from published import write_run

from minitx.config.compose import compose
from minitx.runs.result import Result
from minitx.training.summary import summary

CORES = {"cpu": "A Processor", "cores": 4}


@pytest.mark.parametrize(("found", "taken", "remedy"), [
    ({"other_cpu_pct": 40.0}, "1.6 of 4 cores (40 %)",
     ", and beside them trainer.threads=2 might be"),
    ({"other_cpu_pct": 95.0}, "3.8 of 4 cores (95 %)",
     ", and beside them trainer.threads=1 might be"),
    ({"other_cpu_pct": 6.0}, "0.2 of 4 cores (6 %)", ""),
    ({"other_cpu_pct": 40.0, "threads": 2}, "1.6 of 4 cores (40 %)", ""),
    ({"other_cpu_pct": 40.0, "device": "cuda"}, "1.6 of 4 cores (40 %)", ""),
])
def test_a_disturbed_run_says_so_in_a_plain_line(tmp_path: Path, found: dict[str, Any], taken: str,
                                                 remedy: str) -> None:
    write_run(tmp_path / "run", **{"hardware": CORES, "threads": 4} | found)
    lines = summary(Result.read(tmp_path / "run/result.json"), tmp_path / "run").splitlines()
    assert f"{'other processes':>16}  took {taken}: alone this would be faster{remedy}" in lines
    assert not any("publish" in line for line in lines), "that is for who publishes: `minitx report`, and a suite"


def test_a_quiet_run_says_nothing_of_others(tmp_path: Path) -> None:
    write_run(tmp_path / "run", other_cpu_pct=5.0)
    assert "other processes" not in summary(Result.read(tmp_path / "run/result.json"), tmp_path / "run")


def test_what_to_type_next_is_quoted_as_a_shell_needs_it(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "Anna's [1] läufe", status="interrupted", stop_reason="interrupted")
    lines = summary(Result.read(run_dir / "result.json"), run_dir).splitlines()
    told = {line[:16].strip(): shlex.split(line[18:]) for line in lines if line[:16].strip() in ("try it", "go on")}
    assert told["try it"] == ["minitx", "translate", str(run_dir)]
    assert compose(told["go on"][-2:]).run_dir == str(run_dir)
