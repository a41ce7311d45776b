"""`minitx suite`: what would be trained, and a suite of two tiny runs from its beginning to its table."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from toys import recorded_update

from minitx.cli import main as cli
from minitx.config.schema import Config
from minitx.experiments.prediction import speed
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


def test_what_gpus_would_take_is_predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    recorded: list[str] = []

    def record(cfg: Config, *_: Any, **__: Any) -> Any:
        recorded.append(cfg.choices.model)
        return recorded_update(2000)  # so that there are digits to compare

    monkeypatch.setattr(speed, "record_update", record)
    words = ["suite", "headline", "--dry-run", "--on", "h100", "--runs", str(tmp_path / "runs")]
    assert cli.main([*words, "--size", "full", "--gpus", "8"]) == Exit.OK
    assert len(recorded) == 6, "once for all seeds of a system"
    out = capsys.readouterr().out
    assert "18 of 18 to train; of 18 it is not known how long" in out
    assert "predicted for h100, to within 15 % (a standard deviation): sentences of 30 tokens" in out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.startswith("  headline_")}
    base = rows["headline_base.transformer"]
    assert base[1:3] == ["3", "8"]
    assert int(base[3].replace(",", "")) == pytest.approx(60e6, rel=0.1)
    assert base[-3:] == ["100,000", base[-2], "trainer.max_steps=100000"]
    assert float(base[-2]) == pytest.approx(float(base[4].replace(",", "")) * 1e5 / 3.6e6, rel=0.1)
    in_all = float(out.splitlines()[-1].split()[0].replace(",", ""))
    assert in_all == pytest.approx(sum(3 * 8 * float(row[-2]) for row in rows.values()), rel=0.1)
    assert cli.main([*words, "--size", "small"]) == Exit.OK
    small = next(line.split() for line in capsys.readouterr().out.splitlines() if ".transformer " in line)
    assert small[2] == "1", "as the config says"
    assert small[-2:] == ["0.17", "trainer.max_minutes=10.0"]
    assert float(small[-3].replace(",", "")) == pytest.approx(6e5 / float(small[4]), rel=0.1)


@pytest.mark.parametrize(("words", "why"), [
    (["suite", "headlin"], "headlin: no such suite; did you mean headline? (embedded, headline, positions, "
                           "recurrence, verses)"),
    (["suite", "headline", "--size", "medium"], "headline: has no size medium; it has smoke, small, full"),
    (["suite", "headline", "--measure"], "--measure: is about what would be trained; add --dry-run"),
    (["suite", "headline", "--json"], "--json: is about what would be trained; add --dry-run"),
    (["suite", "headline", "model.dropuot=0"], "unknown key model.dropuot=0; did you mean model.dropout?"),
    (["suite", "headline", "--publish", "--ledger", "resluts"], "resluts: no such folder of published rows"),
    (["suite", "headline", "--dry-run", "--on", "h10"], "argument --on: h10: no such GPU; did you mean h100? (v100, "),
    (["suite", "headline", "--dry-run", "--gpus", "2"], "--gpus 2: of which kind? Add --on"),
    (["suite", "headline", "--on", "h100"], "--on: is about what would be trained; add --dry-run"),
    (["suite", "headline", "--dry-run", "--json", "--on", "h100"], "--on: is not part of the JSON; leave --json out"),
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
