"""What the commands that measure share: their configs, the process that they measure in, how findings are printed."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minitx.config.schema import Config
from minitx.utils.errors import UserError
from minitx.utils.files import ensure_home
from minitx.utils.tables import aligned

if TYPE_CHECKING:
    from minitx.experiments.costs.doctor import Fact

FAMILIES = ("transformer", "lstm_attention", "lstm")  # compared unless others are named
FACT_WIDTH = 26  # of the names of facts, indented: the same in every section


def training_config(overrides: Sequence[str]) -> Config:
    """Return the config as train.py would train it. Errors: `UserError` for what train.py would refuse."""
    from minitx.config.compose import compose  # Hydra
    from minitx.data.corpus import check_text
    from minitx.training.launch import resolve

    cfg = compose(overrides)
    check_text(cfg.data)
    return resolve(cfg)


def compose_families(overrides: Sequence[str]) -> dict[str, Config]:
    """Return a config for each family of `model=A,B`, by its name. Errors: as `training_config`"""
    models = [word.removeprefix("model=") for word in overrides if word.startswith("model=")]
    others = [word for word in overrides if not word.startswith("model=")]
    names = models[-1].split(",") if models else FAMILIES
    return {name: training_config([*others, f"model={name}"]) for name in names}


def prepare_process(cfg: Config) -> None:
    """Give the process the allocator and the threads that training has."""
    from minitx.training.process import set_threads, tune_allocator

    ensure_home()
    tune_allocator(cfg)
    set_threads(cfg)


def check_plot(path: Path | None) -> None:
    """Refuse a figure that could not be drawn. Errors: `UserError` for another form than SVG, or without matplotlib."""
    from minitx.experiments.reports.plots import require_matplotlib

    if path is not None:
        if path.suffix != ".svg":
            raise UserError(f"--plot {path}: draws SVG; name a file that ends in .svg")
        require_matplotlib()


def section_text(name: str, facts: "Sequence[Fact]") -> str:
    """Return a section of findings as lines: its name, and each fact below it."""
    lines = aligned([(f"    {fact.name}", fact.text) for fact in facts], "<", [FACT_WIDTH])
    return "".join(f"{line}\n" for line in [name, *lines])
