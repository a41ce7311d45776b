"""How a model is cut up: where its ranks compute, and with the sums that their backend takes."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from played_cuda import CUDA
from torch import distributed, nn
from toys import tiny_lstm

from minitx.distributed.fsdp import shard


@pytest.mark.parametrize("device", [torch.device("cpu"), CUDA], ids=str)
def test_a_mean_is_a_sum_that_is_divided_on_cpus_alone(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    class Part:
        def set_force_sum_reduction_for_comms(self, force: bool) -> None:
            forced.append(force)

    forced, cut, meshes = list[bool](), list[nn.Module](), list[tuple[str, tuple[int, ...]]]()

    def fully_shard(module: nn.Module, mesh: Any) -> None:
        cut.append(module)
        module.__class__ = type("Sharded", (type(module), Part), {})

    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr("torch.distributed.device_mesh.init_device_mesh",
                        lambda *asked: (meshes.append(asked), SimpleNamespace())[1])
    monkeypatch.setattr("torch.distributed.fsdp.fully_shard", fully_shard)
    monkeypatch.setattr("torch.distributed.fsdp.FSDPModule", Part)
    model = tiny_lstm()
    shard(model, device)
    assert meshes == [(device.type, (2,))]
    assert cut[-1] is model
    assert not any(isinstance(module, nn.LSTM) for module in cut)
    assert forced == ([True] * len(cut) if device.type == "cpu" else []), "NCCL takes a mean as it is"
