"""How busy the machine is with this process, and with others. A figure that cannot be read is None, with a reason."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from threading import Event, Thread
from time import perf_counter
from types import TracebackType
from typing import Any

import torch

from minitx.profiling.process import cores

EVERY_S = 1.0  # between two samples of a GPU
BUSY = (0, 1, 2, 5, 6, 7)  # of a line of /proc/stat: user, nice, system, irq, softirq, steal (guests are in user)


@dataclass(frozen=True)
class Usage:
    """Hold the usage over a stretch of time; percentages are of the cores that we may use, or of the GPU."""

    seconds: float
    busy_pct: float | None
    other_cpu_pct: float | None  # of the cores: taken by processes that are neither ours nor our children
    energy_wh: float | None
    gpu_memory_gib: float | None  # the most in use, by any process
    reasons: dict[str, str]  # why a figure is None, by its name

    def __add__(self, later: "Usage") -> "Usage":
        """Combine two stretches, of a run before and after it was killed. What one of them lacks is unknown."""
        seconds = self.seconds + later.seconds

        def weighted(one: float | None, other: float | None) -> float | None:
            return None if one is None or other is None else (one * self.seconds + other * later.seconds) / seconds

        energy = None if self.energy_wh is None or later.energy_wh is None else self.energy_wh + later.energy_wh
        memory = [gib for gib in (self.gpu_memory_gib, later.gpu_memory_gib) if gib is not None]
        return Usage(seconds, weighted(self.busy_pct, later.busy_pct),
                     weighted(self.other_cpu_pct, later.other_cpu_pct), energy,
                     max(memory) if len(memory) == 2 else None, self.reasons | later.reasons)


def combine(usages: Sequence[Usage]) -> Usage:
    """Combine the same stretch on several devices: mean percentages, total energy, largest memory."""
    def known(name: str) -> list[float]:
        values = [getattr(usage, name) for usage in usages]
        return [] if None in values else values

    busy, other, energy, memory = map(known, ("busy_pct", "other_cpu_pct", "energy_wh", "gpu_memory_gib"))
    reasons = {name: why for usage in usages for name, why in usage.reasons.items()}
    return Usage(usages[0].seconds, mean(busy) if busy else None, mean(other) if other else None,
                 sum(energy) if energy else None, max(memory, default=None), reasons)


# --- processor


@dataclass(frozen=True)
class Ticks:
    """Hold the kernel's counts so far: of the usable cores, and of this process and its descendants on any core."""

    busy: int
    total: int
    ours: int


def read_ticks(proc: Path = Path("/proc"), root: int | None = None) -> Ticks:
    """Read the counters. `ours` is the process `root` (by default this one) and all its descendants.

    Errors: OSError, ValueError, LookupError where /proc is not Linux's. Source: proc(5).
    """
    usable = {f"cpu{n}" for n in os.sched_getaffinity(0)}
    lines = [line.split() for line in (proc / "stat").read_text().splitlines()]
    counts = [[int(count) for count in line[1:9]] for line in lines if line and line[0] in usable]
    return Ticks(sum(line[i] for line in counts for i in BUSY), sum(map(sum, counts)),
                 sum(_of_ours(proc, root or os.getpid())))


def _of_ours(proc: Path, root: int) -> Iterable[int]:
    """Yield the ticks of a process and of its descendants, those that have ended included."""
    stats: dict[int, tuple[int, int]] = {}  # parent, ticks
    for folder in proc.glob("[0-9]*"):
        with suppress(OSError):  # it has just ended: its parent has its ticks
            words = (folder / "stat").read_bytes().rpartition(b")")[2].split()  # its name may be any bytes
            stats[int(folder.name)] = int(words[1]), sum(int(word) for word in words[11:15])
    for pid, (parent, ticks) in stats.items():
        while pid not in (root, 0) and parent in stats:
            pid, parent = parent, stats[parent][0]
        if pid == root:
            yield ticks


def cpu_usage(before: Ticks | None, after: Ticks | None) -> tuple[float | None, float | None, str]:
    """Compare two readings. Returns busy %, others' %, and the reason where they are None."""
    if before is None or after is None:
        return None, None, "/proc/stat cannot be read here"
    if cores() < len(os.sched_getaffinity(0)):
        return None, None, "the container has a quota of time, and no cores of its own"
    total, busy, ours = after.total - before.total, after.busy - before.busy, after.ours - before.ours
    if total <= 0:
        return None, None, "/proc/stat counts nothing here"
    return min(100.0, 100 * busy / total), max(0.0, 100 * (busy - ours) / total), ""


# --- GPU


class GPU:
    """Ask NVML about the GPU that torch uses. The two may number GPUs differently; they agree on the UUID alone."""

    def __init__(self, nvml: Any, uuid: str) -> None:
        """Find it. nvml: the module `pynvml`, initialised. Errors: whatever it raises, and RuntimeError on MIG."""
        self.nvml, self.handle = nvml, nvml.nvmlDeviceGetHandleByUUID(uuid)
        if nvml.nvmlDeviceIsMigDeviceHandle(self.handle) or mig_mode(nvml, self.handle):
            raise RuntimeError("NVML does not measure the slices of a GPU in MIG mode")
        self.busy: list[int] = []
        self.power_w: list[float] = []
        self.memory_gib: list[float] = []
        self.reasons: dict[str, str] = {}

    def sample(self) -> None:
        """Take one sample of each figure; one that fails is not asked for again."""
        self._try("busy_pct", lambda: self.busy.append(self.nvml.nvmlDeviceGetUtilizationRates(self.handle).gpu))
        self._try("gpu_memory_gib",
                  lambda: self.memory_gib.append(self.nvml.nvmlDeviceGetMemoryInfo(self.handle).used / 2**30))
        self._try("energy_wh", lambda: self.power_w.append(self.nvml.nvmlDeviceGetPowerUsage(self.handle) / 1000))

    def energy_j(self) -> float | None:
        """Return the joules counted by the driver; GPUs since Volta have that."""
        try:
            return float(self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)) / 1000
        except Exception:
            return None

    def _try(self, name: str, take: Callable[[], None]) -> None:
        if name not in self.reasons:
            try:
                take()
            except Exception as error:
                self.reasons[name] = f"NVML: {' '.join(str(error).split())[:100]}"


def mig_mode(nvml: Any, handle: Any) -> bool:
    """Tell whether the GPU is cut into slices; NVML raises on GPUs that cannot be."""
    try:
        return bool(nvml.nvmlDeviceGetMigMode(handle)[0])
    except Exception:
        return False


def find_gpu(device: torch.device) -> GPU:
    """Find torch's GPU in NVML. Errors: ImportError, RuntimeError, NVML's own: no driver, no permission, MIG."""
    import pynvml  # type: ignore[import-untyped]

    pynvml.nvmlInit()
    return GPU(pynvml, f"GPU-{torch.cuda.get_device_properties(device).uuid}")


# --- both


class Watch:
    """Measure usage from `with` on. The CPU is read at the start and in `usage`; a GPU by a thread, every so often."""

    def __init__(self, device: torch.device, *, every_s: float = EVERY_S, ticks: Callable[[], Ticks] = read_ticks,
                 gpu: Callable[[torch.device], GPU] = find_gpu) -> None:
        self.device, self._every_s, self._ticks = device, every_s, ticks
        self.gpu: GPU | None = None
        self.why = "only a GPU's is measured" if device.type == "cpu" else "NVML covers only NVIDIA GPUs"
        if device.type == "cuda":
            try:
                self.gpu = gpu(device)
            except Exception as error:
                self.why = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        self._over, self._thread = Event(), Thread(target=self._sample, name="minitx-watch", daemon=True)

    def __enter__(self) -> "Watch":
        self._since, self._before = perf_counter(), self._read()
        self._joules = None if self.gpu is None else self.gpu.energy_j()
        if self.gpu is not None:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._over.set()

    def usage(self) -> Usage:
        """Return the usage since `with`."""
        seconds = perf_counter() - self._since
        busy, other, no_cpu = cpu_usage(self._before, self._read())
        reasons = {"other_cpu_pct": no_cpu} if no_cpu else {}
        if self.gpu is None:
            if self.device.type != "cpu":
                busy = None
            reasons |= {"energy_wh": self.why, "gpu_memory_gib": self.why}
            if busy is None:
                reasons["busy_pct"] = no_cpu if self.device.type == "cpu" else self.why
            return Usage(seconds, busy, other, None, None, reasons)
        gpu, after_j = self.gpu, self.gpu.energy_j()
        reasons |= gpu.reasons
        if self._joules is not None and after_j is not None:
            energy_wh: float | None = (after_j - self._joules) / 3600
            reasons.pop("energy_wh", None)
        else:
            energy_wh = sum(gpu.power_w) / len(gpu.power_w) * seconds / 3600 if gpu.power_w else None
        return Usage(seconds, sum(gpu.busy) / len(gpu.busy) if gpu.busy else None, other, energy_wh,
                     max(gpu.memory_gib, default=None), reasons)

    def _read(self) -> Ticks | None:
        try:
            return self._ticks()
        except (OSError, ValueError, LookupError, AttributeError):  # no Linux, or one that hides it
            return None

    def _sample(self) -> None:
        assert self.gpu is not None
        self.gpu.sample()
        while not self._over.wait(self._every_s):
            self.gpu.sample()
