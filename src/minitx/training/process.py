"""This process's environment: what its allocator and its threads are told before torch is imported."""

import os
import sys
from pathlib import Path

from minitx.config.schema import Config
from minitx.profiling.process import cores

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
