"""`minitx plot`: the curves of runs as a picture."""

import json
import sys
from pathlib import Path

import pytest
from runs.test_overview import VALID, begin, learn

from minitx.cli import main as cli
from minitx.utils.errors import Exit


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three runs, two of them of one system, and one that was not validated yet."""
    monkeypatch.chdir(tmp_path)
    for name, seed, model in (("a1", 1, "lstm"), ("a2", 2, "lstm"), ("b1", 1, "transformer")):
        learn(begin(Path("runs", name), seed, model),
              *(json.dumps(VALID | {"step": step, "train_s": step / 2.0}) for step in (10, 20)))
    begin(Path("runs/new"))
    return Path("runs")


def test_runs_become_a_picture_and_those_without_a_curve_are_named(runs: Path,
                                                                capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plot", str(runs)]) == Exit.OK
    assert capsys.readouterr() == (
        "curves.png: written, of lstm, transformer\n",
        "minitx: warning: runs/new: was not validated yet, so there is nothing to draw of it\n")
    assert Path("curves.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main(["plot", "runs/a1", "runs/b1", "-o", "two.svg"]) == Exit.OK
    assert b"BLEU by minutes of training" in Path("two.svg").read_bytes()


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(("words", "why"), [
    (["runs/new"], "runs/new: no run was validated yet; trainer.valid_every_n_steps says when that happens"),
    (["runs/a1", "-o", "a.pdf"], "--output=a.pdf: draws SVG and PNG; name a file that ends in .svg or .png"),
    (["runs/c"], "runs/c: no such folder"),
    (["runs/a1", "-o", "no/such.png"], "no/such.png: cannot be written: No such file or directory")])
def test_a_slip_is_one_line_and_nothing_is_written(words: list[str], why: str,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plot", *words]) == Exit.USAGE
    assert f"minitx: error: {why}" in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["runs"]


@pytest.mark.usefixtures("runs")
def test_without_matplotlib_one_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch,
                                                            capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert cli.main(["plot", "runs/a1"]) == Exit.USAGE
    assert capsys.readouterr().err.count("\n") == 1
