"""What commands that measure do first, as train.py does: compose a config, and set up the process."""

from collections.abc import Sequence

from minitx.config.schema import Config


def as_trained(overrides: Sequence[str]) -> Config:
    """Return the config as train.py would train it. Errors: `UserError` for what train.py would refuse."""
    from minitx.config.compose import compose  # Hydra
    from minitx.data.corpus import check_text
    from minitx.training.launch import settled

    cfg = compose(overrides)
    check_text(cfg.data)
    return settled(cfg)


def prepare(cfg: Config, owns_process: bool) -> None:
    """Bring the process into the state that training has."""
    from minitx.training.process import set_threads, tune_allocator

    if owns_process:
        tune_allocator(cfg)
    set_threads(cfg)
