"""One optimizer step over planned micro-batches, under Lightning."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from minitx.batch import Batch
from minitx.config import OptimConfig
from minitx.data.module import PlannedUpdate
from minitx.models.base import Seq2Seq
from minitx.monitor.phases import Phases
from minitx.training.ema import EMA
from minitx.training.loss import linear_cross_entropy
from minitx.training.optimizer import build_optimizer
from minitx.training.schedule import lr_factor
from minitx.training.state import RunState

DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.float32, "bf16-true": torch.bfloat16, "64-true": torch.float64}


@dataclass(frozen=True)
class UpdateStats:
    """What one update measured; sums over its real target tokens, in nats."""

    loss_sum: float
    nll_sum: float
    n_tokens: int
    grad_norm: float
    lr: float
    finite: bool


class TranslationTask(pl.LightningModule):
    """Train a model on planned updates.

    Losses stay sums until one division by all target tokens of the update, so neither micro-batches nor ranks change
    the result. Dropout is seeded by position (seed, epoch, update, micro-batch), so neither history nor rank does.
    """

    def __init__(self, model: Seq2Seq, optim: OptimConfig, *, state: RunState, precision: str, seed: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model.to(DTYPES[precision])
        self.optim, self.state, self.precision, self.seed = optim, state, precision, seed
        self.compute_dtype = torch.bfloat16 if precision == "bf16-mixed" else None  # None = that of the weights
        self.ema = None if optim.ema_decay is None else EMA(self.model, optim.ema_decay)
        self.stats: UpdateStats | None = None  # of the last update
        self.phases = Phases(torch.device("cpu"))

    def on_fit_start(self) -> None:
        """Time phases on the device that the run has got by now."""
        self.phases = Phases(self.device)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return what moves the weights; Muon's products are in the format of the activations."""
        return build_optimizer(self.model, self.optim, self.compute_dtype or DTYPES[self.precision])

    def training_step(self, planned: PlannedUpdate, _: int) -> None:
        """Accumulate the update's gradient, clip it, step; skip the step if anything is not finite."""
        lr = self.optim.lr * self.lr_factor()
        optimizer: Any = self.optimizers(use_pl_optimizer=False)  # a tenth of a millisecond less
        for group in optimizer.param_groups:
            group["lr"] = lr
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)  # loss, nll
        for index, (batch, weight) in enumerate(planned.micro_batches):
            self.phases.mark("forward")
            seed_dropout(self.seed, planned.epoch, planned.update, index)
            loss_sum, nll_sum = self.losses(batch.to(self.device), self.optim.label_smoothing)
            self.phases.mark("backward")
            self.manual_backward(loss_sum * (weight / planned.n_tokens))
            sums += torch.stack([loss_sum.detach(), nll_sum]) * weight
        self.phases.mark("optimizer")
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = get_total_norm(gradients)
        loss_total, nll_total, grad_norm = torch.cat([sums, norm[None].to(sums)]).tolist()
        finite = bool(np.isfinite([loss_total, grad_norm]).all())
        if finite:
            if self.optim.clip_norm is not None:
                clip_grads_with_norm_(self.model.parameters(), self.optim.clip_norm, norm)
            optimizer.step()
            if self.ema is not None:
                self.ema.update(self.state.step - self.state.nonfinite)
        optimizer.zero_grad()
        self.phases.mark(None)
        self.stats = UpdateStats(loss_total, nll_total, planned.n_tokens, grad_norm, lr, finite)

    def averaged(self) -> AbstractContextManager[None]:
        """Let the model have its averaged weights inside this block, where an average is kept."""
        return nullcontext() if self.ema is None else self.ema.swapped_in()

    def lr_factor(self) -> float:
        """Return the share of the peak learning rate for the next update."""
        return lr_factor(self.optim.schedule, self.state.step, warmup_steps=self.optim.warmup_steps,
                         horizon=self.state.horizon_steps, decay_fraction=self.optim.decay_fraction)

    def losses(self, batch: Batch, smoothing: float) -> tuple[Tensor, Tensor]:
        """Return loss_sum and nll_sum over the real target tokens."""
        with self.model.computing_in(self.compute_dtype):
            features = self.model(batch.src, batch.tgt)  # --> [N, D]
        return linear_cross_entropy(features, self.model.output.weight, batch.labels, smoothing)


def seed_dropout(*position: int) -> None:
    """Seed torch's generators by a position in the run, so that what was drawn before does not matter."""
    torch.manual_seed(int(np.random.SeedSequence(position).generate_state(1, np.uint64)[0]))
