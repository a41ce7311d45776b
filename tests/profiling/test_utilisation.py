"""How busy the machine is: from counters that are made up, of a processor and of a GPU that need not be there."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from played_cuda import played_gpu

from minitx.profiling import utilisation
from minitx.profiling.utilisation import GPU, Ticks, Usage, Watch, cpu_usage, read_ticks

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2})
    monkeypatch.setattr(utilisation, "cores", lambda: 2)


# --- processor


def write_proc(folder: Path) -> Path:
    """Write counters of four cores, and of this process with a child, a grandchild and a stranger."""
    cores = [(100, 1, 20, 500, 7, 3, 4, 5), (900,) * 8, (200, 2, 30, 600, 8, 0, 1, 0), (900,) * 8]
    lines = [f"cpu{n} {' '.join(map(str, counts))} 11 12" for n, counts in enumerate(cores)]
    (folder / "stat").write_text("\n".join(["cpu 9 9 9 9 9 9 9 9 9 9", *lines, "intr 5 6"]))
    own = os.getpid()
    for pid, parent, ticks in ((own, 1, 10), (own + 1, own, 20), (own + 2, own + 1, 40), (1, 0, 999), (7, 1, 999)):
        (folder / str(pid)).mkdir()
        zeros = "0 " * 8
        line = f"{pid} (a ) b\xff) S {parent} 0 {zeros} {ticks} {ticks} 1 0 20 0\n"
        (folder / str(pid) / "stat").write_bytes(line.encode("latin-1"))  # a name may be cut within a letter
    (folder / "9999999").mkdir()  # has just ended
    return folder


def test_ticks_are_of_the_cores_that_we_may_use_and_of_our_descendants(tmp_path: Path) -> None:
    found = read_ticks(write_proc(tmp_path))
    assert found.busy == 100 + 1 + 20 + 3 + 4 + 5 + 200 + 2 + 30 + 0 + 1 + 0
    assert found.total == found.busy + 500 + 7 + 600 + 8
    words = (tmp_path / str(os.getpid()) / "stat").read_bytes().rpartition(b")")[2].split()
    each = sum(map(int, words[11:15]))
    assert found.ours == each + 41 + 81


def test_the_real_counters_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    first, second = read_ticks(), read_ticks()
    assert second.total >= first.total > 0
    assert first.ours > 0


@given(ours=st.integers(0, 1000), others=st.integers(0, 1000), idle=st.integers(1, 1000), start=st.integers(0, 9))
def test_others_are_what_is_busy_and_not_ours(ours: int, others: int, idle: int, start: int) -> None:
    after = Ticks(start + ours + others, start + ours + others + idle, start + ours)
    busy, other, why = cpu_usage(Ticks(start, start, start), after)
    assert busy == pytest.approx(100 * (ours + others) / (ours + others + idle))
    assert other == pytest.approx(100 * others / (ours + others + idle))
    assert not why


def test_where_nothing_can_be_known_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = Ticks(0, 0, 0), Ticks(5, 10, 5)
    assert cpu_usage(None, two) == (None, None, "/proc/stat cannot be read here")
    assert cpu_usage(one, one) == (None, None, "/proc/stat counts nothing here")
    monkeypatch.setattr(utilisation, "cores", lambda: 1)
    assert cpu_usage(one, two) == (None, None, "the container has a quota of time, and no cores of its own")


# --- GPU


class NVML:
    """Answer as `pynvml` does, for one GPU. missing: names of functions that raise"""

    def __init__(self, *missing: str, mig: bool = False) -> None:
        self.missing, self.mig = missing, mig
        self.joules = iter([1000.0, 1000.0 + 7200.0])

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml") and name in self.missing:
            def refuse(*_: Any) -> None:
                raise RuntimeError("Insufficient Permissions")

            return refuse
        return super().__getattribute__(name)

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        assert uuid == "GPU-1234"
        return "handle"

    def nvmlDeviceIsMigDeviceHandle(self, handle: str) -> bool:
        return False

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:
        return [int(self.mig), 0]

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> SimpleNamespace:
        return SimpleNamespace(gpu=80)

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:
        return SimpleNamespace(used=3 * 2**30)

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        return 360_000

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> float:
        return 1000 * next(self.joules)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch lasts 10 seconds."""
    ticks: Iterator[float] = iter([0.0, 10.0])
    monkeypatch.setattr(utilisation, "perf_counter", lambda: next(ticks))


def usage_of(nvml: NVML) -> Usage:
    counters = iter([Ticks(0, 0, 0), Ticks(100, 200, 80)])
    watch = Watch(CUDA, ticks=lambda: next(counters), gpu=lambda device: GPU(nvml, "GPU-1234"))
    with watch:
        while watch.gpu is not None and not watch.gpu.power_w and "energy_wh" not in watch.gpu.reasons:
            pass  # the thread looks at once
    return watch.usage()


@pytest.mark.usefixtures("clock")
def test_a_gpu_is_sampled_and_its_energy_counted() -> None:
    assert usage_of(NVML()) == Usage(10.0, 80.0, 10.0, 2.0, 3.0, {})


@pytest.mark.usefixtures("clock")
def test_energy_is_power_times_time_where_none_is_counted() -> None:
    assert usage_of(NVML("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetMigMode")).energy_wh == 1.0


@pytest.mark.usefixtures("clock")
def test_what_is_not_permitted_is_none_and_the_rest_is_told() -> None:
    found = usage_of(NVML("nvmlDeviceGetUtilizationRates", "nvmlDeviceGetPowerUsage"))
    assert (found.busy_pct, found.energy_wh, found.gpu_memory_gib) == (None, 2.0, 3.0)
    assert found.reasons == {"busy_pct": "NVML: Insufficient Permissions"}


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("nvml", "why"), [
    (NVML(mig=True), "RuntimeError: NVML does not measure the slices of a GPU in MIG mode"),
    (NVML("nvmlDeviceGetHandleByUUID"), "RuntimeError: Insufficient Permissions")])
def test_a_gpu_that_is_not_to_be_measured_costs_the_run_nothing(nvml: NVML, why: str) -> None:
    found = usage_of(nvml)
    assert (found.busy_pct, found.energy_wh, found.gpu_memory_gib, found.other_cpu_pct) == (None, None, None, 10.0)
    assert found.reasons == dict.fromkeys(("busy_pct", "energy_wh", "gpu_memory_gib"), why)


@pytest.mark.usefixtures("clock")
def test_torchs_gpu_is_found_by_its_uuid() -> None:
    counters = iter([Ticks(0, 0, 0), Ticks(100, 200, 80)])
    with played_gpu(), Watch(torch.device("cuda", 0), ticks=lambda: next(counters)) as watch:
        while watch.gpu is not None and not watch.gpu.power_w:
            pass  # the thread looks at once
        assert watch.usage() == Usage(10.0, 75.0, 10.0, pytest.approx(0.01), 5.0, {})


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("error", "why"), [
    (pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND), "NVMLError_LibraryNotFound: NVML Shared Library Not Found"),
    (pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION), "NVMLError_NoPermission: Insufficient Permissions"),
    (ImportError("no\npynvml"), "ImportError: no pynvml")], ids=["library", "permission", "module"])
def test_without_nvml_a_gpu_has_no_figures_and_the_reason_is_told(error: Exception, why: str,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise error

    counters = iter([Ticks(0, 0, 0), Ticks(100, 200, 80)])
    with played_gpu():
        monkeypatch.setattr(pynvml, "nvmlInit", fail)
        with Watch(CUDA, ticks=lambda: next(counters)) as watch:
            found = watch.usage()
    assert (found.busy_pct, found.energy_wh, found.gpu_memory_gib, found.other_cpu_pct) == (None, None, None, 10.0)
    assert found.reasons == dict.fromkeys(("busy_pct", "energy_wh", "gpu_memory_gib"), why)


@pytest.mark.usefixtures("clock")
def test_on_the_processor_no_gpu_is_asked() -> None:
    counters = iter([Ticks(0, 0, 0), Ticks(100, 200, 80)])
    with Watch(CPU, ticks=lambda: next(counters), gpu=lambda device: pytest.fail("there is none")) as watch:
        found = watch.usage()
    assert (found.busy_pct, found.other_cpu_pct) == (50.0, 10.0)
    assert found.reasons.keys() == {"energy_wh", "gpu_memory_gib"}


def test_two_stretches_are_one_weighed_by_their_seconds() -> None:
    one, other = Usage(30.0, 90.0, 0.0, 1.0, 2.0, {}), Usage(10.0, 50.0, 8.0, 0.5, None, {"gpu_memory_gib": "gone"})
    assert one + other == Usage(40.0, 80.0, 2.0, 1.5, None, {"gpu_memory_gib": "gone"})
    unknown = Usage(10.0, None, None, None, None, {"busy_pct": "MIG"})
    assert (one + unknown).busy_pct is (unknown + one).energy_wh is None
