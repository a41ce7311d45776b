"""This process's environment: settings of its allocator and its threads, which torch reads when it is imported."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from minitx.config.schema import Config
from minitx.distributed.cluster import FOLDER, outer_ranks
from minitx.profiling.process import cores, process_age_s
from minitx.utils.checkout import CHECKOUT, PACKAGE
from minitx.utils.errors import UserError

# Freed memory is kept and never given back: PyTorch on CPU trains 7-35 % faster, for it stops paying a page fault for
# each page of each large tensor. In huge pages, where the kernel gives them on request, it gains some per cent more.
# glibc reads these when a process begins, hence the `execve`.
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "20000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
ALLOCATOR = "MINITX_ALLOCATOR"  # set in the restarted process; `minitx doctor` shows it
# Threads that wait for one another spin before they sleep. libgomp's 300,000 rounds outlast a time slice: beside one
# busy program, two threads on two cores then train at a fraction of their speed, for one spins on the core that the
# other waits for. With so few rounds they still meet awake between products that follow closely (docs/performance.md).
SPIN = {"GOMP_SPINCOUNT": "1000"}


def tune_allocator(cfg: Config) -> None:
    """Restart this process with `MALLOC`, once, where that helps: Linux, glibc, training on the CPU.

    Only where this process runs nothing else: a session or a script that calls us would lose what it holds, or do its
    work twice. Not under a debugger, nor where the user chose such settings.
    """
    chosen = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if (chosen or was_restarted() or sys.gettrace() is not None or not _glibc() or _on_gpu(cfg)
            or not is_our_program(program())):
        return
    note = {ALLOCATOR: "glibc keeps freed memory and asks for huge pages (restarted with MALLOC_*, GLIBC_TUNABLES)"}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | MALLOC | note)


def age_s() -> float:
    """Return how long ago this process began, imports included, where it began in order to train; else 0.

    A notebook that has been open for an hour, or a script that trains twice, did not spend that on starting this run.
    """
    return process_age_s() if FOLDER in os.environ or is_our_program(program()) else 0.0


def was_restarted() -> bool:
    """Tell whether this process was started again by `tune_allocator`, or told that it need not be."""
    return ALLOCATOR in os.environ


def limit_spinning() -> None:
    """Let threads that wait for one another sleep soon (`SPIN`), unless the user has chosen otherwise.

    libgomp reads this once, when torch is imported.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ |= SPIN


@contextmanager
def uncollected() -> Iterator[None]:
    """Import libraries and load weights in a block without looking for garbage among them, which takes a fifth of it.

    Where this process runs nothing else, what is there by the end stays, and is never looked through again.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_our_program(program()):
            gc.freeze()
        if was_enabled:
            gc.enable()


def program() -> str:
    """Return the file that this interpreter was started to run; `<stdin>`, `<string>` or the like where it is none.

    That is where the outermost frame of the stack is, and of no other: `runpy` puts its script's name into `sys.argv`
    and its module into `sys.modules["__main__"]`.
    """
    frame: FrameType | None = sys._getframe()
    stack = []
    while frame is not None:
        stack.append(frame)
        frame = frame.f_back
    while stack[-1].f_globals.get("__name__") == "runpy":  # python -m
        stack.pop()
    return stack[-1].f_code.co_filename


def is_our_program(path: str) -> bool:
    """Tell whether a program is `train.py`, the `minitx` command or one of our modules."""
    script = Path(path).resolve()
    own = CHECKOUT is not None and script == CHECKOUT / "train.py"
    known = own or script.name == "minitx" or PACKAGE in script.parents
    return known and script.is_file()


def _glibc() -> bool:
    known = getattr(os, "confstr_names", {})  # not everywhere
    return "CS_GNU_LIBC_VERSION" in known and bool(os.confstr("CS_GNU_LIBC_VERSION"))


def _on_gpu(cfg: Config) -> bool:
    present = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()
    return cfg.trainer.accelerator == "gpu" or (cfg.trainer.accelerator == "auto" and present)


def set_threads(cfg: Config) -> None:
    """Set the threads of OpenMP and MKL: `trainer.threads`, else what the user exported, else all cores.

    Ranks on one host share its cores. Under torchrun OMP_NUM_THREADS does not count: it exports 1 itself. Errors:
    `UserError` where OMP_NUM_THREADS is no number of threads.
    """
    here = int(os.environ["LOCAL_WORLD_SIZE"]) if outer_ranks() else cfg.trainer.devices
    exported = "" if "TORCHELASTIC_RUN_ID" in os.environ else os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if exported and not (exported.isdecimal() and int(exported)):
        raise UserError(f"OMP_NUM_THREADS={exported}: must be a whole number of at least 1; unset it, or set "
                        "trainer.threads")
    threads = cfg.trainer.threads or exported or max(1, cores() // here)
    limit_spinning()
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
