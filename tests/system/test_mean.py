"""The mean of a run's newest checkpoints: validated at its end, the same whether or not the run was interrupted."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trials import means, records, train

from minitx.runs.averaging import mean
from minitx.runs.result import Result
from minitx.training.validation import ValidationScore, Validator

THREE = ("checkpoint.keep=3", "checkpoint.average=3")


def serves(run_dir: Path, weights: dict[str, torch.Tensor]) -> bool:
    served = load_file(run_dir / "model.safetensors")
    return all(torch.equal(served[name], tensor.float()) for name, tensor in weights.items())


def validations_score(monkeypatch: pytest.MonkeyPatch, *bleu: float) -> None:
    """Give validations these scores, one after the other."""
    left = list(bleu)
    monkeypatch.setattr(Validator, "__call__", lambda self, task, model: ValidationScore(1.5, left.pop(0), 40, 0.1, []))


@pytest.mark.parametrize(("bleu", "better"), [
    ((10.0, 11.0, 12.0), True), pytest.param((10.0, 12.0, 12.0), False, marks=pytest.mark.slow)])
def test_it_serves_if_it_validates_better(text: Path, tmp_path: Path, bleu: tuple[float, ...], better: bool,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    validations_score(monkeypatch, *bleu)
    run_dir = tmp_path / "run"
    done = train(text, run_dir, "trainer.max_steps=20", *THREE)
    assert done.returncode == 0, done.stderr
    assert "mean of steps 20, 15, 10: valid loss 1.500, BLEU 12.0" in done.stderr
    result = Result.read(run_dir / "result.json")
    assert result.averaged_steps == ([20, 15, 10] if better else None)
    assert (result.best_step, result.best_valid_bleu) == (20, 12.0)
    tensors, _ = mean(run_dir / "checkpoints", 3)
    assert serves(run_dir, tensors) == better
    assert means(run_dir) == [([20, 15, 10], 1.5, 12.0)]

    served = load_file(run_dir / "model.safetensors")
    (run_dir / "result.json").unlink()  # as if killed before it was written
    validations_score(monkeypatch, bleu[-1])
    again = train(text, run_dir, "trainer.max_steps=20", *THREE, "resume=auto")
    assert again.returncode == 0, again.stderr
    assert "lost or damaged" not in again.stderr
    assert Result.read(run_dir / "result.json").averaged_steps == result.averaged_steps
    assert means(run_dir) == [([20, 15, 10], 1.5, 12.0)]
    assert serves(run_dir, served)


@pytest.mark.slow
def test_a_run_that_was_stopped_between_two_checkpoints_has_the_same_mean(text: Path, tmp_path: Path) -> None:
    overrides = (*THREE, "trainer.horizon_steps=20")
    for name, *stops in (("whole", 20), ("stopped", 18, 20)):
        for steps in stops:
            (tmp_path / name / "result.json").unlink(missing_ok=True)
            done = train(text, tmp_path / name, f"trainer.max_steps={steps}", *overrides, "resume=auto")
            assert done.returncode == 0, done.stderr
    assert means(tmp_path / "stopped")[-1] == means(tmp_path / "whole")[-1]
    assert means(tmp_path / "whole")[-1][0] == [20, 15, 10]


@pytest.mark.slow
def test_a_last_step_that_is_saved_and_then_validated_counts_once(text: Path, tmp_path: Path) -> None:
    done = train(text, tmp_path / "run", "trainer.max_steps=15", *THREE)
    assert done.returncode == 0, done.stderr
    assert [steps for steps, *_ in means(tmp_path / "run")] == [[15, 10, 5]]
    assert len(list((tmp_path / "run/checkpoints").glob("step-*"))) == 3


@pytest.mark.slow
def test_a_target_may_be_reached_by_the_mean(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    validations_score(monkeypatch, 10.0, 11.0, 12.0)
    done = train(text, tmp_path / "run", "trainer.max_steps=20", *THREE, "trainer.target_bleu=11.5")
    assert done.returncode == 0, done.stderr
    result = Result.read(tmp_path / "run/result.json")
    assert result.time_to_target_s == result.train_s


@pytest.mark.slow
def test_a_signal_during_its_validation_ends_the_run_and_the_next_run_validates_it(
        text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minitx.training.signals import Interrupted

    calls: list[Any] = []

    def validate(self: Validator, task: Any, model: Any) -> ValidationScore:
        calls.append(model)
        if len(calls) == 3:
            raise Interrupted("terminated")
        return ValidationScore(1.5, 10.0, 40, 0.1, [])

    monkeypatch.setattr(Validator, "__call__", validate)
    run_dir = tmp_path / "run"
    assert train(text, run_dir, "trainer.max_steps=20", *THREE).returncode == 143
    result = Result.read(run_dir / "result.json")
    assert (result.status, result.averaged_steps) == ("terminated", None)
    assert train(text, run_dir, "trainer.max_steps=20", *THREE, "resume=auto").returncode == 0
    assert len(calls) == 4
    assert [record["event"] for record in records(run_dir)][-1] == "mean"


@pytest.mark.slow
def test_missing_and_damaged_checkpoints_are_warned_of(text: Path, tmp_path: Path) -> None:
    run_dir, overrides = tmp_path / "run", ("trainer.max_steps=15", "checkpoint.keep=9", "checkpoint.average=9")
    done = train(text, run_dir, *overrides)
    assert done.returncode == 0, done.stderr
    assert "warning: checkpoint.average=9: the mean is of 3, there are no more whole checkpoints" in done.stderr
    assert "mean of steps 15, 10, 5: " in done.stderr
    (run_dir / "result.json").unlink()
    (damaged,) = (run_dir / "checkpoints").glob("step-00000010-*")
    damaged.write_bytes(b"damaged")
    done = train(text, run_dir, *overrides, "resume=auto")
    assert "warning: step-00000010 is damaged (its content does not match its name); passed over" in done.stderr
    assert "the mean is of 2, " in done.stderr


def test_a_run_that_diverged_has_none(text: Path, tmp_path: Path) -> None:
    done = train(text, tmp_path / "run", "trainer.max_steps=100", "optim.lr=1e30", "optim.clip_norm=null",
                 "optim.warmup_steps=0", "trainer.max_nonfinite=3", *THREE)
    assert done.returncode == 4, done.stderr
    assert json.loads((tmp_path / "run/result.json").read_text())["averaged_steps"] is None
    assert means(tmp_path / "run") == []
