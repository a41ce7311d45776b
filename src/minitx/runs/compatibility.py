"""Which settings may change when a run is resumed; any other difference is refused, with a line for each."""

import shlex
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from minitx.config.fields import show, text_word
from minitx.utils.checkout import own_version
from minitx.utils.errors import Exit, UserError

MAY_CHANGE = ("run_dir", "resume", "debug", "choices", "checkpoint", "logger", "data.dir",
              "data.recommends",  # what it sets is compared where it is set
              "decode.beam_size", "decode.length_penalty", "decode.max_tokens",  # validation depends on the others
              "trainer.accelerator", "trainer.devices", "trainer.strategy", "trainer.max_restarts",
              "trainer.timeout_s", "trainer.threads", "trainer.activation_checkpointing", "trainer.max_steps",
              "trainer.max_minutes", "trainer.max_pflop", "trainer.target_bleu", "trainer.stop_at_target",
              "trainer.price_per_hour", "trainer.patience", "trainer.samples", "trainer.log_every_n_steps")  # fmt: skip
TEXT = ("data_sha256", "tokenizer_sha256")


def refuse_other_settings(asked: Mapping[str, Any], frozen: Mapping[str, Any], run_dir: Path) -> None:
    """Errors: `UserError` with each setting that differs from the saved one and may not."""
    _refuse(run_dir, "other settings", _differences(asked, frozen))


def identity(data_sha256: str, tokenizer_sha256: str) -> dict[str, str]:
    """Return what a checkpoint must share with the run that resumes from it, besides the settings."""
    return {"data_sha256": data_sha256, "tokenizer_sha256": tokenizer_sha256,
            "minitx": own_version(), "torch": version("torch").partition("+")[0]}


def refuse_others(now: Mapping[str, str], saved: Mapping[str, str], run_dir: Path) -> None:
    """Errors: `UserError` (`Exit.DATA` if the text differs) with each part of the identity that differs."""
    differ = [name for name in now if saved[name] != now[name]]
    shown = {name: 12 if name in TEXT else None for name in differ}  # the start of a digest is enough
    lines = [f"{name}: was {saved[name][:end]}, is {now[name][:end]}" for name, end in shown.items()]
    text = any(name in TEXT for name in differ)
    _refuse(run_dir, "another text or vocabulary, in which a position means nothing here" if text else
            "other versions, which may compute otherwise", lines, Exit.DATA if text else Exit.USAGE)


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


def init_from(run_dir: Path) -> str:
    """Return the word that begins a new run with the weights of a run, as it is typed in a shell."""
    return shlex.quote(text_word("init_from", str(run_dir)))


def _refuse(run_dir: Path, what: str, lines: list[str], code: Exit = Exit.USAGE) -> None:
    if lines:
        head = (f"run_dir={run_dir}: was begun with {what}; resume=auto trains on as begun. To start a new run from "
                f"its weights: {init_from(run_dir)} and another run_dir")
        raise UserError("\n  ".join([head, *lines]), code)
