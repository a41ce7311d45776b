"""`minitx study`: a table, a file and a figure of what was measured, with verdicts; a mistake costs one line."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from minitx.cli import main as cli
from minitx.cli import study
from minitx.cli.prepare import compose_families
from minitx.cli.study import STUDIES, verdicts
from minitx.experiments.reports.study_plots import FIGURES
from minitx.experiments.studies import (
    common,
    decoding,
    gpu,
    gradients,
    lengths,
    memory,
    retention,
    scaling_law,
    scan,
)
from minitx.utils.errors import Exit

MODULES = {"lengths": lengths, "memory": memory, "decoding": decoding, "gradients": gradients,
           "retention": retention, "scaling-law": scaling_law, "scan": scan, "gpu": gpu}
LESSON = common.Lesson(width=16, longest=4, sentences=8, updates=2, seeds=1)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, one thread, a process that is not the command's own, and studies of a moment."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # so that it is put back afterwards
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("this process is not the command's own"))
    monkeypatch.chdir(tmp_path)
    tiny = lengths.Sizes(d_model=16, shortest=8, longest=16, repeats=1)
    monkeypatch.setattr(lengths, "SIZES", {"smoke": tiny})
    monkeypatch.setattr(gradients, "SIZES", {"smoke": gradients.Sizes(LESSON, (1, 2, 4), sentences=2)})


def test_every_study_has_a_module_a_figure_and_both_sizes() -> None:
    assert STUDIES.keys() == FIGURES.keys() == MODULES.keys()
    for name in ("memory", "decoding", "retention", "scaling-law", "scan", "gpu"):
        assert MODULES[name].SIZES.keys() == {"smoke", "full"}


def test_ways_to_compute_that_only_a_cpu_has_are_compared_on_one() -> None:
    """A GPU would compute the stored weights as all others, and call them stored."""
    for cfg in compose_families([*STUDIES["memory"].overrides]).values():
        assert cfg.trainer.accelerator == "cpu"


@pytest.mark.parametrize("name", ["lengths", pytest.param("gradients", marks=pytest.mark.slow)])
def test_what_was_found_is_shown_stored_and_drawn(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["study", name, "-o", "found.json", "--plot", "found.svg", "--seed", "3"]) == Exit.OK
    found = json.loads(Path("found.json").read_text())
    assert (found["study"], found["size"], found["conditions"]["seed"]) == (name, "smoke", 3)
    assert Path("found.svg").read_bytes() == FIGURES[name](found)
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert lines[0].startswith(f"{name}, size smoke: ")
    assert sum(line.startswith(("holds  ", "does not hold  ", "not decided  ")) for line in lines) == len(
        found["claims"])
    assert "Traceback" not in err
    assert {path.name for path in Path().iterdir()} == {"found.json", "found.svg"}


@pytest.mark.slow
def test_what_was_measured_is_stored_though_what_follows_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lengths, "table", lambda found: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["study", "lengths", "-o", "found.json", "--plot", "found.svg"])
    assert json.loads(Path("found.json").read_text())["study"] == "lengths"
    assert [path.name for path in Path().iterdir()] == ["found.json"]


def test_a_program_reads_json(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["study", "lengths", "--json"]) == Exit.OK
    assert json.loads(capfd.readouterr().out)["study"] == "lengths"
    assert not list(Path().iterdir())


@pytest.mark.parametrize(("mistake", "message"), [
    (["length"], "length: no such study; did you mean lengths? (lengths, memory, decoding, gradients, "),
    (["lengths", "--size", "small"], "invalid choice: 'small'"), (["lengths", "--plot", "a.png"], "ends in .svg"),
    (["lengths", "--seed", "one"], "invalid int value: 'one'"), (["lengths", "--seed", "-1"], "seed=-1: must be"),
    (["lengths", "-o", "no/such.json"], "no/such.json"), ([], "NAME")])
def test_a_slip_costs_no_measurement(mistake: list[str], message: str, monkeypatch: pytest.MonkeyPatch,
                                     capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(common, "run_study", lambda *_: pytest.fail("measured"))
    assert cli.main(["study", *mistake]) == Exit.USAGE
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


def test_a_figure_without_matplotlib_is_refused_at_once(monkeypatch: pytest.MonkeyPatch,
                                                        capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert cli.main(["study", "lengths", "--plot", "a.svg"]) == Exit.USAGE
    assert ".[report]" in capfd.readouterr().err
    assert not list(Path().iterdir())


def claim(holds: bool | None) -> dict[str, Any]:
    return {"claim": "it grows", "expected": "at least 1", "measured": "2", "holds": holds, "why": "because"}


@pytest.mark.parametrize(("holds", "word"), [(True, "holds"), (False, "does not hold"), (None, "not decided")])
def test_a_verdict_is_a_word_and_its_reason(holds: bool | None, word: str) -> None:
    first, second = verdicts([claim(holds)])
    assert first.split("  ")[0] == word
    assert first.endswith("it grows")
    assert second.strip() == "asked at least 1; measured 2; because"


def test_others_that_took_the_processor_are_told() -> None:
    conditions = {"device": "cpu", "threads": 1, "precision": "32-true", "seed": 1, "took_s": 3.0}
    for other, n_lines in ((1.0, 1), (50.0, 2), (None, 1)):
        found = {"study": "lengths", "size": "smoke", "conditions": conditions | {"other_cpu_pct": other}}
        assert len(list(study.header(found))) == n_lines
