"""What one rank of several does to train: share a run directory, compare what all were given, train.

`python -m minitx.training.worker` is what `elastic` starts. Under torchrun or srun, `train.py` calls `run`.
"""

from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import torch

from minitx.config.schema import Config, config_sha256
from minitx.distributed.ranks import Ranks
from minitx.distributed.worker import run_rank, serve
from minitx.profiling.provenance import code_sha256, git_state, versions
from minitx.runs.directory import open_run_dir
from minitx.training.build import choose_device
from minitx.training.train import train
from minitx.utils.console import ignore_write_errors
from minitx.utils.errors import Exit, UserError


def main() -> NoReturn:
    """Be a rank that `elastic` started."""
    ignore_write_errors("stdout", "stderr")
    serve(train_together, choose_device)


def run(cfg: Config) -> int:
    """Be a rank that torchrun or srun started, and return the exit code."""
    return run_rank(cfg, train_together, choose_device)


def train_together(cfg: Config, ranks: Ranks, _: torch.device, folder: Path | None) -> int:
    """Train as one of several ranks. folder: of `elastic`, whose process has opened the run directory

    Errors: `UserError`, on all ranks, for what they do not share.
    """
    if folder is None:
        cfg = open_together(cfg, ranks)
    agree(cfg, ranks)
    return train(cfg, ranks)


def open_together(cfg: Config, ranks: Ranks) -> Config:
    """Open the run directory on the first rank, and return the config that names it. Errors: `UserError` on all."""
    with ranks.main_process_first("the run directory, opened"):
        if ranks.is_main:
            cfg = replace(cfg, run_dir=str(open_run_dir(cfg)[0].absolute()))
    return replace(cfg, run_dir=ranks.broadcast(cfg.run_dir))


def agree(cfg: Config, ranks: Ranks) -> None:
    """See that all ranks have one config, one code and one run directory. Errors: `UserError` on all of them."""
    ranks.agree(config=config_sha256(cfg), commit=str(git_state()[0]), code=code_sha256(), torch=versions()["torch"])
    assert cfg.run_dir is not None
    sees_it = ranks.all_gather(Path(cfg.run_dir).is_dir())
    if not all(sees_it):
        raise UserError(f"run_dir={cfg.run_dir}: rank {sees_it.index(False)} does not see it; name a folder that all "
                        "hosts share", Exit.STORAGE)


if __name__ == "__main__":
    main()
