"""What happens around each update: counting, progress, stopping. Validation and checkpoints are callbacks, too."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from typing_extensions import override

from minitx.config.schema import Config
from minitx.data.datamodule import PlannedUpdate
from minitx.distributed.ranks import Ranks
from minitx.models.base import Seq2Seq
from minitx.profiling.peak import Peak
from minitx.profiling.timers import Clock
from minitx.training.compilation import Made
from minitx.training.coordination import Agreement, out_of_time, share_done
from minitx.training.loggers import LoggerGuard
from minitx.training.schedule import decay_begins
from minitx.training.state import RunState
from minitx.training.task import TranslationTask, UpdateStats
from minitx.utils.console import Console, duration
from minitx.utils.progress import remaining_s

# Of what is left when the horizon is fixed, so that a slightly slower rest still reaches it; work does not get slower.
HORIZON_MARGIN = {"max_minutes": 0.98, "max_pflop": 1.0}


@dataclass
class RunContext:
    """What the callbacks of one run share."""

    cfg: Config
    run_dir: Path
    state: RunState
    clock: Clock
    console: Console
    agreement: Agreement
    updates_per_epoch: int
    identity: dict[str, str]  # what a checkpoint must share with the run that resumes from it
    test_sets: tuple[str, ...]  # that are scored at the end
    peak: Peak
    logger: LoggerGuard | None  # the first rank's
    stop_reason: str | None = None

    @property
    def ranks(self) -> Ranks:
        """Return the ranks that train together."""
        return self.agreement.ranks

    def record(self, event: str, **values: Any) -> None:
        """Append one line to RUN/metrics.jsonl, and pass it to the logger; the first rank does."""
        if not self.ranks.is_main:
            return
        entry = {"event": event, "step": self.state.step, "train_s": round(self.state.train_s, 3), **values}
        with (self.run_dir / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(entry, allow_nan=False) + "\n")
        if self.logger is not None:
            self.logger.record(entry)


class Bookkeeping(pl.Callback):
    """Count each update, fix the horizon once, and write metrics. Sums over ranks are made when they are written."""

    def __init__(self, run: RunContext) -> None:
        self.run, self.state = run, run.state
        self.pending: list[UpdateStats] = []
        self.positions = 0  # of this rank, since the last record
        self.before = replace(run.state)  # as of the last record

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.state.startup_s = self.run.clock.seconds("startup")
        self.run.clock.switch("train")

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any,
                           batch_idx: int) -> None:
        assert isinstance(pl_module, TranslationTask)
        assert pl_module.stats is not None
        state, stats = self.state, pl_module.stats
        state.epoch, state.update = divmod(batch.epoch * self.run.updates_per_epoch + batch.update + 1,
                                           self.run.updates_per_epoch)
        state.step += 1
        state.tokens += batch.n_tokens
        self.positions += positions(batch)
        flop = training_flop(pl_module.model, batch)
        state.flop = None if state.flop is None or flop is None else state.flop + flop
        state.overflows += stats.overflowed
        state.nonfinite += not (stats.finite or stats.overflowed)
        state.train_s = self.run.clock.seconds("train")
        self.fix_horizon()
        self.pending.append(stats)
        if not stats.finite:
            why = (f"a gradient does not fit fp16; update skipped, loss scale halved to {state.loss_scale:,.0f}"
                   if stats.overflowed else "loss or gradient is not finite; update skipped "
                   f"({state.nonfinite} of at most {self.run.cfg.trainer.max_nonfinite})")
            self.run.console.line(f"step {state.step}: {why}")
        every = self.run.cfg.trainer.log_every_n_steps, self.run.cfg.checkpoint.every_n_steps
        if not stats.finite or any(state.step % n == 0 for n in every):  # a resumed run then writes the same records
            self.write()

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.pending:
            self.write()

    def fix_horizon(self) -> None:
        """Turn a limit in minutes or operations into steps, once, at the speed so far, shortly before any decay begins.

        With a decay from the very start this waits for a twentieth of the run, since the first updates are slow. A
        warm-up that is still going on by then delays it, but not beyond 60 % of the run.
        """
        optim, trainer, state = self.run.cfg.optim, self.run.cfg.trainer, self.state
        begins = decay_begins(optim.schedule, optim.decay_fraction)
        agreement = self.run.agreement
        known, shares = state.horizon_steps or agreement.horizon, share_done(state, trainer)
        if known is not None or begins is None or not shares or not agreement.ranks.is_main:
            return
        share = max(*shares.values(), state.step / trainer.max_steps if trainer.max_steps else 0)
        if share < max(0.05, min(0.6, 0.85 * begins)) or (state.step < optim.warmup_steps and share < 0.6):
            return
        steps = min(state.step + int(HORIZON_MARGIN[limit] * (1 / done - 1) * state.step)
                    for limit, done in shares.items())
        agreement.horizon = min(steps, trainer.max_steps or steps)
        speed = state.step / state.train_s
        self.run.console.line(f"horizon: {agreement.horizon:,} steps, at the {speed:.2f} a second so far")
        self.run.record("horizon", horizon_steps=agreement.horizon)

    def write(self) -> None:
        """Write one record over the updates since the last."""
        state, pending, before = self.state, self.pending, self.before
        seconds = state.train_s - before.train_s
        flop = None if state.flop is None or before.flop is None else state.flop - before.flop
        finite = [stats for stats in pending if stats.finite]
        loss, nll, n_tokens, computed = self.run.ranks.all_reduce_sum(
            *(sum(getattr(stats, name) for stats in finite) for name in ("loss_sum", "nll_sum", "n_tokens")),
            self.positions)
        state.positions += int(computed)
        self.run.record(
            "train", epoch=round(state.epoch + state.update / self.run.updates_per_epoch, 4), tokens=state.tokens,
            loss=loss / n_tokens if finite else None, nll=nll / n_tokens if finite else None,
            lr=pending[-1].lr, nonfinite=state.nonfinite, **gradient_norms(finite, self.run.cfg.optim.clip_norm),
            tgt_tokens_per_s=(state.tokens - before.tokens) / seconds if seconds else None,
            tgt_positions_per_s=(state.positions - before.positions) / seconds if seconds else None,
            mfu_pct=self.run.peak.mfu_pct(flop, seconds),
            **({} if state.loss_scale is None else {"loss_scale": state.loss_scale, "overflows": state.overflows}))
        self.pending, self.positions, self.before = [], 0, replace(state)


def training_flop(model: Seq2Seq, planned: PlannedUpdate) -> float | None:
    """Count an update's operations on real tokens, over all ranks: forwards, and backwards two products for each."""
    forward = model.flops(*planned.lengths)
    return None if forward is None else 3 * forward


def positions(planned: PlannedUpdate) -> int:
    """Count the target positions that this rank computes of an update, filler included."""
    return sum(turn.batch.tgt.ids.numel() for turn in planned.turns if turn.weight)


def gradient_norms(finite: list[UpdateStats], clip_norm: float | None) -> dict[str, float | None]:
    """Summarise the gradient's norm before clipping: mean, largest, and the share of updates that were clipped."""
    norms = [stats.grad_norm for stats in finite]
    clipped = [clip_norm is not None and norm > clip_norm for norm in norms]
    return {"grad_norm": sum(norms) / len(norms) if norms else None, "grad_norm_max": max(norms, default=None),
            "clipped_pct": 100 * sum(clipped) / len(norms) if norms else None}


class Compilation(pl.Callback):
    """Say what the compiler made for an update, where layers are compiled, and how long it took."""

    def __init__(self, run: RunContext) -> None:
        self.run, self.said = run, Made(0, 0.0)

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any,
                           batch_idx: int) -> None:
        assert isinstance(pl_module, TranslationTask)
        if pl_module.compiled is None or (made := pl_module.compiled.made) == self.said:
            return
        graphs, seconds = made.graphs - self.said.graphs, made.seconds - self.said.seconds
        again = " more" if self.said.graphs else ""
        self.said = made
        self.run.console.line(f"step {self.run.state.step}: {graphs}{again} graph{'s' * (graphs != 1)} compiled, in "
                              f"{duration(seconds)}")
        self.run.record("compile", graphs=graphs, seconds=round(seconds, 3))


class Progress(pl.Callback):
    """Show how far the run is, how fast, and when it will be done."""

    def __init__(self, run: RunContext) -> None:
        self.run = run
        self.started = (run.state.step, run.state.tokens, run.state.train_s)

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any,
                           batch_idx: int) -> None:
        assert isinstance(pl_module, TranslationTask)
        assert pl_module.stats is not None
        if not self.run.ranks.is_main:
            return
        state, stats, limits = self.run.state, pl_module.stats, self.run.cfg.trainer
        seconds = state.train_s - self.started[2]
        horizon = state.horizon_steps or limits.max_steps
        left_s = [remaining_s(state.train_s, share) for share in share_done(state, limits).values()]
        if horizon:
            left_s.append(remaining_s(seconds, state.step - self.started[0], horizon - self.started[0]))
        bleu = "-" if state.valid_bleu is None else f"{state.valid_bleu:.1f}"
        self.run.console.live(
            f"step {state.step}{f'/{horizon}' if horizon else ''}  loss {stats.loss_sum / stats.n_tokens:.3f}  "
            f"{(state.tokens - self.started[1]) / seconds if seconds else 0:,.0f} tokens/s  "
            f"eta {duration(min(left_s)) if left_s else '-'}  valid BLEU {bleu}")


class Stopping(pl.Callback):
    """End the run at the first limit reached, or at a signal: after a whole update, with all saved.

    A limit follows from the run's state, which all ranks share; they agree on time and signals.
    """

    def __init__(self, run: RunContext) -> None:
        self.run = run

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = self.run.stop_reason is not None

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any,
                           batch_idx: int) -> None:
        run = self.run
        run.stop_reason = run.stop_reason or self.limit() or run.agreement.meet(run.state, run.cfg.trainer)
        trainer.should_stop = run.stop_reason is not None

    def reached_before(self) -> str | None:
        """Name the limit that a resumed run had already reached, if it had."""
        state, limits = self.run.state, self.run.cfg.trainer
        return self.limit() or ("max_minutes" if out_of_time(state, limits) else None)

    def limit(self) -> str | None:
        """Name the limit that is reached, if one is. It follows from what all ranks know."""
        state, limits = self.run.state, self.run.cfg.trainer
        if state.nonfinite >= limits.max_nonfinite:
            return "max_nonfinite"
        if limits.max_steps is not None and state.step >= limits.max_steps:
            return "max_steps"
        if limits.target_bleu is not None and limits.stop_at_target and state.at_target is not None:
            return "target_bleu"
        if limits.patience is not None and state.validations_since_best >= limits.patience:
            return "patience"
        shares = share_done(state, limits)
        if shares.get("max_pflop", 0) >= 1:
            return "max_pflop"
        if shares and state.horizon_steps is not None and state.step >= state.horizon_steps:
            return "max_pflop" if limits.max_minutes is None else "max_minutes"
        return None
