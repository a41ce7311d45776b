"""`minitx compare`: experiments and runs side by side."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from published import write_run

from minitx.cli import main as cli
from minitx.evaluation.metrics import SENTENCE_COLUMNS
from minitx.evaluation.significance import Comparison
from minitx.experiments.reports.comparison import System, as_text
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


@pytest.fixture(scope="module")
def groups(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two systems with two seeds each, the second of them better; another seed of the first; a log that is no run."""
    folder = tmp_path_factory.mktemp("groups")
    for name, seed, better in (("a1", 1, False), ("a2", 2, False), ("a3", 3, False), ("b1", 1, True), ("b2", 2, True)):
        place = write_run(folder / name, overrides=[f"seed={seed}"], sentences=40 + seed * (seed == 3))
        path = place / "sentence_statistics.json"
        statistics = json.loads(path.read_text())
        for row in statistics["sets"]["test"] if better else ():
            row[:] = [row[1], row[1], *(max(0, row[1] - n) for n in range(4))]  # as the reference
        path.write_text(json.dumps(statistics))
    (folder / "a1.log").touch()
    return folder


def shown(words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, groups: Path) -> str:
    monkeypatch.chdir(groups)
    assert cli.main(["compare", *words.split()]) == Exit.OK
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_groups_of_runs_are_systems_with_several_seeds(groups: Path, capsys: pytest.CaptureFixture[str],
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    out = shown("a1 a2 against b2 b1", capsys, monkeypatch, groups)
    assert "test, 40 sentences, 2 seeds and 2 seeds, paired\n" in out
    assert "  a1 and 1 more  " in out
    test, pairs = out.split("minimal_pairs, 40 sentences")
    first, second = re.findall(r"difference by seed: 1: \+(\d+\.\d+), 2: \+(\d+\.\d+)\n", test)[0]
    assert 0 < float(first) == float(second), "these two runs of a system wrote the same"
    assert "difference by seed: 1: +0.00, 2: +0.00\n" in pairs
    assert "one seed says nothing" not in out
    assert shown("a1 a2 -- b2 b1", capsys, monkeypatch, groups) == out
    patterns = shown("a[12] b*", capsys, monkeypatch, groups)
    assert "  a[12]  " in patterns
    figures = [line for line in out.splitlines() if not line.endswith("BLEU")]
    assert figures == [line for line in patterns.splitlines() if not line.endswith("BLEU")]


def test_other_seeds_are_not_paired(groups: Path, capsys: pytest.CaptureFixture[str],
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    out = shown("a1 a2 against b1", capsys, monkeypatch, groups)
    assert "2 seeds and 1 seed\n" in out
    assert "by seed" not in out
    monkeypatch.chdir(groups)
    assert cli.main(["compare", "a1", "a2", "against", "b1", "b2", "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out)["seeds"] == [[1, 2], [1, 2]]


@pytest.mark.parametrize(("words", "why"), [
    ("a1", "a1: name two systems, or two groups of runs: minitx compare runs/a1 runs/a2 against runs/b1 runs/b2"),
    ("a1 a2 b1 b2", "a1 a2 b1 b2: name two systems, or two groups"),
    ("a1 against", "a1 against: name two systems"),
    ("a1 against b1 against b2", "a1 against b1 against b2: name two systems"),
    ("a1 b1 against b2", "a1, b1: both of seed 1; a group is one system, and each of its runs has a seed of its own"),
    ("c* a1", "c*: matches no run directory"),
    ("a1 c2 against b1", "c2: not a run directory (it has no config.yaml)"),
    ("a* b*", "test: the systems were not scored on the same sentences")])
def test_a_slip_is_one_line(words: str, why: str, groups: Path, capsys: pytest.CaptureFixture[str],
                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(groups)
    assert cli.main(["compare", *words.split()]) == Exit.USAGE
    err = capsys.readouterr().err
    assert err.startswith(f"minitx: error: {why}")
    assert err.count("\n") == 1


def test_a_group_whose_runs_differ_in_more_than_the_seed_is_warned_of(groups: Path, tmp_path: Path,
                                                                      capsys: pytest.CaptureFixture[str]) -> None:
    other = write_run(tmp_path / "other", overrides=["seed=2", "optim.lr=0.5"])
    assert cli.main(["compare", str(groups / "a1"), str(other), "against", str(groups / "b1")]) == Exit.OK
    assert "these runs differ in more than the seed (optim.lr), and are taken for one system" in capsys.readouterr().err


def test_systems_that_have_not_learned_are_told_so_and_one_that_has_is_compared(
        groups: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, matched in (("a", 1), ("b", 2)):
        place = write_run(tmp_path / name)
        statistics = json.loads((place / "sentence_statistics.json").read_text())
        statistics["sets"] = {"test": [[9, 9, matched if n % 5 else 0, 0, 0, 0] for n in range(100)]}
        (place / "sentence_statistics.json").write_text(json.dumps(statistics))
    assert cli.main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == Exit.OK
    out = capsys.readouterr().out
    assert ("\n  neither has learned to translate: below 1 BLEU a difference means nothing, whatever its p\n" in out)
    assert "significant" not in out
    assert cli.main(["compare", str(groups / "a1"), str(groups / "b1")]) == Exit.OK
    assert "neither" not in capsys.readouterr().out


def test_p_values_that_disagree_are_explained() -> None:
    found = Comparison((24.0, 25.2), (3, 3), 100, 1.2, (-0.7, 3.3), 0.128, 0.0001, 2.8)
    system = System("name", {"test": []}, [1, 2, 3])
    text = as_text(system, replace(system, seeds=[4, 5, 6]), [("test", found)])
    assert "\n  one p is below 0.05 and one is not: believe the bootstrap: it also asks what other seeds" in text
    agreed = as_text(system, replace(system, seeds=[4, 5, 6]), [("test", replace(found, p_bootstrap=0.01))])
    assert "one p is below" not in agreed
