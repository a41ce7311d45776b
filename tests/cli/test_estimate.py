"""`minitx estimate`: what is predicted is told in text and in JSON; slips get a line before anything slow."""

import json
from typing import Any

import pytest
from toys import recorded_update

from minitx.cli import main as cli
from minitx.config.schema import Config
from minitx.experiments.prediction import speed
from minitx.experiments.prediction.speed import EXPECTED_ERROR
from minitx.utils.errors import Exit

TOY = ["estimate", "model.size=toy", "tokenizer.vocab_size=300", "trainer.max_steps=100"]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Nothing is recorded; how many sentences of which length would have been is noted."""
    noted: list[tuple[int, int]] = []

    def record(cfg: Config, sentences: int, src_len: int, tgt_len: int, **_: Any) -> Any:
        noted.append((sentences, tgt_len))
        return recorded_update(1)

    monkeypatch.setattr(speed, "record_update", record)
    return noted


def estimated(capfd: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert cli.main([*TOY, "--on", "h100", "--json", *words]) == Exit.OK
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    return found


def test_words_and_options_reach_the_prediction(recorded: list[tuple[int, int]],
                                                capfd: pytest.CaptureFixture[str]) -> None:
    found = estimated(capfd)
    assert (found["gpu"]["gpu"], found["gpu"]["gpus"]) == ("h100", 1)
    assert found["update"] == {"tgt_tokens": 780, "micro_batches": 1}, "26 sentences of 30 tokens"
    assert found["predicted"]["expected_error_pct"] == 100 * EXPECTED_ERROR
    hours = 100 * found["predicted"]["update_ms"]["usual"] / 3.6e6
    assert found["training"]["hours"]["usual"] == pytest.approx(hours)
    assert found["training"]["hours"]["low"] < hours < found["training"]["hours"]["high"]
    assert "cost" not in found["training"]
    two = estimated(capfd, "--gpus", "2", "--length", "8", "--price", "2.5", "trainer.tokens_per_update=800",
                    "data.max_tokens=400")
    assert recorded == [(26, 30), (50, 8)], "half of a hundred sentences of eight tokens"
    assert two["gpu"]["gpus"] == 2
    assert two["training"]["cost"] == pytest.approx(2 * 2.5 * two["training"]["hours"]["usual"])
    config = estimated(capfd, "trainer.devices=2", "trainer.price_per_hour=4")
    assert config["gpu"]["gpus"] == 2
    assert config["training"]["cost"] == pytest.approx(2 * 4 * config["training"]["hours"]["usual"])


@pytest.mark.usefixtures("recorded")
def test_for_a_person_every_section_says_what_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*TOY, "--on", "H100"]) == Exit.OK
    lines = capfd.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "gpu", "model", "update", "predicted", "lost_ms", "kernels_ms", "training"]
    facts = dict(line.split(maxsplit=1) for line in lines if line.startswith(" "))
    assert facts["source"].startswith("NVIDIA H100")
    assert facts["expected_error_pct"].startswith("15  a standard deviation of predicted over published speeds")
    assert facts["updates"] == "100  trainer.max_steps=100"


@pytest.mark.slow
def test_the_whole_of_it(capfd: pytest.CaptureFixture[str]) -> None:
    """With kernels recorded from the code: operations per second are what the model's own count makes of them."""
    found = estimated(capfd, "data.max_tokens=256", "model=lstm_attention")
    busy = found["predicted"]["busy_pct"]
    assert 0 < found["predicted"]["occupied_pct"] <= busy["least"] <= busy["most"] <= 100
    times = found["predicted"]["update_ms"]
    assert times["fast"] < times["usual"] < times["slow"]
    assert 0 < found["predicted"]["mfu_pct"] < 1, "of a toy"
    assert found["predicted"]["bound_by"] in ("host", "recurrence", "starts")
    lost = sum(found["lost_ms"].values())
    assert lost == pytest.approx(found["predicted"]["update_ms"]["usual"])


@pytest.mark.parametrize(("words", "why"), [
    ([], "the following arguments are required: --on (minitx estimate --help shows the usage)"),
    (["--on", "h10"], "argument --on: h10: no such GPU; did you mean h100? (v100, v100-32, v100-pcie, t4, a100, "),
    (["--on", "tpu"], "argument --on: tpu: no such GPU"),
    (["--on", "h100", "--gpus", "0"], "argument --gpus: 0: must be a whole number, at least 1"),
    (["--on", "h100", "--length", "0"], "argument --length: 0: must be a whole number, at least 1"),
    (["--on", "h100", "--price", "-1"], "argument --price: -1: must be a number, at least 0"),
    (["--on", "h100", "model.dropuot=0"], "unknown key model.dropuot=0; did you mean model.dropout?")])
def test_slips_get_one_line(words: list[str], why: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["estimate", *words]) == Exit.USAGE
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"minitx: error: {why}")
    assert err.count("\n") == 1
