"""Compare a GPU with the CPU: losses, gradients, search, a short training; and count where the host waits."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from families import Workbench, without_trainer
from gpu_rows import Result
from torch import Tensor

from minitx.data.datamodule import PlannedUpdate
from minitx.training.task import TranslationTask

CPU = torch.device("cpu")
LOSS, GRADIENT = {"32-true": 1e-5, "bf16-mixed": 2e-2}, {"32-true": 1e-3, "bf16-mixed": 0.2}  # largest relative error
DIFFERING = 0.02  # share of the hypotheses that may differ: between two nearly equal ones, rounding chooses
UPDATES, DRIFT = 50, 0.02  # of a training, and the relative difference allowed between its last losses
LIMIT = 20  # tokens of an output: an untrained model rarely ends one by itself
WAITS = "called a synchronizing CUDA operation"


def updates(bench: Workbench, count: int) -> list[PlannedUpdate]:
    """Return the first updates of the plan."""
    return list(islice(iter(bench.data.train_dataloader()), count))


class GradientRecorder:
    """An optimizer that records the gradient and changes no weight."""

    def __init__(self, task: TranslationTask) -> None:
        """task: whose parameters"""
        self.param_groups: list[dict[str, Any]] = [{"params": list(task.model.parameters())}]
        self.gradient = torch.empty(0)

    def step(self) -> None:
        """Record the gradient, as one vector in float64."""
        self.gradient = torch.cat([p.grad.detach().cpu().double().flatten()
                                   for p in self.param_groups[0]["params"] if p.grad is not None])

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for p in self.param_groups[0]["params"]:
            p.grad = None


def one_step(bench: Workbench, family: str, precision: str, device: torch.device,
             *words: str) -> tuple[float, Tensor]:
    """Return an update's loss a token and its clipped gradient, without dropout unless `words` say otherwise."""
    task = bench.task(family, precision, "model.dropout=0", *words).to(device)
    recorder = GradientRecorder(task)
    with without_trainer(task, device, optimizer=recorder):
        task.training_step(updates(bench, 1)[0], 0)
    assert task.stats is not None
    return task.stats.loss_sum / task.stats.n_tokens, recorder.gradient


def gradients(bench: Workbench, device: torch.device, family: str, precision: str) -> Result:
    """Compare an update's loss and gradient with the CPU's in fp32."""
    expected, found = (one_step(bench, family, p, d) for p, d in (("32-true", CPU), (precision, device)))
    return compared(expected, found, precision)


def recomputed(bench: Workbench, device: torch.device, family: str, precision: str) -> Result:
    """Compare an update whose layers are computed again for the gradient with one that keeps them, with dropout.

    Only if the device's generator is put back is it drawn as it was; else the gradient is off by half of its norm.
    """
    again = (f"trainer.activation_checkpointing={value}" for value in ("false", "true"))
    expected, found = (one_step(bench, family, precision, device, "model.dropout=0.3", word) for word in again)
    return compared(expected, found, precision)


def compared(expected: tuple[float, Tensor], found: tuple[float, Tensor], precision: str) -> Result:
    """Hold a loss and a gradient against others, to within what a precision allows."""
    (loss, gradient), (found_loss, found_gradient) = expected, found
    loss_error = abs(found_loss - loss) / loss
    error = float((found_gradient - gradient).norm() / gradient.norm())
    assert loss_error <= LOSS[precision], f"loss {found_loss} is not {loss}: off by {loss_error:.1e}"
    assert error <= GRADIENT[precision], f"gradient off by {error:.1e} of its norm"
    return f"loss off by {loss_error:.1e}, gradient by {error:.1e}", {"loss_error": loss_error, "gradient_error": error}


def search(bench: Workbench, device: torch.device, family: str, beam_size: int) -> Result:
    """Count the hypotheses that differ from the CPU's, in fp32."""
    found = [bench.translator(bench.task(family, "32-true", "model.dropout=0").to(place), family, place, LIMIT)
             .translate(bench.sources, beam_size=beam_size) for place in (CPU, device)]
    differ = sum(one != other for one, other in zip(*found, strict=True))
    assert differ <= DIFFERING * len(bench.sources), f"{differ} of {len(bench.sources)} hypotheses differ"
    return f"{differ} of {len(bench.sources)} differ", {"differ": differ, "sentences": len(bench.sources)}


def losses(bench: Workbench, family: str, precision: str, device: torch.device, count: int) -> list[float]:
    """Train without dropout, and return each update's loss a token."""
    task, values = bench.task(family, precision, "model.dropout=0").to(device), []
    with without_trainer(task, device):
        for update in updates(bench, count):
            task.training_step(update, 0)
            task.state.step += 1
            assert task.stats is not None
            values.append(task.stats.loss_sum / task.stats.n_tokens)
    return values


def training(bench: Workbench, device: torch.device, family: str, precision: str,
             count: int = UPDATES) -> Result:
    """Train some updates on both, and compare the last losses; rounding makes them drift apart a little."""
    expected = losses(bench, family, "32-true", CPU, count)
    found = losses(bench, family, precision, device, count)
    tail = max(1, count // 10)
    drift = abs(sum(found[-tail:]) / sum(expected[-tail:]) - 1)
    text = f"{count} updates: CPU {expected[0]:.4f} to {expected[-1]:.4f}, here {found[0]:.4f} to {found[-1]:.4f}"
    assert drift <= DRIFT, text
    return text, {"cpu": expected, "device": found}


@contextmanager
def record_waits(device: torch.device) -> Iterator[list[str]]:
    """Yield a list that is filled, at the block's end, with the places where the host waited for the GPU."""
    places: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.synchronize(device)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            torch.cuda.set_sync_debug_mode("default")
            places += [f"{w.filename.rpartition('/')[2]}:{w.lineno}" for w in caught if WAITS in str(w.message)]


def waits(bench: Workbench, device: torch.device, family: str, precision: str) -> Result:
    """Count the waits of an update; one is allowed, for loss and norm."""
    first, second = updates(bench, 2)
    task = bench.task(family, precision).to(device)
    with without_trainer(task, device):
        task.training_step(first, 0)
        with record_waits(device) as places:
            task.training_step(second, 0)
    assert len(places) <= 1, f"{len(places)} waits: {', '.join(places)}"
    return f"{len(places)} wait an update", {"places": places}
