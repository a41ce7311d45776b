"""From a checked config to a run: this process's environment, how many ranks; then `run.train`, or those who call it.

What must be in place before torch is imported happens here: `launch` imports it once that is done.
"""

import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from minitx.config import Config, resolve_size
from minitx.errors import Exit, UserError
from minitx.monitor.process import cores
from minitx.rundir import open_run_dir
from minitx.warmstart import adopt

# Freed memory is kept and never given back: PyTorch on CPU trains 7-35 % faster, for it stops paying a page fault for
# each page of each large tensor. In huge pages, where the kernel gives them on request, it gains some per cent more.
# glibc reads these when a process begins, hence the `execve`.
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "20000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
ALLOCATOR = "MINITX_ALLOCATOR"  # set once the process began again; `run` shows it in its header


def launch(cfg: Config) -> int:
    """Train in this process, or as many as the config asks for, and return the exit code.

    Where torchrun or srun has started several of this process, it is one of the ranks. A run that could not begin
    leaves no directory behind, but where it is one of several that were started.
    """
    ranks = outer_ranks()
    cfg = settled(cfg, ranks)
    set_threads(cfg)
    if ranks:
        from minitx.rank import attend

        return ended_on_purpose(attend(cfg))  # what it leaves behind of a slip, another rank may still look at
    run_dir, is_new = open_run_dir(cfg)
    cfg = replace(cfg, run_dir=str(run_dir))
    slip: int | None = None
    try:
        if cfg.trainer.devices > 1:
            from minitx.agent import run_ranks

            with TemporaryDirectory(prefix="minitx-") as folder:
                slip = run_ranks(cfg, Path(folder))
            return slip
        from minitx.run import train  # imports torch and Lightning: seconds

        return int(train(cfg))
    except UserError as error:
        slip = error.code
        raise
    finally:
        learned = any((run_dir / name).exists() for name in ("checkpoints", "metrics.jsonl"))
        if is_new and slip in (Exit.USAGE, Exit.DATA) and not learned:
            shutil.rmtree(run_dir, ignore_errors=True)  # all in it is this run's, and nothing was learned


def outer_ranks() -> int:
    """Return how many ranks torchrun or srun has started, 0 if neither has; srun's names become torchrun's."""
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        return int(env["WORLD_SIZE"])
    ranks = int(env.get("SLURM_STEP_NUM_TASKS", 1))  # set by srun alone, not in a batch script
    if ranks == 1:
        return 0
    port = 10_000 + int(env["SLURM_JOB_ID"]) * 16 % 50_000 + int(env["SLURM_STEP_ID"]) % 16
    here = re.fullmatch(r"(\d+)(\(x\d+\))?", env["SLURM_STEP_TASKS_PER_NODE"])
    first = re.match(r"([^\[,]+)(?:\[(\w+))?", env["SLURM_STEP_NODELIST"])  # "n[01-04,07]", "a,b"
    if here is None:
        raise UserError(f"SLURM_STEP_TASKS_PER_NODE={env['SLURM_STEP_TASKS_PER_NODE']}: hosts need equally many tasks; "
                        "set --ntasks-per-node")
    assert first is not None
    names = {"RANK": env["SLURM_PROCID"], "WORLD_SIZE": str(ranks), "LOCAL_RANK": env["SLURM_LOCALID"],
             "LOCAL_WORLD_SIZE": here[1], "MASTER_ADDR": "".join(first.groups("")), "MASTER_PORT": str(port)}
    for name, value in names.items():
        env.setdefault(name, value)
    return ranks


def ended_on_purpose(code: int) -> int:
    """Return the code for whoever started us: torchrun begins anew, or calls failed, what leaves with more than 0."""
    stopped = code in (Exit.INTERRUPTED, Exit.TERMINATED)
    return Exit.OK if stopped and "TORCHELASTIC_RUN_ID" in os.environ else code


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


# --- this process


def tune_allocator(cfg: Config) -> None:
    """Begin this process again with `MALLOC`, once, where that helps: Linux, glibc, training on the CPU.

    Only the owner of the process may call it. Not done under a debugger, nor where the user chose such settings.
    """
    chosen = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if chosen or ALLOCATOR in os.environ or sys.gettrace() is not None or not _glibc() or _on_gpu(cfg):
        return
    note = {ALLOCATOR: "glibc keeps freed memory and asks for huge pages (begun again with MALLOC_*, GLIBC_TUNABLES)"}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | MALLOC | note)


def _glibc() -> bool:
    return "CS_GNU_LIBC_VERSION" in os.confstr_names and bool(os.confstr("CS_GNU_LIBC_VERSION"))


def _on_gpu(cfg: Config) -> bool:
    present = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()
    return cfg.trainer.accelerator == "gpu" or (cfg.trainer.accelerator == "auto" and present)


def set_threads(cfg: Config) -> None:
    """Tell OpenMP and MKL their number of threads: `trainer.threads`, else what the user exported, else all cores.

    Ranks of one machine share its cores. What torchrun exports, always 1, no user meant.
    """
    here = int(os.environ.get("LOCAL_WORLD_SIZE", cfg.trainer.devices))
    exported = None if "TORCHELASTIC_RUN_ID" in os.environ else os.environ.get("OMP_NUM_THREADS")
    threads = cfg.trainer.threads or exported or max(1, cores() // here)
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
