"""`minitx compare`: experiments and runs side by side."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from published import write_run

from minitx.cli import main as cli
from minitx.evaluation.metrics import SENTENCE_COLUMNS
from minitx.experiments.reports.results import make_row, write_row
from minitx.utils.errors import Exit


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run")


def test_a_run_and_its_row_are_the_same_system(run_dir: Path, tmp_path: Path,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    write_row(make_row(run_dir), tmp_path)
    assert cli.main(["compare", "synthetic_lstm", str(run_dir), "--ledger", str(tmp_path)]) == Exit.OK
    out = capsys.readouterr().out
    assert "test, 40 sentences, 1 seed and 1 seed" in out
    assert "difference +0.00, 95 % interval +0.00 to +0.00" in out
    assert "p 1.0000 by paired bootstrap, 1.0000 by approximate randomisation" in out
    assert "not significant: the outputs score alike, sentence by sentence" in out
    assert "one seed says nothing of what another would do" in out
    assert cli.main(["compare", "synthetic_lstm", str(run_dir), "--ledger", str(tmp_path), "--json"]) == Exit.OK
    found = json.loads(capsys.readouterr().out)
    assert found["systems"] == ["synthetic_lstm", str(run_dir)]
    assert set(found["test"]) == {"test", "minimal_pairs"}
    assert found["test"]["test"]["verdict"] == "not significant"


def test_a_seed_does_not_count_twice(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = make_row(run_dir)
    for sha256 in (row.result.config_sha256, "0" * 64):
        write_row(replace(row, result=replace(row.result, config_sha256=sha256)), tmp_path)
    assert cli.main(["compare", "synthetic_lstm", str(run_dir), "--ledger", str(tmp_path)]) == Exit.USAGE
    assert "rows of one command and seed; delete the older" in capsys.readouterr().err


def test_a_name_that_is_nothing_is_one_line(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_row(make_row(run_dir), tmp_path)
    assert cli.main(["compare", "synthetic_lstn", str(run_dir), "--ledger", str(tmp_path)]) == Exit.USAGE
    err = capsys.readouterr().err
    assert "'synthetic_lstn': neither a run directory nor a system or row of" in err
    assert "did you mean synthetic_lstm?" in err
    assert err.count("\n") == 1
    assert cli.main(["compare", "synthetic_lstm", str(run_dir), "--ledger", str(tmp_path / "none")]) == Exit.USAGE
    assert "none: no such folder of published rows" in capsys.readouterr().err


def test_a_row_may_be_named_by_its_file(run_dir: Path, tmp_path: Path) -> None:
    path, _ = write_row(make_row(run_dir), tmp_path)
    assert cli.main(["compare", str(path), path.stem, "--ledger", str(tmp_path)]) == Exit.OK


@pytest.mark.parametrize("content", [
    "", "{", "[]", "{}", '{"columns": []}', '{"columns": COLUMNS, "sets": {"test": [[1, 2]]}}',
    '{"columns": COLUMNS, "sets": {"test": [[9, 9, 9, 8, 7, -6]]}}', '{"columns": COLUMNS, "sets": {"test": null}}',
    '{"columns": COLUMNS, "sets": {"test": [[9, 9, 9, 8, 7, "6"]]}}', '{"columns": COLUMNS, "sets": []}', "\ud800"])
def test_damaged_counts_are_one_line(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                     content: str) -> None:
    data = content.replace("COLUMNS", json.dumps(SENTENCE_COLUMNS)).encode(errors="surrogatepass")
    (tmp_path / "sentence_statistics.json").write_bytes(data)
    assert cli.main(["compare", str(run_dir), str(tmp_path)]) == Exit.STORAGE
    err = capsys.readouterr().err
    assert f"{tmp_path}/sentence_statistics.json: damaged (" in err
    assert err.count("\n") == 1


def test_a_run_that_has_scored_nothing_is_refused(run_dir: Path, tmp_path: Path,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", str(run_dir), str(tmp_path)]) == Exit.USAGE
    assert "this run has not scored its test sets yet; continue it with resume=auto" in capsys.readouterr().err


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
