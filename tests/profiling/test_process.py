"""What memory could be had: the machine's, or what a container has left."""

from pathlib import Path

import pytest

from minitx.profiling import process
from minitx.profiling.process import available_bytes


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
