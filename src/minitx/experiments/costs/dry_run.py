"""A dry run: some real updates of a training that is not started, for its seconds an update and its bytes."""

from dataclasses import dataclass, field
from statistics import quantiles
from time import perf_counter
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from typing_extensions import override

from minitx.data.batching import shapes
from minitx.data.datamodule import TranslationData
from minitx.profiling.peak import synchronize
from minitx.profiling.provenance import peak_memory_gib
from minitx.runs.checkpoint import model_tensors
from minitx.training.build import build_trainer
from minitx.training.callbacks import training_flop
from minitx.training.checkpointing import run_tensors
from minitx.training.task import TranslationTask
from minitx.training.telemetry import split
from minitx.utils.console import Console, duration
from minitx.utils.progress import remaining_s

WARM_UP = 3  # updates: the widest, which takes the most memory, and two more until allocators and kernels settle
MAX_UPDATES, MIN_UPDATES, MEASURE_S = 30, 4, 4.0  # measure until there are 30, or 4 seconds' worth and at least 4


@dataclass(frozen=True)
class DryRun:
    """What a dry run measured, its warm-up left out."""

    update_s: list[float]  # of each update
    tgt_tokens: int  # of all measured updates
    peak_memory_gib: float  # during updates; validation and search may take more
    checkpoint_bytes: int
    model_bytes: int  # of model.safetensors
    split_s: dict[str, float] = field(default_factory=dict)  # all measured updates: waiting for data, and phases
    flop: float | None = None  # all measured updates: operations on real tokens

    @property
    def quartiles_s(self) -> tuple[float, float, float]:
        """The quartiles of an update's seconds."""
        low, middle, high = quantiles(self.update_s, n=4, method="inclusive")
        return low, middle, high


def dry_run(task: TranslationTask, data: TranslationData, device: torch.device, console: Console) -> DryRun:
    """Train for some seconds, starting at the plan's widest update. Nothing is written; the task's weights change.

    Errors: `UserError` if memory runs out; KeyboardInterrupt
    """
    data.start = (0, widest_update(data))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    stopwatch = Stopwatch(console, data)
    fit_until_stopped(build_trainer(device, [stopwatch]), task, data)
    flops: list[Any] = stopwatch.flops[WARM_UP:]
    return DryRun(stopwatch.update_s[WARM_UP:], sum(stopwatch.tgt_tokens[WARM_UP:]), peak_memory_gib(device),
                  stopwatch.checkpoint_bytes, sum(t.nbytes for t in model_tensors(task.model).values()),
                  stopwatch.split_s(), None if None in flops else sum(flops))


def fit_until_stopped(trainer: pl.Trainer, task: TranslationTask, data: TranslationData) -> None:
    """Train until a callback stops the trainer. Errors: KeyboardInterrupt, which Lightning turns into SystemExit"""
    try:
        trainer.fit(task, datamodule=data)
    except SystemExit as error:
        raise KeyboardInterrupt from error


def widest_update(data: TranslationData) -> int:
    """Return the place, in the first window's plan, of the update with the largest micro-batch."""
    split, plan, _ = data.window(0)
    rows, src, tgt = shapes(plan, split.src_len, split.tgt_len, data.cfg.data.pad_to_multiple).T
    update_of = np.repeat(np.arange(len(plan)), [len(update.micro_batches) for update in plan])
    return int(update_of[np.argmax(rows * (src + tgt))])


class Stopwatch(pl.Callback):
    """Time whole updates, including the wait for their batch, and stop the trainer once there are enough."""

    def __init__(self, console: Console, data: TranslationData) -> None:
        """data: asked how long the trainer waits for batches"""
        self.console, self.data = console, data
        self.update_s: list[float] = []
        self.tgt_tokens: list[int] = []
        self.flops: list[float | None] = []
        self.splits: list[dict[str, float]] = []  # after each update, of all so far
        self.checkpoint_bytes = 0

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.last = perf_counter()

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any,
                           batch_idx: int) -> None:
        assert isinstance(pl_module, TranslationTask)
        synchronize(pl_module.device)
        self.update_s.append(perf_counter() - self.last)
        self.tgt_tokens.append(batch.n_tokens)
        self.flops.append(training_flop(pl_module.model, batch))
        self.splits.append(split(pl_module, self.data))
        self.last += self.update_s[-1]
        pl_module.state.step += 1
        measured = self.update_s[WARM_UP:]
        trainer.should_stop = (len(measured) == MAX_UPDATES
                               or len(measured) >= MIN_UPDATES and sum(measured) >= MEASURE_S)
        done, elapsed_s = len(self.update_s), sum(self.update_s)
        enough = min(MAX_UPDATES, max(MIN_UPDATES, MEASURE_S * done / elapsed_s))
        self.console.live(f"measuring: update {done}  eta {duration(remaining_s(elapsed_s, done, WARM_UP + enough))}")

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TranslationTask)
        tensors = run_tensors(pl_module, trainer.optimizers[0])
        self.checkpoint_bytes = sum(tensor.nbytes for tensor in tensors.values())

    def split_s(self) -> dict[str, float]:
        """Return the seconds of each part of the measured updates."""
        before, after = self.splits[WARM_UP - 1], self.splits[-1]
        return {name: seconds - before[name] for name, seconds in after.items()}
