"""`minitx runs`: the table of one's own runs, for people and as JSON."""

import json
from pathlib import Path

import pytest
from runs.test_overview import begin, finish

from minitx.cli import main as cli
from minitx.utils.errors import Exit


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with three runs, one of them of a sweep, and a folder that is none."""
    monkeypatch.chdir(tmp_path)
    finish(begin(Path("runs/first")))
    finish(begin(Path("runs/sweep/model=lstm,seed=2"), seed=2), best_valid_bleu=70.0)
    begin(Path("runs/third"), model="transformer")
    Path("runs/notes").mkdir()
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_a_person_sees_a_table_and_what_is_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs"]) == Exit.OK
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split("  ")[0] == "run"
    assert [line.split()[0] for line in lines[1:4]] == ["runs/first", "runs/sweep/model=lstm,seed=2", "runs/third"]
    assert lines[3].split()[-1] == "failed"
    assert "model=transformer" in lines[3]
    assert lines[-1].startswith("valid BLEU: the best while it trained; test BLEU: of test; minutes: of training")
    assert err == "minitx: warning: runs/notes: holds no run\n"


@pytest.mark.usefixtures("folder")
def test_it_is_sorted_and_filtered_and_read_by_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs", "status=finished", "--sort", "valid", "--json"]) == Exit.OK
    found = json.loads(capsys.readouterr().out)
    assert [(run["path"], run["seed"]) for run in found] == [("runs/sweep/model=lstm,seed=2", 2), ("runs/first", 1)]
    assert found[0]["test"] == {"test": 48.5, "minimal_pairs": 40.0}
    assert found[0]["differs_in"] == {}
    assert found[0]["settings"]["optim.lr"] == 0.001
    assert cli.main(["runs", "runs/sweep", "--sort", "seed", "--reverse", "runs/third"]) == Exit.OK
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:3]] == [
        "runs/sweep/model=lstm,seed=2", "runs/third"]
    assert cli.main(["runs", "runs/sweep/model=lstm,seed=2", "seed=7"]) == Exit.OK
    assert capsys.readouterr() == ("", "none of 1 runs matches\n")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("words", "why"), [
    (["runs", "rnus"], "rnus: no such folder; python train.py writes each run into one, in runs/"),
    (["runs", "runs/notes"], "runs/notes: no run there"),
    (["runs", "sede=1"], "sede: none of these runs has such a key; did you mean seed?"),
    (["runs", "--sort", "blue"], "blue: none of these runs has such a key")])
def test_a_slip_is_one_line(words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == Exit.USAGE
    err = capsys.readouterr().err
    assert err.startswith(f"minitx: error: {why}")
    assert err.count("\n") == 1
