"""From a checked config to a run: what this process's environment must say, then `train`, here or in several ranks.

What must be in place before torch is imported happens here; `launch` imports it afterwards.
"""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from minitx.config.schema import Config, resolve_size
from minitx.data.corpus import check_text, find_text
from minitx.distributed.cluster import outer_exit_code, outer_ranks
from minitx.runs.directory import open_run_dir, remove_run_dir
from minitx.runs.warm_start import adopt
from minitx.training.process import set_threads, uncollected, was_restarted
from minitx.utils.errors import Exit, UserError


def launch(cfg: Config) -> int:
    """Train in this process, or in as many as the config asks for, and return the exit code.

    Where torchrun or srun has started several of this process, it is one of the ranks.
    """
    ranks = outer_ranks()
    if not ranks:
        return launch_here(cfg)[1]
    cfg = resolve(cfg, ranks)
    set_threads(cfg)
    from minitx.training import worker

    return outer_exit_code(worker.run(cfg))  # the run directory stays: another rank may still read it


def launch_here(cfg: Config) -> tuple[Path, int]:
    """Train where nobody else has started ranks, and return the run directory and the exit code.

    A run that fails before it has learned anything leaves no new directory behind.
    """
    cfg = resolve(cfg)
    set_threads(cfg)
    run_dir, is_new = open_run_dir(cfg)
    cfg = replace(cfg, run_dir=str(run_dir))
    refused: int | None = None  # the exit code of a `UserError`, here or in a rank
    try:
        if cfg.trainer.devices > 1:
            from minitx.distributed.elastic import run_ranks

            with TemporaryDirectory(prefix="minitx-") as folder:
                refused = run_ranks(cfg, Path(folder))
            return run_dir, refused
        with uncollected():
            from minitx.training.train import train  # imports torch and Lightning: seconds

        return run_dir, int(train(cfg))
    except UserError as error:
        refused = error.code
        raise
    finally:
        learned = any((run_dir / name).exists() for name in ("checkpoints", "metrics.jsonl"))
        if is_new and refused in (Exit.USAGE, Exit.DATA) and not learned:
            remove_run_dir(run_dir)  # this run made all that is in it


def require_text(cfg: Config) -> None:
    """Refuse text that is not there. A run that goes on scores the test sets it began with, whatever lies there now.

    Errors: `UserError`. Of ranks that torchrun or srun started, the first to read the text will say so.
    """
    check_text(cfg.data)
    is_done = cfg.resume == "auto" and cfg.run_dir is not None and Path(cfg.run_dir, "result.json").is_file()
    if not was_restarted() and not outer_ranks() and not is_done:
        find_text(cfg.data if cfg.resume == "never" else replace(cfg.data, test_sets=[]))


def resolve(cfg: Config, ranks: int = 0) -> Config:
    """Return the config as trained: widths by `model.size`, ranks as started, and what `init_from` decides.

    ranks: as torchrun or srun has started; 0 if neither has. Errors: `UserError` for another number of devices than of
    ranks, or a run that `init_from` cannot begin with.
    """
    if ranks and cfg.trainer.devices not in (1, ranks):
        raise UserError(f"trainer.devices={cfg.trainer.devices}: {ranks} ranks were started; leave it out")
    devices = ranks or cfg.trainer.devices
    if cfg.trainer.strategy == "fsdp2" and devices == 1:
        raise UserError("trainer.strategy=fsdp2: shards a model over several ranks; set trainer.devices")
    return adopt(replace(cfg, model=resolve_size(cfg.model), trainer=replace(cfg.trainer, devices=devices)))
