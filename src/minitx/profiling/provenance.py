"""What a result depends on besides the config: code, packages, machine."""

import hashlib
import os
import platform
import resource
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from minitx.profiling.process import cores, physical_bytes
from minitx.utils.checkout import CHECKOUT, PACKAGE

CPUINFO = Path("/proc/cpuinfo")
CODE = ("src", "conf", "train.py", "pyproject.toml", "constraints.txt")  # what trains: results and pages may differ
NO_COMMIT = ("minitx was installed without its repository" if CHECKOUT is None else
             "this source is in no commit of a repository of its own")
TUNING = ("MALLOC_", "GLIBC_", "OMP_", "GOMP_", "MKL_")  # beginnings of names of variables
PACKAGES = ("torch", "lightning", "hydra-core", "datasets", "tokenizers", "sacrebleu", "safetensors", "numpy")


def git_state(root: Path = CHECKOUT or PACKAGE) -> tuple[str | None, bool | None]:
    """Return the commit of this source tree, and whether files differ from it; None, None where it has no commit.

    A repository counts only if its top is `root` and it tracks our package. One that this source was unpacked in does
    not, nor one that GIT_DIR or the like names.
    """
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*words: str) -> str:
        return subprocess.run(["git", "--no-optional-locks", "-C", root, *words], env=environ, capture_output=True,
                              text=True, check=True).stdout.strip()

    try:
        top, commit = git("rev-parse", "--show-toplevel", "HEAD").rsplit("\n", 1)
        git("ls-files", "--error-unmatch", "--", "src/minitx/__init__.py")
        if not root.samefile(top):
            return None, None
        return commit, bool(git("status", "--porcelain", "--", *CODE))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def code_sha256(package: Path = PACKAGE) -> str:
    """Hash the modules and word lists of a package, names included: what runs, whatever its commit or its version."""
    digest = hashlib.sha256()
    for path in sorted(path for path in package.rglob("*") if path.suffix in (".py", ".tsv")):
        digest.update(f"{path.relative_to(package).as_posix()} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def environment() -> dict[str, str]:
    """Return the environment variables that change speed."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(TUNING)}


def hardware(device: torch.device) -> dict[str, Any]:
    """Return processor, cores, memory, and the accelerator if one is used."""
    memory = physical_bytes()
    found: dict[str, Any] = {"cpu": _cpu_name(), "cores": cores(),
                             "memory_gib": None if memory is None else round(memory / 2**30, 1),
                             "bf16_units": bf16_units()}
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        found |= {"gpu": gpu.name, "gpu_memory_gib": round(gpu.total_memory / 2**30, 1), "cuda": torch.version.cuda}
    elif device.type == "mps":
        found["gpu"] = f"{found['cpu']} (MPS)"  # it has the same name, and the same memory
    return found


def bf16_units() -> str | None:
    """Name the CPU's units for bf16 products: AMX (tiles), AVX-512 (at most half as fast), or None."""
    if torch.cpu._is_amx_tile_supported():
        return "AMX"
    return "AVX-512" if torch.cpu._is_avx512_bf16_supported() else None


def peak_memory_gib(device: torch.device) -> float:
    """Return the peak memory so far: of the GPU's allocator, or resident where CPU and GPU share their memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)  # macOS counts bytes, Linux KiB


def _cpu_name() -> str:
    """Return the processor's name as Linux or macOS tells it, elsewhere what kind it is."""
    with suppress(OSError):
        lines = CPUINFO.read_text().splitlines()
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
                    platform.machine())
    with suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True,
                              check=True).stdout.strip()
    return platform.processor() or platform.machine()
