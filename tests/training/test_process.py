"""What this process is told before torch is imported, and how it is imported."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toys import ROOT

from minitx.config.compose import compose
from minitx.training import process

PROGRAM = "from minitx.training.process import limit_spinning; limit_spinning(); import torch"


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings libgomp on Linux alone")
@pytest.mark.parametrize(("chosen", "count"), [({}, "1000"), ({"GOMP_SPINCOUNT": "77"}, "77")])
def test_libgomp_spins_as_it_is_told(chosen: dict[str, str], count: str) -> None:
    others = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    environment = others | chosen | {"OMP_DISPLAY_ENV": "verbose", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    assert f"GOMP_SPINCOUNT = '{count}'" in done.stderr


def test_what_is_imported_is_not_looked_through_and_our_own_program_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))
    for path, is_ours in ((str(process.PACKAGE / "cli/main.py"), True), ("driver.py", False)):
        monkeypatch.setattr(process, "program", lambda path=path: path)
        with process.uncollected():
            assert not gc.isenabled()
        assert gc.isenabled()
        assert bool(frozen) == is_ours
        frozen.clear()
    with pytest.raises(ZeroDivisionError), process.uncollected():
        raise ZeroDivisionError
    assert gc.isenabled()


@pytest.mark.parametrize(("accelerator", "devices", "found"), [
    ("gpu", [], True), ("auto", ["nvidia0"], True), ("auto", [], False), ("cpu", ["nvidia0"], False)])
def test_before_torch_is_there_a_gpu_is_known_by_its_device_file(accelerator: str, devices: list[str], found: bool,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = compose([f"trainer.accelerator={accelerator}"])
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: iter(devices))
    monkeypatch.setattr(Path, "exists", lambda path: False)
    assert process._on_gpu(cfg) == found
