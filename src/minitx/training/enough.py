"""Whether a run is as long as its text needs: a rule of thumb, told at the start, and what follows at the end.

What a text needs is what its yaml recommends, or `PASSES` over it, if that is less: a small text is learned sooner.
"""

from dataclasses import replace
from math import ceil, inf
from typing import Any

import lightning.pytorch as pl
from typing_extensions import override

from minitx.config.schema import Config, DecodeConfig, TrainerConfig
from minitx.evaluation.metrics import LEARNED_BLEU
from minitx.training.callbacks import RunContext
from minitx.training.coordination import share_done
from minitx.training.state import RunState
from minitx.utils.console import duration

PASSES = 30  # over the training text
FEWEST = 300  # updates, however small the text
TOO_FEW = 0.25  # of the updates that a text needs: a run shorter than that is warned
TOO_MANY = 10  # times `PASSES` over it, or `FEWEST`: a run longer than that is warned
LONG_WARM_UP = 0.5  # of a run: one that warms up for longer is warned
MEASURED = 5  # updates after which a run's speed is known


def updates_needed(cfg: Config, updates_per_epoch: int) -> int:
    """Return about how many updates of the run's size its text needs."""
    recommends = cfg.data.recommends
    recommended = recommends.max_steps * recommends.tokens_per_update / cfg.trainer.tokens_per_update
    return ceil(min(recommended, max(FEWEST, PASSES * updates_per_epoch)))


def updates_planned(state: RunState, limits: TrainerConfig) -> float:
    """Return how many updates the run will have at its speed so far; infinite where nothing says so beforehand."""
    ends = [state.step / share for share in share_done(state, limits).values() if share]
    return min([*ends, limits.max_steps or inf])


class LongEnough(pl.Callback):
    """Warn, as soon as the speed is known, of a run that does not suit its text, or its own warm-up."""

    def __init__(self, run: RunContext) -> None:
        self.run = run
        self.first: tuple[int, float] | None = None  # step and seconds after this process's first update, a slow one
        self.is_told = not run.ranks.is_main

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any,
                           batch_idx: int) -> None:
        if self.is_told:
            return
        state = self.run.state
        self.first = self.first or (state.step, state.train_s)
        planned = updates_planned(state, self.run.cfg.trainer)
        step, began_s = self.first
        if (done := state.step - step) < min(MEASURED, planned - step):
            return
        self.is_told = True
        update_s = (state.train_s - began_s) / done if done else state.train_s / state.step
        for warning in warnings_of(self.run.cfg, planned, self.run.updates_per_epoch, update_s):
            self.run.console.warn(warning)


def warnings_of(cfg: Config, planned: float, updates_per_epoch: int, update_s: float) -> list[str]:
    """Return what is to be said of a run of so many updates. update_s: seconds that one takes"""
    needed = updates_needed(cfg, updates_per_epoch)
    found = []
    if cfg.init_from is None and planned < TOO_FEW * needed:
        are = f"{planned:,.0f} updates are" if round(planned) != 1 else "1 update is"
        found.append(f"{are} too few: this text needs about {needed:,}, "
                     f"{duration(needed * update_s)} at this speed ({_remedy(cfg.trainer, needed, update_s)})")
    if planned > TOO_MANY * max(FEWEST, PASSES * updates_per_epoch) and not ends_by_itself(cfg.trainer):
        passes = planned / updates_per_epoch
        found.append(f"{planned:,.0f} updates are far too many, {passes:,.0f} passes over this text: it needs about "
                     f"{needed:,}, {duration(needed * update_s)} at this speed (trainer.max_steps={needed}, or "
                     "trainer.patience=10 to end the run once validation finds nothing better)")
    if cfg.optim.warmup_steps > LONG_WARM_UP * planned:
        found.append(f"optim.warmup_steps={cfg.optim.warmup_steps}: the learning rate rises for more than half of the "
                     f"run's {planned:,.0f} updates; optim.warmup_steps={ceil(planned / 10)} would suit them")
    return found


def ends_by_itself(limits: TrainerConfig) -> bool:
    """Tell whether what validation finds ends the run, and its other limits are only the latest end."""
    return limits.patience is not None or limits.target_bleu is not None and limits.stop_at_target


def _remedy(limits: TrainerConfig, needed: int, update_s: float) -> str:
    """Write the limits that would be enough."""
    words = [f"trainer.max_steps={needed}"] if limits.max_steps is not None and limits.max_steps < needed else []
    if limits.max_minutes is not None and 60 * limits.max_minutes < needed * update_s:
        words.append(f"trainer.max_minutes={ceil(needed * update_s / 60)}")
    return " ".join(words) or "raise trainer.max_pflop"


def has_learned(state: RunState) -> bool:
    """Tell whether the weights that serve translate anything at all; True where that was not measured."""
    return state.best_valid_bleu is None or state.best_valid_bleu >= LEARNED_BLEU


def search_settings(decode: DecodeConfig, state: RunState) -> DecodeConfig:
    """Return how the test sets are searched: as asked or, where nothing was learned, as quickly as possible.

    Weights that have learned nothing rarely end a sentence, so searching with them would take longer than training did.
    """
    if has_learned(state):
        return decode
    return replace(decode, beam_size=1, max_length_ratio=min(1.0, decode.max_length_ratio), max_length_extra=1)
