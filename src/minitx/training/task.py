"""One optimizer step over planned micro-batches, under Lightning."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import isfinite
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from minitx.config.schema import OptimConfig
from minitx.data.batch import Batch
from minitx.data.datamodule import PlannedUpdate
from minitx.distributed.fsdp import whole
from minitx.distributed.ranks import SINGLE, Ranks
from minitx.models.base import Seq2Seq
from minitx.models.precision import computing_in, finest
from minitx.profiling.timers import Phases
from minitx.runs.checkpoint import load_tensors, model_tensors
from minitx.training import loss_scale
from minitx.training.compilation import Compiled
from minitx.training.ema import EMA
from minitx.training.loss import linear_cross_entropy
from minitx.training.optimizer import build_optimizer
from minitx.training.recomputation import could_recompute
from minitx.training.schedule import lr_factor
from minitx.training.state import RunState
from minitx.utils.errors import UserError

DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.float32, "16-mixed": torch.float32,
          "bf16-true": torch.bfloat16, "64-true": torch.float64}  # of weights
ACTIVATIONS = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}  # where these have another type


@dataclass(frozen=True)
class UpdateStats:
    """Hold what one update measured; sums over this rank's real target tokens, in nats."""

    loss_sum: float
    nll_sum: float
    n_tokens: int
    grad_norm: float
    lr: float
    finite: bool
    overflowed: bool = False  # not finite, but a smaller loss scale may help


class TranslationTask(pl.LightningModule):
    """Train a model on planned updates.

    Losses stay sums until one division by all target tokens of the update, so neither micro-batches nor ranks change
    the result. Dropout is seeded by position (seed, epoch, update, micro-batch), so neither history nor rank does.
    """

    def __init__(self, model: Seq2Seq, optim: OptimConfig, *, state: RunState, precision: str, seed: int,
                 ranks: Ranks = SINGLE, plain: Seq2Seq | None = None, compiles: bool = False) -> None:
        """plain: where each rank holds a part of the model, a whole one to gather its weights in

        compiles: whether its layers are compiled code while they train
        """
        super().__init__()
        self.automatic_optimization = False
        self.model, self.ranks = model.to(DTYPES[precision]), ranks
        self.plain = [] if plain is None else [plain]  # in a list: its weights are not this module's own
        self.optim, self.state, self.precision, self.seed = optim, state, precision, seed
        self.compute_dtype = ACTIVATIONS.get(precision)  # None = that of the weights
        if self.compute_dtype is torch.float16 and state.loss_scale is None:
            state.loss_scale = loss_scale.FIRST
        self.compiled = Compiled(self.model) if compiles else None
        self.ema = None if optim.ema_decay is None else EMA(self.model, optim.ema_decay)
        self.stats: UpdateStats | None = None  # of the last update
        self.phases = Phases(torch.device("cpu"))

    def on_fit_start(self) -> None:
        """Time phases on the device that the run has got by now."""
        self.phases = Phases(self.device)

    def configure_model(self) -> None:
        """Do nothing: Lightning asks for this where ranks share a model's parts, which `build` has seen to."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return what moves the weights; Muon's products are in the format of the activations."""
        return build_optimizer(self.model, self.optim, self.compute_dtype or DTYPES[self.precision])

    def training_step(self, planned: PlannedUpdate, _: int) -> None:
        """Accumulate the update's gradient, clip it, step; skip the step if anything is not finite."""
        lr, scale = self.optim.lr * self.lr_factor(), self.state.loss_scale
        optimizer, model = cast(Any, self.optimizers()), self.compiled or self.model
        for group in optimizer.param_groups:
            group["lr"] = lr
        sums = torch.zeros(2, dtype=finest(self.device), device=self.device)  # loss, nll
        for turn in planned.turns:
            self.phases.mark("forward")
            seed_dropout(self.seed, planned.epoch, planned.update, turn.number)
            with explain_out_of_memory(turn.batch, self.model):
                loss_sum, nll_sum = self.losses(model, turn.batch.to(self.device), self.optim.label_smoothing)
                self.phases.mark("backward")
                factor = self.ranks.size if scale is None else scale  # ranks average their gradients
                share = turn.weight * factor / planned.n_tokens
                self.sync_gradients(now=turn is planned.turns[-1])
                self.manual_backward(loss_sum * (share + 0 * loss_sum.detach()))  # what is not finite reaches all ranks
            sums += torch.stack([loss_sum.detach(), nll_sum]) * turn.weight
        self.phases.mark("optimizer")
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if scale is not None:  # the factor of the ranks comes in now: what fits fp16 does not depend on their number
            torch._foreach_mul_(gradients, self.ranks.size / scale)
        norm = whole(get_total_norm(gradients))
        loss_total, nll_total, grad_norm = torch.cat([sums, norm[None].to(sums)]).tolist()
        finite = isfinite(grad_norm)  # the same on all ranks
        overflowed = loss_scale.settle(self.state, finite)
        if finite:
            if self.optim.clip_norm is not None:
                clip_grads_with_norm_(self.model.parameters(), self.optim.clip_norm, norm)
            optimizer.step()
            if self.ema is not None:
                self.ema.update(self.state.step - self.state.nonfinite - self.state.overflows)
        optimizer.zero_grad()
        self.phases.mark(None)
        n_tokens = sum(turn.batch.n_tokens for turn in planned.turns if turn.weight)
        self.stats = UpdateStats(loss_total, nll_total, n_tokens, grad_norm, lr, finite, overflowed)

    def sync_gradients(self, now: bool) -> None:
        """Have the next backward pass average the ranks' gradients, or only add to this rank's."""
        if self.plain:
            cast(Any, self.model).set_requires_gradient_sync(now)
        elif self.ranks.size > 1:
            cast(Any, self.trainer.model).require_backward_grad_sync = now

    @contextmanager
    def serving(self) -> Iterator[Seq2Seq]:
        """Yield the model as it is evaluated and saved: whole, with averaged weights where an average is kept."""
        if not self.plain:
            with nullcontext() if self.ema is None else self.ema.swapped_in():
                yield self.model
            return
        weights = model_tensors(self.model) | ({} if self.ema is None else self.ema.named())
        plain = self.plain[0].to(self.device)
        with torch.no_grad():
            load_tensors(plain, {name: whole(tensor) for name, tensor in weights.items()})
        try:
            yield plain
        finally:
            plain.cpu()

    def holding(self, weights: Mapping[str, Tensor]) -> Seq2Seq:
        """Return a whole model with these weights, when training is over: it may be the one that was trained."""
        model = self.plain[0].to(self.device) if self.plain else self.model
        load_tensors(model, weights)
        return model

    def lr_factor(self) -> float:
        """Return the share of the peak learning rate for the next update."""
        return lr_factor(self.optim.schedule, self.state.step, warmup_steps=self.optim.warmup_steps,
                         horizon=self.state.horizon_steps, decay_fraction=self.optim.decay_fraction)

    def losses(self, model: Seq2Seq | Compiled, batch: Batch, smoothing: float) -> tuple[Tensor, Tensor]:
        """Return loss_sum and nll_sum over the real target tokens."""
        with computing_in(self.compute_dtype):
            features = model(batch.src, batch.tgt)  # --> [N, D]
        return linear_cross_entropy(features, model.output.weight, batch.labels, smoothing)


@contextmanager
def explain_out_of_memory(batch: Batch, model: Seq2Seq) -> Iterator[None]:
    """Turn running out of memory at a micro-batch into advice. Errors: `UserError`"""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        B, S, T = len(batch.src.lengths), batch.src.longest, batch.tgt.longest
        again = ", set trainer.activation_checkpointing=true" if could_recompute(model) else ""
        raise UserError(f"out of memory at a micro-batch of {B} sentences, up to {S} source and {T} target tokens: "
                        f"lower data.max_tokens (updates stay as large){again}, or lower data.max_length or "
                        "model.size") from error


def seed_dropout(*position: int) -> None:
    """Seed torch's generators by a position in the run, so that what was drawn before does not matter."""
    torch.manual_seed(int(np.random.SeedSequence(position).generate_state(1, np.uint64)[0]))
