"""A worker process: the lines that it reports, the CPU time of it and of others, and its peak memory."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any

from minitx.training.process import MALLOC

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class WorkerFailed(Exception):
    """A worker failed; the message has the end of its log."""


@dataclass(frozen=True)
class CpuTime:
    """CPU seconds up to one moment: of the whole machine, and of the worker with its children."""

    wall_s: float
    machine_s: float
    own_s: float

    def foreign_pct(self, later: "CpuTime") -> float:
        """Return the share of all cores that other processes used from this moment to a later one, in %."""
        others = (later.machine_s - self.machine_s) - (later.own_s - self.own_s)
        return max(0.0, 100 * others / ((later.wall_s - self.wall_s) * (os.cpu_count() or 1)))


class Worker:
    """Run a command in a session of its own, until it ends or the block does."""

    def __init__(self, command: Sequence[str], *, cwd: Path, log: Path, threads: int, silence_s: float = 600) -> None:
        """log: new file for its standard error; silence_s: seconds without a line after which it has failed"""
        self.command, self.cwd, self.log, self.silence_s = command, cwd, log, silence_s
        self.env = environment(os.environ, threads)

    def __enter__(self) -> "Worker":
        with self.log.open("wb") as errors:
            self.process = subprocess.Popen(self.command, cwd=self.cwd, env=self.env, start_new_session=True,
                                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the lines that it reports. Errors: `WorkerFailed` if it ends with an error, or is silent too long"""
        assert self.process.stdout is not None
        partial, heard = b"", monotonic()
        while True:
            ended = self.process.poll() is not None
            while piece := self.process.stdout.read(1 << 16):
                *whole, partial = (partial + piece).split(b"\n")
                heard = monotonic()
                yield from map(json.loads, whole)
            if ended:
                break
            if monotonic() - heard > self.silence_s:
                raise WorkerFailed(f"silent for {self.silence_s:.0f} s; {self.last_log_line()}")
            sleep(0.1)
        if self.process.returncode:
            raise WorkerFailed(f"ended with code {self.process.returncode}; {self.last_log_line()}")

    def last_log_line(self) -> str:
        """Return the last line of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "its log is empty")

    def cpu_time(self) -> CpuTime:
        """Read the clocks now."""
        return CpuTime(monotonic(), machine_s(Path("/proc/stat").read_text()),
                       sum(own_s(stat) for _, stat in self._session()))

    def peak_gib(self) -> float:
        """Return the largest peak of resident memory among its living processes."""
        peaks = [0]
        for folder, _ in self._session():
            with suppress(OSError):
                status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
                peaks.append(int(status.get("VmHWM", "0").split()[0]))
        return max(peaks) / 2**20  # Linux counts KiB

    def _session(self) -> Iterator[tuple[Path, list[str]]]:
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                stat = stat_fields((folder / "stat").read_text())
                if int(stat[3]) == self.process.pid:
                    yield folder, stat


def environment(base: Mapping[str, str], threads: int) -> dict[str, str]:
    """Return the environment of every worker: the same threads and allocator settings, no network."""
    settings = ("MALLOC_", "GLIBC_", "OMP_", "MKL_", "KMP_")
    others = {name: value for name, value in base.items() if not name.startswith(settings)}
    count = str(threads)
    return others | MALLOC | {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "HF_HUB_OFFLINE": "1",
                            "WANDB_MODE": "disabled", "PYTHONUNBUFFERED": "1"}


def machine_s(stat: str) -> float:
    """Return the CPU seconds since boot from /proc/stat, including time that a hypervisor took. Source: proc(5)."""
    user, nice, system, _, _, irq, softirq, steal = map(int, stat.split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_S


def own_s(stat: Sequence[str]) -> float:
    """Return the CPU seconds of a process and the children it waited for. stat: as `stat_fields` returns it"""
    return sum(map(int, stat[11:15])) / TICKS_PER_S


def stat_fields(stat: str) -> list[str]:
    """Return the fields of /proc/PID/stat after the name, which may contain anything: state, parent, group, ..."""
    return stat.rpartition(")")[2].split()
