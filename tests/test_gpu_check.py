"""The check of GPUs, as far as it goes without one: so that it does not fail on its first line where there is one."""

import json
from functools import partial
from pathlib import Path

import gpu_check
import gpu_numbers
import pytest
import torch
from families import workbench
from gpu_rows import Job, take
from torch.utils.checkpoint import checkpoint

from minitx.training import recomputation

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """What checks of every kind write down."""
    path, rows = tmp_path_factory.mktemp("check") / "found.json", []
    for word in (", transformer rope", "lstm dot, bf16", "speed, lstm dot", "AdamW", "facts", "kernels",
                 "copies", "recomputed, linear"):
        assert gpu_check.main(["--device", "cpu", "--only", word, "--out", str(path)]) == 0
        rows += json.loads(path.read_text())
    return {row["name"]: row for row in rows}


@pytest.mark.slow
def test_all_that_needs_no_gpu_runs_on_toys(figures: dict[str, dict[str, object]]) -> None:
    assert {row["status"] for row in figures.values()} == {"ok", "unseen"}
    assert {name.partition(",")[0] for name, row in figures.items() if row["status"] == "unseen"} == {"waits", "copies"}
    assert all(row["values"] for row in figures.values() if row["status"] == "ok")


def test_a_failure_hides_no_other() -> None:
    row = take(Job("this one", lambda: [][0]))
    assert (row.status, row.text.partition(":")[0]) == ("failed", "IndexError")


def test_without_a_gpu_it_lists_what_is_unseen(capsys: pytest.CaptureFixture[str], tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.main(["--out", str(tmp_path / "found.json")]) == 0
    assert "gradients, lstm additive fed, bf16-mixed" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("slip", ["loss", "gradient"])
def test_a_wrong_number_is_a_failure(slip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, found = workbench(*gpu_check.TOY, sentences=1), []

    def one_step(*_: object) -> tuple[float, torch.Tensor]:
        found.append(0)
        wrong = 1e-2 * (len(found) > 1)
        return 5.0 + wrong * (slip == "loss"), torch.ones(9) + wrong * (slip == "gradient")

    monkeypatch.setattr(gpu_numbers, "one_step", one_step)
    with pytest.raises(AssertionError, match=f"{slip} .*off by"):
        gpu_numbers.gradients(bench, CPU, "lstm", "32-true")


def test_dropout_that_is_not_drawn_again_as_it_was_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = workbench(*gpu_check.TOY, sentences=1)
    gpu_numbers.recomputed(bench, CPU, "transformer", "32-true")
    monkeypatch.setattr(recomputation, "checkpoint", partial(checkpoint, preserve_rng_state=False))
    with pytest.raises(AssertionError, match="gradient off by"):
        gpu_numbers.recomputed(bench, CPU, "transformer", "32-true")
