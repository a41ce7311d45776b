"""From a checked config to a run: this process's environment, how many ranks; then `run.train`, or those who call it.

What must be in place before torch is imported happens here: `launch` imports it once that is done.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from minitx.config.schema import Config, resolve_size
from minitx.distributed.cluster import ended_on_purpose, outer_ranks
from minitx.runs.directory import open_run_dir
from minitx.runs.warm_start import adopt
from minitx.training.process import set_threads
from minitx.utils.errors import Exit, UserError


def launch(cfg: Config) -> int:
    """Train in this process, or as many as the config asks for, and return the exit code.

    Where torchrun or srun has started several of this process, it is one of the ranks. A run that could not begin
    leaves no directory behind, but where it is one of several that were started.
    """
    ranks = outer_ranks()
    cfg = settled(cfg, ranks)
    set_threads(cfg)
    if ranks:
        from minitx.training.worker import run_rank

        return ended_on_purpose(run_rank(cfg))  # what it leaves behind of a slip, another rank may still look at
    run_dir, is_new = open_run_dir(cfg)
    cfg = replace(cfg, run_dir=str(run_dir))
    slip: int | None = None
    try:
        if cfg.trainer.devices > 1:
            from minitx.distributed.elastic import run_ranks

            with TemporaryDirectory(prefix="minitx-") as folder:
                slip = run_ranks(cfg, Path(folder))
            return slip
        from minitx.training.train import train  # imports torch and Lightning: seconds

        return int(train(cfg))
    except UserError as error:
        slip = error.code
        raise
    finally:
        learned = any((run_dir / name).exists() for name in ("checkpoints", "metrics.jsonl"))
        if is_new and slip in (Exit.USAGE, Exit.DATA) and not learned:
            shutil.rmtree(run_dir, ignore_errors=True)  # all in it is this run's, and nothing was learned


def settled(cfg: Config, ranks: int = 0) -> Config:
    """Return the config as trained: widths by `model.size`, ranks as started, what the run it begins with decides.

    Errors: `UserError` for another number of devices than of ranks, or a run that it cannot begin with.
    """
    if ranks and cfg.trainer.devices not in (1, ranks):
        raise UserError(f"trainer.devices={cfg.trainer.devices}: {ranks} ranks were started; leave it out")
    devices = ranks or cfg.trainer.devices
    if cfg.trainer.strategy == "fsdp2" and devices == 1:
        raise UserError("trainer.strategy=fsdp2: shards a model over several ranks; set trainer.devices")
    return adopt(replace(cfg, model=resolve_size(cfg.model), trainer=replace(cfg.trainer, devices=devices)))
