"""From a run's config back to the command line that composes to it."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from minitx.config.fields import flatten, show
from minitx.config.schema import Config, as_dict, resolve_size
from minitx.runs.result import Result
from minitx.training.schedule import decay_begins
from minitx.utils.errors import UserError

# Where a run is kept, how it is shown and what it costs: not what is trained.
IGNORED = ("run_dir.", "resume.", "debug.", "choices.", "logger.", "data.dir.", "trainer.price_per_hour.")


def command_line(cfg: Config) -> str:
    """Return the shortest command that composes to `cfg`: its experiment, if it has one, and what differs from that.

    Errors: `UserError` if there is no such experiment, or no command composes to `cfg`.
    """
    from minitx.config.compose import compose  # Hydra, for this alone

    def equal(words: Sequence[str]) -> bool:
        try:
            return _flat(compose(words)) == wanted
        except UserError:  # a word less may be refused
            return False

    wanted = _flat(cfg)
    named = [] if cfg.choices.experiment is None else [f"experiment={cfg.choices.experiment}"]
    chosen = compose(named).choices
    words = [*named, *(f"{group}={option}" for group in ("data", "model")
                       if (option := getattr(cfg.choices, group)) != getattr(chosen, group))]
    now = _flat(compose(words))
    words += [f"{key}={show(value)}" for key, value in wanted.items() if now.get(key) != value]
    if not equal(words):
        raise UserError(f"experiment={cfg.choices.experiment}: no command line gives this run's config; "
                        "publish it with the version that trained it")
    for word in reversed(words[len(named):]):  # what follows from another word is left out: a size sets widths
        if equal(fewer := [other for other in words if other != word]):
            words = fewer
    return shlex.join(["python", "train.py", *words])


def exact_command(command: str, result: Result) -> str:
    """Return the command that repeats a run, to the bit on such a CPU. What the run decided is written out.

    Errors: `UserError` where the learning rate followed a clock from the start.
    """
    from minitx.config.compose import compose

    words = shlex.split(command)[2:]
    trainer = (cfg := compose(words)).trainer
    begins = decay_begins(cfg.optim.schedule, cfg.optim.decay_fraction)
    timed = trainer.max_minutes is not None or trainer.max_pflop is not None
    if timed and begins is not None and begins < 0.1:  # by then the horizon is fixed
        raise UserError(f"{command}: a decay over minutes or operations from the start is not repeated: its first "
                        "updates did not know its end")
    known = {"threads": result.threads, "precision": result.precision, "devices": result.world_size,
             "max_steps": result.steps, "max_minutes": None, "max_pflop": None}
    if result.horizon_steps != result.steps:
        known["horizon_steps"] = result.horizon_steps or 10 * result.steps  # where it ended before any decay
    added = {f"trainer.{name}={show(value)}": f"trainer.{name}=" for name, value in known.items()
             if getattr(trainer, name) != value}
    kept = [word for word in words if not word.startswith(tuple(added.values()))]
    return shlex.join(["python", "train.py", *kept, *added])


def _flat(cfg: Config) -> dict[str, Any]:
    """Return every dotted key that says what is trained, widths resolved."""
    settings = flatten(as_dict(replace(cfg, model=resolve_size(cfg.model))))
    return {key: value for key, value in settings.items() if not f"{key}.".startswith(IGNORED)}
