"""`minitx compare`: experiments and runs side by side."""

import json
from pathlib import Path

import pytest
from published import write_run

from minitx import cli
from minitx.errors import Exit
from minitx.suites.ledger import gather, write


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run")


def test_a_run_and_its_row_are_the_same_system(run_dir: Path, tmp_path: Path,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    write(gather(run_dir), tmp_path)
    assert cli.main(["compare", "synthetic_lstm", str(run_dir), "--ledger", str(tmp_path)]) == Exit.OK
    out = capsys.readouterr().out
    assert "test, 40 sentences, 1 seed and 1 seed" in out
    assert "difference +0.00, 95 % interval +0.00 to +0.00" in out
    assert "not significant: p = 1.0000 (paired bootstrap), 1.0000 (approximate randomisation)" in out
    assert "one seed says nothing of what another would do" in out
    assert cli.main(["compare", "synthetic_lstm", str(run_dir), "--ledger", str(tmp_path), "--json"]) == Exit.OK
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"test", "minimal_pairs"}
    assert found["test"]["verdict"] == "not significant"


def test_a_name_that_is_nothing_is_one_line(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(gather(run_dir), tmp_path)
    assert cli.main(["compare", "synthetic_lstn", str(run_dir), "--ledger", str(tmp_path)]) == Exit.USAGE
    err = capsys.readouterr().err
    assert "neither a run directory with scores nor an experiment" in err
    assert "did you mean synthetic_lstm?" in err
    assert err.count("\n") == 1


def test_other_sentences_are_refused(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    other.mkdir()
    statistics = json.loads((run_dir / "sentence_statistics.json").read_text())
    statistics["sets"]["test"][0][1] += 1
    (other / "sentence_statistics.json").write_text(json.dumps(statistics))
    assert cli.main(["compare", str(run_dir), str(other)]) == Exit.USAGE
    assert "test: the systems were not scored on the same sentences" in capsys.readouterr().err
    statistics["sets"] = {"another": statistics["sets"]["test"]}
    (other / "sentence_statistics.json").write_text(json.dumps(statistics))
    assert cli.main(["compare", str(run_dir), str(other)]) == Exit.USAGE
    assert "no test set in common" in capsys.readouterr().err
