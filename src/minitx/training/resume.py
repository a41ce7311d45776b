"""What follows for horizon and target when a run is resumed under other limits. Imports no torch."""

from collections.abc import Iterable, Mapping
from typing import Any

from minitx.config.fields import show
from minitx.config.schema import Config
from minitx.training.schedule import decay_begins
from minitx.training.state import RunState
from minitx.training.time_to_target import spent
from minitx.utils.errors import UserError

ENDS = ("max_steps", "max_minutes", "max_pflop")
LIMITS = (*ENDS, "target_bleu")  # those that the state of a run depends on


def limits(cfg: Config) -> dict[str, float | None]:
    """Return the limits that a checkpoint notes, so that a run that goes on knows whether they moved."""
    return {name: getattr(cfg.trainer, name) for name in LIMITS}


def settle_horizon(cfg: Config, state: RunState, before: Mapping[str, float | None] | None) -> None:
    """Let a run limited by steps decay towards its last one; other limits turn into a horizon as the run goes on.

    `before`: the limits it ran under so far, if it did. Errors: `UserError` if they moved after the decay has begun.
    """
    now = limits(cfg)
    moved = [name for name in ENDS if before is None or before.get(name) != now[name]]
    in_steps = now["max_minutes"] is None and now["max_pflop"] is None
    horizon = cfg.trainer.horizon_steps or (cfg.trainer.max_steps if in_steps else None)
    if not moved or horizon == state.horizon_steps:
        return
    begins = decay_begins(cfg.optim.schedule, cfg.optim.decay_fraction)
    asked = " ".join(f"trainer.{name}={show(now[name])}" for name in moved)
    for steps, what in ((state.horizon_steps, "already decays"), (horizon, "would have decayed by now")):
        if before is not None and steps and begins is not None and state.step > begins * steps:
            raise UserError(f"{asked}: the learning rate {what} towards step {steps}; finish the run as begun, or "
                            "start another from its weights, with init_from")
    state.horizon_steps = horizon


def settle_target(state: RunState, now: float | None, before: float | None,
                  validations: Iterable[Mapping[str, Any]]) -> None:
    """Make what is known of the target true of another one.

    `validations`: the records of those on the full set. A run with a target is scored on that, else on a subset, and
    BLEU on one does not compare with BLEU on the other: the best weights are then chosen anew.
    """
    if now == before:
        return
    if now is None or before is None:
        state.forget_best()
        state.validated_step = state.at_target = None
        state.validations_since_best = 0
        return
    first = next((entry for entry in validations if entry["bleu"] >= now), None)
    state.at_target = None if first is None else {**spent(first), "energy_wh": None}  # which was not looked at then
