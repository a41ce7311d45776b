"""What a run that goes on may change, and the refusal, with every difference, of all else. Imports no torch."""

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from minitx.config import Config
from minitx.errors import Exit, UserError
from minitx.schema import show
from minitx.training.schedule import decay_begins
from minitx.training.state import RunState
from minitx.training.target import taken

MAY_CHANGE = ("run_dir", "resume", "debug", "choices", "checkpoint", "logger", "data.dir",
              "decode.beam_size", "decode.length_penalty", "decode.max_tokens",  # validation depends on the others
              "trainer.accelerator", "trainer.devices", "trainer.strategy", "trainer.max_restarts",
              "trainer.timeout_s", "trainer.threads", "trainer.max_steps", "trainer.max_minutes",
              "trainer.max_pflop", "trainer.target_bleu", "trainer.stop_at_target", "trainer.price_per_hour",
              "trainer.patience", "trainer.samples", "trainer.log_every_n_steps")  # fmt: skip
TEXT = ("data_sha256", "tokenizer_sha256")
ENDS = ("max_steps", "max_minutes", "max_pflop")
LIMITS = (*ENDS, "target_bleu")  # those that the state of a run depends on


def refuse_other_settings(asked: Mapping[str, Any], frozen: Mapping[str, Any], run_dir: Path) -> None:
    """Errors: `UserError` with each setting that differs from the frozen one and may not."""
    _refuse(run_dir, "other settings", _differences(asked, frozen))


def identity(data_sha256: str, tokenizer_sha256: str) -> dict[str, str]:
    """Return what a checkpoint must share with the run that goes on from it, beside the settings."""
    return {"data_sha256": data_sha256, "tokenizer_sha256": tokenizer_sha256,
            "minitx": version("minitx"), "torch": version("torch").partition("+")[0]}


def refuse_others(now: Mapping[str, str], saved: Mapping[str, str], run_dir: Path) -> None:
    """Errors: `UserError` (`Exit.DATA` where the text is concerned) with each part of the identity that differs."""
    differ = [name for name in now if saved[name] != now[name]]
    shown = {name: 12 if name in TEXT else None for name in differ}  # a digest's beginning tells it
    lines = [f"{name}: was {saved[name][:end]}, is {now[name][:end]}" for name, end in shown.items()]
    text = any(name in TEXT for name in differ)
    _refuse(run_dir, "another text or vocabulary, in which a position means nothing here" if text else
            "other versions, which may compute otherwise", lines, Exit.DATA if text else Exit.USAGE)


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
                            "begin another from its weights, with init_from")
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
        state.best_valid_bleu = state.best_step = state.best_sha256 = None
        state.validated_step = state.at_target = None
        state.validations_since_best = 0
        return
    first = next((entry for entry in validations if entry["bleu"] >= now), None)
    state.at_target = None if first is None else {**taken(first), "energy_wh": None}  # which was not looked at then


def _differences(asked: Mapping[str, Any], frozen: Mapping[str, Any], prefix: str = "") -> list[str]:
    lines: list[str] = []
    for name in {**asked, **frozen}:
        value, before, key = asked.get(name), frozen.get(name), prefix + name
        if key in MAY_CHANGE or value == before:
            continue
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            lines += _differences(value, before, key + ".")
        else:
            lines.append(f"{key}: was {show(before)}, asked {show(value)}")
    return lines


def _refuse(run_dir: Path, what: str, lines: list[str], code: Exit = Exit.USAGE) -> None:
    if lines:
        raise UserError("\n  ".join([f"run_dir={run_dir}: was begun with {what}; resume=auto trains on as begun. To "
                                     f"begin anew from its weights: init_from={run_dir} and another run_dir", *lines]),
                        code)
