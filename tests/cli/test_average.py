"""`minitx average`: a run that serves."""

from pathlib import Path

import pytest
import torch
from served import write_run

import minitx
from minitx.cli import main as cli
from minitx.runs.checkpoint import load_model, model_tensors, save_checkpoint
from minitx.utils.errors import Exit


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A run with two checkpoints: weights once and three times those of its model.safetensors."""
    run_dir = write_run(tmp_path / "run")
    tensors = model_tensors(load_model(run_dir)[0])
    for step, factor in ((10, 1.0), (1200, 3.0)):
        save_checkpoint(run_dir / "checkpoints", step, {f"model/{n}": t * factor for n, t in tensors.items()},
                        {"state": {"step": step}}, keep=2)
    return run_dir


def test_it_serves_the_mean(trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert cli.main(["average", str(trained), "--last", "2", "-o", str(out)]) == Exit.OK
    assert capfd.readouterr() == ("", f"{out}: the mean of steps 1,200, 10; try it: minitx translate {out}\n")
    before, after = (model_tensors(load_model(run_dir)[0]) for run_dir in (trained, out))
    assert all(torch.allclose(after[name], 2 * before[name]) for name in before)
    assert len(minitx.load(out).translate(["the dog"])) == 1


def test_more_than_there_are_is_one_line(trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["average", str(trained), "--last", "3", "-o", str(tmp_path / "out")]) == Exit.USAGE
    told = f"minitx: error: {trained}: has 2 of the 3 whole checkpoints that were to be averaged"
    assert told in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
