"""`minitx suite`: what would be trained, and a suite of two tiny runs from its beginning to its table."""

import json
from pathlib import Path

import pytest
import yaml

from minitx.cli import main as cli
from minitx.experiments.suites import suite as suites
from minitx.utils.errors import Exit

TINY = ("trainer.max_steps=2", "trainer.valid_every_n_steps=2", "decode.max_length_ratio=0.3", "trainer.target_bleu=90")


@pytest.mark.slow
def test_a_dry_run_says_what_would_be_trained_and_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["suite", "headline", "--size", "small", "--dry-run"]) == Exit.OK
    *runs, total = capsys.readouterr().out.splitlines()
    assert len(runs) == 12
    assert runs[0].split() == ["waiting", "10m48s", "python", "train.py", "experiment=headline_small", "model=lstm"]
    assert total == "12 of 12 to train: about 2h09m"
    assert cli.main(["suite", "headline", "--dry-run", "--json"]) == Exit.OK
    assert [entry["state"] for entry in json.loads(capsys.readouterr().out)] == ["waiting"] * 4
    assert cli.main(["suite", "headline", "model.dropout=0.1", "--dry-run", "trainer.max_steps=7"]) == Exit.OK
    out = capsys.readouterr().out
    assert "experiment=synthetic_lstm model.dropout=0.1 trainer.max_steps=7" in out, "before options, and behind"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_what_gpus_would_take_is_arithmetic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["suite", "headline", "--size", "full", "--dry-run", "--runs", str(tmp_path / "runs")]
    assert cli.main([*words, "--on", "1000", "--mfu", "50"]) == Exit.OK
    out = capsys.readouterr().out
    assert "18 of 18 to train; of 18 it is not known how long" in out
    assert "by arithmetic, on a device of 1000 TFLOP/s of which 50 % do useful work:" in out
    base = next(line.split() for line in out.splitlines() if line.strip().startswith("headline_base.transformer  "))
    assert int(base[2].replace(",", "")) == pytest.approx(60e6, rel=0.1)
    operations, hours = float(base[4]), float(base[6])
    # Vaswani et al. 2017, table 2, for the same updates: seconds times 9.5 TFLOP/s of a P100, so not operations alone.
    assert operations == pytest.approx(3.3e18, rel=0.8)
    assert hours == pytest.approx(operations / 0.5e15 / 3600, rel=0.1)


@pytest.mark.parametrize(("words", "why"), [
    (["suite", "headlin"], "headlin: no such suite; did you mean headline? (embedded, headline, positions, verses)"),
    (["suite", "headline", "--size", "medium"], "headline: has no size medium; it has smoke, small, full"),
    (["suite", "headline", "--measure"], "--measure: is about what would be trained; add --dry-run"),
    (["suite", "headline", "--json"], "--json: is about what would be trained; add --dry-run"),
    (["suite", "headline", "model.dropuot=0"], "unknown key model.dropuot=0; did you mean model.dropout?"),
    (["suite", "headline", "--publish", "--ledger", "resluts"], "resluts: no such folder of published rows"),
    (["suite", "headline", "--dry-run", "--on", "0"], "argument --on: 0: must be above 0"),
    (["suite", "headline", "--dry-run", "--mfu", "300"], "argument --mfu: 300: must be a share in %, at most 100"),
    (["suite", "headline", "--dry-run", "--json", "--on", "989"], "--on: is not part of the JSON; leave --json out"),
])
def test_a_slip_is_one_line(words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == Exit.USAGE
    err = capsys.readouterr().err
    assert err.startswith(f"minitx: error: {why}")
    assert err.count("\n") == 1


@pytest.mark.slow
def test_two_runs_are_trained_compared_and_not_trained_again(small_text: Path, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "suite").mkdir()
    for path in small_text.glob("test.*"):
        path.rename(path.with_name(f"test_2016_flickr{path.suffix}"))
    systems = [f"experiment=headline_small model={model} model.size=toy data=files data.dir={small_text} "
               "tokenizer.vocab_size=null trainer.max_minutes=null" for model in ("lstm", "transformer")]
    (tmp_path / "suite/two.yaml").write_text(yaml.safe_dump({"smoke": {"systems": systems, "seeds": [1]}}))
    monkeypatch.setattr(suites, "SUITES", tmp_path / "suite")
    command = ["suite", "two", *TINY]
    assert cli.main(command) == Exit.OK
    shown = capsys.readouterr()
    assert sum(shown.err.count(state) for state in ("finished", "disturbed")) == 2  # these tests, say, are others to it
    assert "headline_small.transformer" in shown.err
    table = shown.out.splitlines()
    assert table[1].split()[:2] == ["model", "seeds"]
    assert [line.split()[0].rstrip("†‡") for line in table[2:4]] == ["lstm", "transformer"]
    assert any(line.startswith("lstm to transformer: ") for line in table)
    logs = sorted(Path("runs/two-smoke").glob("*.log"))
    before = [log.stat().st_mtime_ns for log in logs]
    assert len(before) == 2
    assert cli.main(command) == Exit.OK
    assert [log.stat().st_mtime_ns for log in logs] == before
    assert capsys.readouterr().out.splitlines()[1:4] == table[1:4]
