"""From a checked config to a run: this process's environment, the run directory, the frozen config; then `run.train`.

What must be in place before torch is imported happens here, so torch is imported by the last function's last line.
"""

import os
import shutil
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from minitx import frozen
from minitx.config import Config, as_dict, resolve_size
from minitx.errors import Exit, UserError
from minitx.monitor.process import cores
from minitx.resuming import refuse_other_settings
from minitx.warmstart import adopt

RUNS = Path("runs")
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
    """Train in this process and return the exit code; a run that could not begin leaves no directory behind."""
    cfg = settled(cfg)
    run_dir, is_new = open_run_dir(cfg)
    set_threads(cfg)
    from minitx.run import train  # imports torch and Lightning: seconds

    try:
        return int(train(replace(cfg, run_dir=str(run_dir))))
    except UserError as slip:
        if is_new and slip.code in (Exit.USAGE, Exit.DATA) and not (run_dir / "checkpoints").exists():
            shutil.rmtree(run_dir, ignore_errors=True)  # all in it is this run's, and nothing was learned
        raise


def settled(cfg: Config) -> Config:
    """Return the config as it is trained: widths by `model.size`, what the run it begins with decides.

    Errors: `UserError` for what this version cannot run, or a run that it cannot begin with.
    """
    if cfg.trainer.devices > 1:
        raise UserError(f"trainer.devices={cfg.trainer.devices}: this version runs one process; set trainer.devices=1")
    return adopt(replace(cfg, model=resolve_size(cfg.model)))


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
    """Tell OpenMP and MKL their number of threads: `trainer.threads`, else what the user exported, else all cores."""
    threads = cfg.trainer.threads or os.environ.get("OMP_NUM_THREADS") or max(1, cores() // cfg.trainer.devices)
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)


# --- the run directory


def open_run_dir(cfg: Config) -> tuple[Path, bool]:
    """Make or reopen the run directory, with the config frozen in it as `config.yaml`; also say whether it is new.

    Errors: `UserError` (`Exit.STORAGE`) if it cannot be written or holds something else; (`Exit.USAGE`) if a run that
    is to be resumed was begun with other settings.
    """
    run_dir = RUNS if cfg.run_dir is None else Path(cfg.run_dir)
    try:
        run_dir = _new_run_dir(cfg) if cfg.run_dir is None else run_dir
        run_dir.mkdir(parents=True, exist_ok=True)
        if cfg.resume == "auto" and _was_killed_at_once(run_dir):
            (run_dir / frozen.NAME).unlink()
        if is_new := not any(run_dir.iterdir()):
            _freeze(replace(cfg, run_dir=str(run_dir)), run_dir / frozen.NAME)
        else:
            check_run_dir(cfg)
    except FileExistsError as error:
        why = "is a file, not a folder" if run_dir.is_file() else "another run began here just now"
        raise UserError(f"run_dir={run_dir}: {why}", Exit.STORAGE) from error
    except OSError as error:
        raise UserError(f"run_dir={run_dir}: cannot be used: {error.strerror}", Exit.STORAGE) from error
    return run_dir, is_new


def check_run_dir(cfg: Config) -> None:
    """Refuse a run directory that is in use, or was begun with other settings. Errors: as `open_run_dir`."""
    run_dir = None if cfg.run_dir is None else Path(cfg.run_dir)
    try:
        if run_dir is None or not run_dir.exists() or not any(run_dir.iterdir()):
            return
        if cfg.resume == "never":
            raise UserError(f"run_dir={run_dir}: is not empty; name a new folder, or add resume=auto", Exit.STORAGE)
        if _was_killed_at_once(run_dir):
            return
        if not (run_dir / frozen.NAME).is_file():
            raise UserError(f"run_dir={run_dir}: no run to resume, it has no {frozen.NAME}", Exit.STORAGE)
    except NotADirectoryError as error:
        raise UserError(f"run_dir={run_dir}: is a file, not a folder", Exit.STORAGE) from error
    except OSError as error:
        raise UserError(f"run_dir={run_dir}: cannot be used: {error.strerror}", Exit.STORAGE) from error
    refuse_other_settings(as_dict(cfg), frozen.read_settings(run_dir), run_dir)


def _new_run_dir(cfg: Config) -> Path:
    """Make runs/TIME-DATA-MODEL (or TIME-EXPERIMENT), with a number added if two runs begin in one second."""
    what = cfg.choices.experiment or f"{cfg.choices.data}-{cfg.choices.model}"
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{what}"
    RUNS.mkdir(exist_ok=True)
    for number in range(1, 1000):
        run_dir = RUNS / (name if number == 1 else f"{name}-{number}")
        try:
            run_dir.mkdir()
        except FileExistsError:
            continue
        return run_dir
    raise UserError(f"run_dir=null: {RUNS / name} and 999 more exist", Exit.STORAGE)


def _freeze(cfg: Config, path: Path) -> None:
    """Write the config down; of two runs that begin in one folder at once, the second fails."""
    with path.open("xb") as file:
        file.write(frozen.to_yaml(cfg))
        file.flush()
        os.fsync(file.fileno())


def _was_killed_at_once(run_dir: Path) -> bool:
    """Tell whether all that is there is an empty config.yaml: a run that was killed while it began."""
    return [(path.name, path.stat().st_size) for path in run_dir.iterdir()] == [("config.yaml", 0)]
