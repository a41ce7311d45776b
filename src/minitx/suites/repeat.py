"""From a run's config back to the command line that means it."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from minitx.config import Config, as_dict, resolve_size
from minitx.errors import UserError
from minitx.schema import show

ELSEWHERE = ("run_dir", "resume", "debug", "choices", "logger", "data.dir")  # where a run is kept or shown; not what


def command_line(cfg: Config) -> str:
    """Return the shortest command that composes to `cfg`: its experiment, and what differs from that.

    Errors: `UserError` if there is no such experiment, or no command that means the same.
    """
    from minitx.door import compose  # Hydra, for this alone

    def meant(words: Sequence[str]) -> Config:
        return compose(words, text=False)

    def equal(words: Sequence[str]) -> bool:
        try:
            return _flat(meant(words)) == asked
        except UserError:  # right with all of the words only
            return False

    asked = _flat(cfg)
    words = [f"experiment={cfg.choices.experiment}"]
    chosen = meant(words).choices
    words += [f"{group}={option}" for group in ("data", "model")
              if (option := getattr(cfg.choices, group)) != getattr(chosen, group)]
    now = _flat(meant(words))
    words += [f"{key}={show(value)}" for key, value in asked.items() if now.get(key) != value]
    if not equal(words):
        raise UserError(f"experiment={cfg.choices.experiment}: no command line gives this run's config; "
                        "publish it with the version that trained it")
    for word in words[:0:-1]:  # a size sets widths, a recommendation what follows it
        if equal(fewer := [other for other in words if other != word]):
            words = fewer
    return shlex.join(["python", "train.py", *words])


def _flat(cfg: Config) -> dict[str, Any]:
    """Return every dotted key that makes a run what it is, widths resolved."""
    return dict(_leaves(as_dict(replace(cfg, model=resolve_size(cfg.model))), ""))


def _leaves(values: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        if (key := prefix + name) not in ELSEWHERE:
            found += _leaves(value, f"{key}.") if isinstance(value, Mapping) else [(key, value)]
    return found
