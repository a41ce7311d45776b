"""Save a run's whole state every so many steps and at its end, and give the optimizer its moments back."""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from minitx.distributed.fsdp import shared_as, whole
from minitx.runs.checkpoint import keep_weights, model_tensors, save_checkpoint
from minitx.training.callbacks import RunContext
from minitx.training.resume import limits
from minitx.training.task import TranslationTask


class Checkpoints(pl.Callback):
    """Save the run's whole state every so many steps, and at its end."""

    def __init__(self, run: RunContext) -> None:
        self.run = run
        self.saved: tuple[int, int | None] | None = None  # the step, and the validation that it knows of
        step, every = run.state.step, run.cfg.checkpoint.every_n_steps
        self.stopgap = step if step % every else None  # gone on from, and none that an uninterrupted run would have

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any,
                           batch_idx: int) -> None:
        if self.run.state.step % self.run.cfg.checkpoint.every_n_steps == 0:
            self.save(trainer, pl_module)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.run.stop_reason != "max_nonfinite":  # else the last good one stays the newest
            self.save(trainer, pl_module)

    def save(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Write `run_tensors`, and counters with the position in the plan; the first rank does."""
        assert isinstance(task, TranslationTask)
        run = self.run
        if self.saved == (now := (run.state.step, run.state.validated_step)):
            return
        with run.clock.during("checkpoint"):
            tensors = run_tensors(task, trainer.optimizers[0])
            if run.ranks.is_main:
                self.write(tensors)
            run.state.checkpoint_s = run.clock.seconds("checkpoint")
        self.saved = now

    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """Write the checkpoint, and beside it the best weights that it knows of. Errors: OSError"""
        run = self.run
        if run.state.best_sha256 is not None:
            keep_weights(run.run_dir, run.state.best_sha256, run.cfg.checkpoint.keep)
        meta = {"state": run.state.as_dict(), "limits": limits(run.cfg), "identity": run.identity,
                "test_sets": run.test_sets}
        save_checkpoint(run.run_dir / "checkpoints", run.state.step, tensors, meta, run.cfg.checkpoint.keep,
                        self.stopgap)
        self.stopgap = None


def run_tensors(task: TranslationTask, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint: weights (raw as `model/`, averaged as `ema/`) and moments (`optim/`).

    They are whole, even where ranks share them; all ranks call it.
    """
    tensors = {f"model/{n}": t for n, t in model_tensors(task.model).items()}
    names: dict[Tensor, str] = {p: n for n, p in task.model.named_parameters()}
    for parameter, moments in optimizer.state.items():
        tensors |= {f"optim/{names[parameter]}/{key}": value for key, value in moments.items()}
    if task.ema is not None:
        tensors |= {f"ema/{n}": t for n, t in task.ema.named().items()}
    return {name: whole(tensors[name]) for name in sorted(tensors)}  # in one order on all ranks


class Restore(pl.Callback):
    """Give the optimizer the moments of a checkpoint back, saved as `parameter/key`, before the first update."""

    def __init__(self, moments: Mapping[str, Tensor]) -> None:
        self.moments = moments

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TranslationTask)
        parameters = dict(pl_module.model.named_parameters())
        for name, value in self.moments.items():
            parameter, moment = name.rsplit("/", 1)
            owner = parameters[parameter]
            shared = value if value.dim() == 0 else shared_as(owner, value)
            trainer.optimizers[0].state[owner][moment] = shared.to(owner.device)  # fused AdamW: "step" too
