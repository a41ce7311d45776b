"""From a run's config back to the command line that means it."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from minitx.config.fields import show
from minitx.config.schema import Config, as_dict, resolve_size
from minitx.runs.result import Result
from minitx.training.schedule import decay_begins
from minitx.utils.errors import UserError

# Where a run is kept, shown or paid; not what it is.
ELSEWHERE = ("run_dir", "resume", "debug", "choices", "logger", "data.dir", "trainer.price_per_hour")


def command_line(cfg: Config) -> str:
    """Return the shortest command that composes to `cfg`: its experiment, and what differs from that.

    Errors: `UserError` if there is no such experiment, or no command that means the same.
    """
    from minitx.config.compose import compose  # Hydra, for this alone

    def equal(words: Sequence[str]) -> bool:
        try:
            return _flat(compose(words)) == asked
        except UserError:  # right with all of the words only
            return False

    asked = _flat(cfg)
    words = [f"experiment={cfg.choices.experiment}"]
    chosen = compose(words).choices
    words += [f"{group}={option}" for group in ("data", "model")
              if (option := getattr(cfg.choices, group)) != getattr(chosen, group)]
    now = _flat(compose(words))
    words += [f"{key}={show(value)}" for key, value in asked.items() if now.get(key) != value]
    if not equal(words):
        raise UserError(f"experiment={cfg.choices.experiment}: no command line gives this run's config; "
                        "publish it with the version that trained it")
    for word in words[:0:-1]:  # a size sets widths, a recommendation what follows it
        if equal(fewer := [other for other in words if other != word]):
            words = fewer
    return shlex.join(["python", "train.py", *words])


def exact_command(command: str, result: Result) -> str:
    """Return the command that repeats a run: what it had to find out is said. On such a CPU it does so to the bit.

    Errors: `UserError` where the learning rate followed a clock from the start.
    """
    from minitx.config.compose import compose

    words = shlex.split(command)[2:]
    trainer = (cfg := compose(words)).trainer
    begins = decay_begins(cfg.optim.schedule, cfg.optim.decay_fraction)
    open_end = trainer.max_minutes is not None or trainer.max_pflop is not None
    if open_end and begins is not None and begins < 0.1:  # the horizon is fixed by then at last
        raise UserError(f"{command}: a decay over minutes or operations from the start is not repeated, for its first "
                        "updates did not know its end")
    found = {"threads": result.threads, "precision": result.precision, "devices": result.world_size,
             "max_steps": result.steps, "max_minutes": None, "max_pflop": None}
    if result.horizon_steps != result.steps:
        found["horizon_steps"] = result.horizon_steps or 10 * result.steps  # where it ended before any decay
    said = {f"trainer.{name}={show(value)}": f"trainer.{name}=" for name, value in found.items()
            if getattr(trainer, name) != value}
    return shlex.join(["python", "train.py", *(word for word in words if not word.startswith(tuple(said.values()))),
                       *said])


def _flat(cfg: Config) -> dict[str, Any]:
    """Return every dotted key that makes a run what it is, widths resolved."""
    return dict(_leaves(as_dict(replace(cfg, model=resolve_size(cfg.model))), ""))


def _leaves(values: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        if (key := prefix + name) not in ELSEWHERE:
            found += _leaves(value, f"{key}.") if isinstance(value, Mapping) else [(key, value)]
    return found
