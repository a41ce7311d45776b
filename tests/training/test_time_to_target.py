"""Time to quality: what had been taken by then, what that costs, and what is said where it was not reached."""

from dataclasses import replace
from pathlib import Path

import pytest
from published import write_run

from minitx.config.compose import compose
from minitx.runs.result import Result
from minitx.training.state import RunState
from minitx.training.time_to_target import bill, describe, spent

TRAINER = compose(["trainer.target_bleu=30"]).trainer
THEN = {"step": 1200, "tokens": 2_400_000, "train_s": 300.0, "wall_s": 360.0, "bleu": 30.2, "event": "valid"}


def test_the_bill_has_all_devices_for_all_of_the_time() -> None:
    state = RunState(at_target={**spent(THEN), "energy_wh": 50.0})
    found = bill(state, 900.0, replace(TRAINER, price_per_hour=2.0), 4)
    assert found["time_to_target_s"] == 300.0
    assert found["device_hours"] == pytest.approx(1.0)
    assert found["cost"] == pytest.approx(2.0)
    assert found["at_target"] == {"steps": 1200, "tokens": 2_400_000, "train_s": 300.0, "wall_s": 360.0,
                                  "energy_wh": 50.0, "device_hours": pytest.approx(0.4), "cost": pytest.approx(0.8)}


def test_without_a_price_there_is_no_cost_and_without_a_watt_meter_no_energy() -> None:
    found = bill(RunState(at_target=spent(THEN)), 900.0, TRAINER, 1)
    assert found["cost"] is None
    assert found["at_target"]["cost"] is None
    assert found["at_target"]["energy_wh"] is None


def test_what_was_not_reached_is_censored(tmp_path: Path) -> None:
    found = bill(RunState(), 900.0, TRAINER, 1)
    assert found["time_to_target_s"] is found["at_target"] is None
    write_run(tmp_path / "run", target_bleu=30.0, train_s=900.0, **found)
    assert describe(Result.read(tmp_path / "run/result.json")) == (
        "validation BLEU 30 not reached: it takes more than 15m00s of training (censored)")


def test_what_was_reached_is_told_with_all_it_took(tmp_path: Path) -> None:
    found = bill(RunState(at_target={**spent(THEN), "energy_wh": 50.0}), 900.0, replace(TRAINER, price_per_hour=2.0), 1)
    write_run(tmp_path / "run", target_bleu=30.0, **found)
    assert describe(Result.read(tmp_path / "run/result.json")) == (
        "validation BLEU 30 after 5m00s of training, 6m00s in all: 1,200 steps, 2,400,000 tokens, 0.100 device-hours, "
        "50.0 Wh, cost 0.20")
