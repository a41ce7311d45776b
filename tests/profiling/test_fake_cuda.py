"""No GPU here, and yet: what every family's steps do on CUDA tensors, and that who watches them would see a slip."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fake_cuda import CHECKS, SENTENCES, TEXT
from families import FAMILIES, Workbench, workbench
from torch import Tensor, nn

from minitx.experiments.studies.growth import PeakBytes
from minitx.profiling.fake_cuda import CUDA, backward, fake_gpu, freed_as_read


class Squares(torch.autograd.Function):
    """Two results; the gradient of one is asked for."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x)
        return x * x, x + 1

    @staticmethod
    def backward(ctx: Any, squares: Tensor, more: Tensor) -> Tensor:
        return 2 * squares * ctx.saved_tensors[0] + more


WAITS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "list": lambda x: x.tolist(),
    "branch": lambda x: bool((x > 0).all()),
    "copy to the CPU": lambda x: x.cpu(),
    "copy from the CPU": lambda x: torch.ones(3).to(x.device),
    "from a list": lambda x: torch.tensor([1.0], device=x.device),
    "nonzero": lambda x: x.nonzero(),
    "written by mask": lambda x: x.index_put_((x > 0,), torch.ones(3).to(x.device, non_blocking=True)),
}


@pytest.fixture(scope="module")
def bench() -> Workbench:
    return workbench(*TEXT, sentences=SENTENCES)


@pytest.mark.parametrize("check", ["train bf16", "greedy", "beam"])
@pytest.mark.parametrize("family", [
    pytest.param(family, marks=[] if family == "transformer" else pytest.mark.slow)
    for family in FAMILIES])
def test_a_step_stays_on_the_device_and_waits_once(bench: Workbench, family: str, check: str) -> None:
    assert CHECKS[check](bench, family).startswith("ok")


@pytest.mark.parametrize("slip", WAITS)
@pytest.mark.parametrize("inference", [True, False])
def test_a_wait_is_seen_once(slip: str, inference: bool) -> None:
    with fake_gpu() as counter, torch.inference_mode(inference):
        WAITS[slip](torch.ones(3, device=CUDA))
    assert counter.waits.total == 1


def test_what_does_not_wait_is_not_called_a_wait() -> None:
    with fake_gpu() as counter:
        x = torch.ones(3).to(CUDA, non_blocking=True)
        x[:2] = 0
        x.masked_fill_(x > 0, 1.0)[torch.zeros(2, dtype=torch.int64, device=CUDA)].sum(0, keepdim=True)
        assert torch.ones(3).sum().item() == 3.0, "tensors of the CPU are real"
    assert not counter.waits.total


def test_devices_do_not_mix_and_shapes_do_not_depend_on_values() -> None:
    with fake_gpu():
        x = torch.ones(3, device=CUDA)
        with pytest.raises(RuntimeError, match="devices"):
            x + torch.ones(3)
        with pytest.raises(AssertionError, match="waits"):
            x[x > 0]


def test_backward_is_autograds() -> None:
    """On the CPU, where there are both: weights used twice, broadcast, cut in parts, and a function of our own."""
    torch.manual_seed(0)
    table, lstm, bias = nn.Embedding(9, 4), nn.LSTM(4, 5), torch.zeros(1, requires_grad=True)
    parameters, gradients = [*table.parameters(), *lstm.parameters(), bias], []
    for run in (torch.autograd.backward, backward):
        states, _ = lstm(table(torch.tensor([[3, 4, 3]])) + bias)
        first, second = (states @ states.mT).softmax(-1).chunk(2, dim=-1)
        squares, unused = Squares.apply(states)
        assert unused.requires_grad, "and no gradient comes from it"
        run(squares.sum() * bias.exp().sum() + first.std() * second.mean())
        gradients.append([p.grad for p in parameters])
        for p in parameters:
            p.grad = None
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("layers", [3, 6])
def test_what_is_saved_is_freed_as_autograd_frees_it(layers: int) -> None:
    """So the most bytes that a pass takes are those that it takes where numbers are computed."""
    def peak(device: torch.device, run: Callable[[Tensor], object]) -> int:
        weights = [torch.ones(1000, device=device, requires_grad=True) for _ in range(layers)]
        with PeakBytes() as counter:
            y = weights[0] * 2
            for weight in weights:
                y = (y * weight).exp()
            run(y.sum())
        return counter.peak

    real = peak(torch.device("cpu"), Tensor.backward)
    with fake_gpu():
        kept = peak(CUDA, backward)
        with freed_as_read():
            assert peak(CUDA, backward) == pytest.approx(real, abs=8), "but for a number"
    assert kept > real + 1000 * layers, "gradients beside all that was saved"


def test_a_gpu_that_is_not_there_is_gone_afterwards() -> None:
    with fake_gpu():
        pass
    with pytest.raises((RuntimeError, AssertionError)):
        torch.ones(3, device="cuda")
