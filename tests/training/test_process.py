"""What OpenMP is told before torch is imported."""

import os
import subprocess
import sys

import pytest
from toys import ROOT

PROGRAM = "from minitx.training.process import limit_spinning; limit_spinning(); import torch"


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings libgomp on Linux alone")
@pytest.mark.parametrize(("chosen", "count"), [({}, "1000"), ({"GOMP_SPINCOUNT": "77"}, "77")])
def test_libgomp_spins_as_it_is_told(chosen: dict[str, str], count: str) -> None:
    others = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    environment = others | chosen | {"OMP_DISPLAY_ENV": "verbose", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    assert f"GOMP_SPINCOUNT = '{count}'" in done.stderr
