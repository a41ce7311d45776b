"""`minitx.load`: what it takes as a run and a device, and how it refuses all else."""

from pathlib import Path
from typing import Any

import pytest
import torch
from played_cuda import CUDA, played_gpu

import minitx
from minitx.utils.errors import UserError


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), torch.device("cpu", 0)], ids=str)
def test_a_run_is_loaded_from_a_path_or_its_name_to_a_device_or_its_name(run_dir: Path, device: Any,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(run_dir.parent))
    for path in (run_dir, str(run_dir), f"~/{run_dir.name}"):
        translator = minitx.load(path, device)
        assert translator.device.type == "cpu"
        assert not translator.model.training


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"run_dir": None}, TypeError, "run_dir=None: must be a path, not NoneType"),
    ({"run_dir": 3}, TypeError, "run_dir=3: must be a path, not int"),
    ({"device": None}, TypeError, "device=None: must be a string or a torch.device, not NoneType"),
    ({"device": 0}, TypeError, "device=0: must be a string or a torch.device, not int"),
    ({"device": "gpu"}, UserError, "device=gpu: PyTorch sees 0 GPUs here; use auto, cpu, cuda[:index] or mps"),
    ({"device": torch.device("cuda", 1)}, UserError,
     "device=cuda:1: PyTorch sees 0 GPUs here; use auto, cpu, cuda[:index] or mps"),
    ({"device": "mps"}, UserError, "device=mps: PyTorch sees 0 GPUs here; use auto, cpu, cuda[:index] or mps"),
    ({"precision": torch.bfloat16}, UserError, "precision=torch.bfloat16: must be bf16-mixed, or None = as the run"),
], ids=str)
def test_what_is_no_run_device_or_precision_is_refused(arguments: dict[str, Any], error: type[Exception], message: str,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with pytest.raises(error) as refused:
        minitx.load(**{"run_dir": "run"} | arguments)
    assert str(refused.value) == message


def test_a_gpu_is_taken_by_its_name_or_where_it_is_there(run_dir: Path) -> None:
    lines = ["1 2", ""]
    expected = minitx.load(run_dir).translate(lines)
    with played_gpu():
        for device in ("auto", "cuda", "cuda:0", CUDA):
            translator = minitx.load(run_dir, device)
            assert translator.device.type == "cuda"
            assert translator.translate(lines) == expected
        with pytest.raises(UserError, match="^device=cuda:1: PyTorch sees 1 GPUs here; use auto, cpu, cuda.:index. or"):
            minitx.load(run_dir, "cuda:1")
