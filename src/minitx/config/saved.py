"""RUN/config.yaml: all settings of a run, resolved and written before its first update."""

from pathlib import Path
from typing import Any

import yaml

from minitx.config.fields import parse
from minitx.config.schema import Config, as_dict
from minitx.utils.errors import Exit, UserError
from minitx.utils.files import write_atomically

NAME = "config.yaml"


def to_yaml(cfg: Config) -> bytes:
    """Return the settings as YAML, in the order of the schema."""
    return yaml.safe_dump(as_dict(cfg), sort_keys=False, allow_unicode=True).encode()


def freeze(cfg: Config, run_dir: Path) -> None:
    """Write the settings of a run atomically, replacing any that are there. Errors: `OSError`"""
    write_atomically(run_dir / NAME, to_yaml(cfg))


def read_settings(run_dir: Path) -> dict[str, Any]:
    """Read a run's settings unchecked; another version may have written them.

    Errors: `UserError` if this is no run directory, and (`Exit.STORAGE`) if the file is damaged or cannot be read.
    """
    path = run_dir / NAME
    try:
        values = yaml.safe_load(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{run_dir}: not a run directory (it has no {NAME})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})", Exit.STORAGE) from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: damaged ({' '.join(str(error).split())[:160]})", Exit.STORAGE) from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: damaged (it holds no settings)", Exit.STORAGE)
    return values


def read_config(run_dir: Path) -> Config:
    """Read a run's settings. Errors: as `read_settings`, and `UserError` for settings of another version."""
    values = read_settings(run_dir)
    try:
        return parse(Config, values)
    except UserError as error:
        raise UserError(f"{run_dir / NAME}: was written by another version, or changed: {error}") from error
