"""`minitx pick`: the answer in text and in JSON; contradictions get a line before anything slow."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import selected

from minitx.cli import main as cli
from minitx.utils.errors import Exit

ROOT = Path(__file__).resolve().parents[2]
USUAL = ["pick", "--length", "16", "--tokens", "1e7", "--hardware", "H100", "--ledger", str(ROOT / "results")]
CANDIDATE = {"architecture", "size", "saving", "words", "tokens", "minutes", "cost", "figures", "quality", "failures"}
FIGURES = {"params", "precision", "attends", "growth", "tokens_per_s", "train_gib", "token_ms", "serve_gib", "notes"}


@pytest.fixture(autouse=True)
def _made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minitx.experiments.selection.chooser.figures_of", selected.figures_of)
    monkeypatch.setattr("minitx.experiments.selection.chooser.structure_of", selected.structure_of)


def picked(capfd: pytest.CaptureFixture[str], *words: str, code: Exit = Exit.OK) -> dict[str, Any]:
    assert cli.main([*USUAL, "--json", *words]) == code
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    return found


def test_json_has_all_of_it(capfd: pytest.CaptureFixture[str]) -> None:
    found = picked(capfd, "--price", "3", "--longest", "40")
    assert found.keys() == {"demands", "answer", "runner_up", "command", "trade_off", "beyond_measured", "candidates",
                            "refused", "changes"}
    assert found["demands"]["longest"] == 40
    assert found["answer"].keys() == {"architecture", "size"}
    for row in found["candidates"]:
        assert row.keys() == CANDIDATE
        assert row["figures"].keys() == FIGURES
        assert row["cost"] == pytest.approx(row["minutes"] / 60 * 3)
        assert row["figures"]["token_ms"].keys() == {"value", "measured", "stands_on"}
        assert row["quality"].keys() == {"bleu", "measured", "text", "rows", "tokens", "params", "why"}
    for change in found["changes"]:
        assert change.keys() == {"demand", "side", "value", "answer"}
        assert change["answer"] != found["answer"]


def test_the_command_trains_what_was_chosen(capfd: pytest.CaptureFixture[str]) -> None:
    from minitx.config.compose import compose

    found = picked(capfd, "--tokens", "2.5e9", "--longest", "3000", "--gpus", "8")
    cfg = compose(found["command"].split()[2:])
    assert cfg.choices.model == found["answer"]["architecture"]
    assert cfg.model.size == found["answer"]["size"] == "base"
    assert cfg.trainer.max_steps == round(2.5e9 / cfg.trainer.tokens_per_update)
    assert (cfg.data.max_length, cfg.trainer.devices) == (3000, 8)


def test_for_a_person_the_answer_stands_first(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*USUAL, "--streaming"]) == Exit.OK
    out = capfd.readouterr().out.splitlines()
    assert out[0].startswith("lstm small: model=lstm model.size=small model.bidirectional=false; ")
    table = [line for line in out if line.startswith(("lstm", "transformer", "linear_rnn"))][1:]
    assert any("no: its state grows with each token" in line for line in table)
    assert "~ = predicted; without it: measured, or counted" in out
    assert any(line.startswith("  without --streaming: transformer") for line in out)


def test_a_recurrence_alone_above_a_billion_tokens_names_its_price_first(capfd: pytest.CaptureFixture[str]) -> None:
    """The rule: never recommended on so much text without the trade-off, in the first lines."""
    assert cli.main([*USUAL, "--streaming", "--tokens", "1.01e9"]) == Exit.OK
    out = capfd.readouterr().out.splitlines()
    assert out[1].startswith("trade-off: a recurrence alone on 1.01e+09 training tokens")
    assert "BLEU" in out[1]
    assert picked(capfd, "--streaming", "--tokens", "1.01e9")["trade_off"] == out[1]
    assert picked(capfd, "--streaming", "--tokens", "1e9")["trade_off"] is None
    assert picked(capfd, "--tokens", "5e9")["trade_off"] is None, "a Transformer needs none"


@pytest.mark.parametrize(("words", "said"), [
    (["--tokens", "1e8"], None), (["--tokens", "1.1e8"], "training tokens; BLEU was measured up to"),
    (["--length", "2000"], "sentences of 2,000 tokens"), (["--tokens", "1e9", "--length", "16"], "training tokens")])
def test_beyond_ten_times_what_was_measured_it_is_said(words: list[str], said: str | None,
                                                       capfd: pytest.CaptureFixture[str],
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minitx.experiments.selection.quality.gather", lambda rows: selected.TEXTS)
    found = picked(capfd, *words)["beyond_measured"]
    assert (found == []) if said is None else any(said in text for text in found)


def test_what_saves_memory_is_in_the_answer_and_in_its_command(capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--tokens", "2.5e9", "--longest", "3000", "--memory-gib", "1.5"]
    found = picked(capfd, *words, "--answer-only")
    assert found["answer"]["saving"] == "recomputed layers"
    assert {"data.max_tokens=3000", "trainer.activation_checkpointing=true"} <= set(found["command"].split())
    assert cli.main([*USUAL, *words, "--answer-only"]) == Exit.OK
    out = capfd.readouterr().out
    assert out.splitlines()[0].partition(":")[0].endswith(" base, recomputed layers")
    assert ": --memory-gib 1.5: it takes " in out, "the same without"


def test_nothing_that_meets_all_is_an_answer_too(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*USUAL, "--latency-ms", "0.0001"]) == Exit.USAGE
    out = capfd.readouterr().out.splitlines()
    assert out[0].startswith("none: no candidate meets all demands: --latency-ms: the least is ")
    found = picked(capfd, "--memory-gib", "0.0001", code=Exit.USAGE)
    assert (found["answer"], found["runner_up"], found["command"]) == (None, None, None)
    assert {change["demand"] for change in found["changes"]} == {"memory_gib"}


@pytest.mark.parametrize(("words", "why"), [
    ([], "the following arguments are required: --length"),
    (["--length", "0"], "argument --length: 0: must be a whole number, at least 1"),
    (["--length", "16"], "--tokens: how long is trained? Say --tokens, or --budget-minutes"),
    (["--length", "16", "--tokens", "-1"], "argument --tokens: -1: must be a number, at least 0"),
    (["--length", "16", "--tokens", "1e6", "--longest", "8"], "--longest 8: a typical sentence has --length 16"),
    (["--length", "16", "--tokens", "1e6", "--hardware", "h10"], "--hardware h10: no such hardware; did you mean"),
    (["--length", "16", "--tokens", "1e6", "--streaming", "--attention"], "--streaming: constant memory cannot hold"),
    (["--length", "16", "--tokens", "1e6", "--ledger", "nowhere"], "nowhere: no such folder of published rows")])
def test_slips_get_one_line(words: list[str], why: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pick", *words]) == Exit.USAGE
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"minitx: error: {why}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("hardware", ["here", "h100"])
def test_what_is_measured_here_is_measured_in_a_process_that_trains(hardware: str, monkeypatch: pytest.MonkeyPatch,
                                                                    capfd: pytest.CaptureFixture[str]) -> None:
    """With its allocator and its threads; what is predicted needs neither."""
    prepared: list[str] = []
    monkeypatch.setattr("minitx.cli.pick.prepare_process", lambda cfg: prepared.append(cfg.trainer.accelerator))
    picked(capfd, "--hardware", hardware, "--answer-only")
    assert prepared == (["cpu"] if hardware == "here" else [])


def test_a_contradiction_is_told_without_torch() -> None:
    """So that it is told at once."""
    code = ("import sys\nfrom minitx.cli import main\n"
            "main.main(['pick', '--length', '9', '--longest', '8', '--tokens', '1e6'])\n"
            "sys.exit(any(name in sys.modules for name in ('torch', 'lightning')))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("minitx: error: --longest 8")
