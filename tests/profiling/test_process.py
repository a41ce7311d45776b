"""What this process may use: the machine's memory or what a container has left, and how long it waits for a core."""

import os
import time
from pathlib import Path

import pytest

from minitx.profiling import process
from minitx.profiling.process import available_bytes, cores, physical_bytes, process_age_s, waiting_s


def test_a_container_has_less_than_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "CGROUP", tmp_path)
    machine = available_bytes()
    assert machine > 0
    for name, text in (("memory.max", "1000000"), ("memory.current", "700000"),
                       ("memory.stat", "anon 600000\ninactive_file 50000\n")):
        (tmp_path / name).write_text(text)
    assert available_bytes() == 350_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_bytes() == pytest.approx(machine, rel=0.2)


def test_the_wait_for_a_core_is_that_of_all_threads(tmp_path: Path) -> None:
    for thread, counts in (("7", "100 2500000000 3"), ("8", "900 500000000 4")):
        (tmp_path / thread).mkdir()
        (tmp_path / thread / "schedstat").write_text(counts + "\n")
    (tmp_path / "9").mkdir()  # has just ended
    assert waiting_s(tmp_path) == pytest.approx(3.0)
    assert waiting_s(tmp_path / "no Linux") == 0.0
    assert 0 <= waiting_s() <= waiting_s()


def test_where_the_kernel_tells_nothing_the_next_best_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS has no /proc, no affinity and no clock since the start."""
    for name in ("MEMINFO", "STAT", "CGROUP"):
        monkeypatch.setattr(process, name, tmp_path / "no Linux")
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores() == os.cpu_count()
    assert available_bytes() == physical_bytes() == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < process_age_s() <= process_age_s() < 3600
    monkeypatch.undo()
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    assert 0 < process_age_s() < 3600


def test_memory_that_no_system_call_tells_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MEMINFO", tmp_path / "no Linux")
    monkeypatch.setattr(os, "sysconf", lambda name: (_ for _ in ()).throw(ValueError(f"unknown {name}")))
    assert physical_bytes() is None
    with pytest.raises(OSError, match="no Linux"):
        available_bytes()
