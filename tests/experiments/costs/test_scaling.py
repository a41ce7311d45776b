"""What is compared as ranks are added: GPUs where there are some, else cores, as ranks and as threads."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from played_cuda import CUDA, played_gpu
from toys import tiny_transformer

from minitx.config.compose import compose
from minitx.distributed.ranks import SINGLE
from minitx.experiments.costs import scaling
from minitx.experiments.costs.scaling import MEASURED, WARM_UP, ExchangeTimer, cases
from minitx.training.state import RunState
from minitx.training.task import TranslationTask
from minitx.utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "cores", lambda: 12)


def test_gpus_are_doubled_and_share_the_cores() -> None:
    with played_gpu(device_count=lambda: 6):
        assert cases(compose([])) == [(1, 2), (2, 2), (4, 2)]
        assert cases(compose(["trainer.threads=3"])) == [(1, 3), (2, 3), (4, 3)]
        assert cases(compose(["trainer.accelerator=cpu"])) == [(1, 1), (2, 1), (4, 1), (8, 1), (1, 2), (1, 4), (1, 8)]


def test_threads_of_a_cpu_are_compared_and_not_given() -> None:
    with pytest.raises(UserError, match="trainer.threads=3: on CPUs bench scaling compares 1, 2, 4 and more threads"):
        cases(compose(["trainer.accelerator=cpu", "trainer.threads=3"]))


@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
def test_a_block_is_over_when_the_gpu_is_through(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    trainer: Any = SimpleNamespace(should_stop=False)
    monkeypatch.setattr(scaling, "perf_counter", lambda: now[0])
    task: Any = TranslationTask(tiny_transformer(), compose([]).optim, state=RunState(), precision="32-true", seed=0)
    monkeypatch.setattr(TranslationTask, "device", device)
    timer = ExchangeTimer(SINGLE)
    with played_gpu(synchronize=lambda device: now.__setitem__(0, now[0] + 1.0)):
        for number in range(WARM_UP + 2 * MEASURED):
            assert not trainer.should_stop
            now[0] += 0.5 * (device.type == "cpu")
            timer.on_train_batch_end(trainer, task, None, SimpleNamespace(n_tokens=10), number)
    assert trainer.should_stop
    seconds = 0.5 * MEASURED if device.type == "cpu" else 1.0
    assert timer.blocks == [(seconds, 10 * MEASURED)] * 2
