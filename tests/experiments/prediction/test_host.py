"""What an operator costs a host: the same operators as a GPU's, counted as predictions count them, and no kernel's."""

import ast
import json
from collections.abc import Callable
from functools import partial

import pytest
import torch
from toys import ROOT

from minitx.experiments.prediction import host
from minitx.experiments.prediction.cpu import SYSTEMS, build, config, record
from minitx.experiments.prediction.host import (
    CHOOSE,
    TINY,
    VIEW,
    HostSizes,
    OperatorTimer,
    as_on_a_gpu,
    measure_host,
    operators,
    table,
)
from minitx.experiments.prediction.update import record_update
from minitx.experiments.reports.constants import LAUNCHES_OTHERS
from minitx.profiling.devices import by_name
from minitx.profiling.kernels import Kernel
from minitx.profiling.timeline import FAST, SLOW, Constants, Pace, host_s
from minitx.utils.console import Console

SIZES = HostSizes(("transformer",), layers=1, updates=3, repeats=2)
EACH = Kernel("aten.add", "elementwise", "forward", "float", 0.0, 8), Kernel("aten.view", "view", "forward", "float",
                                                                             0.0, 0, launches=0)


def test_every_module_that_goes_another_way_on_a_cpu_is_told_to_go_as_on_a_gpu() -> None:
    def imports(text: str) -> bool:
        return any(isinstance(node, ast.ImportFrom) and "on_cpu" in [name.name for name in node.names]
                   for node in ast.walk(ast.parse(text)))

    found = {path.stem for path in (ROOT / "src/minitx").rglob("*.py") if imports(path.read_text(encoding="utf-8"))}
    assert found == {name.split(".")[-2] for name in CHOOSE}


@pytest.mark.parametrize("system", [
    pytest.param(system, marks=[] if system in ("transformer", "lstm_cell_loop") else pytest.mark.slow)
    for system in SYSTEMS if system not in LAUNCHES_OTHERS])
def test_operators_are_those_that_a_gpu_is_given(system: str) -> None:
    """Within a tenth: on a GPU a mask is padded, and some copies are made, which a CPU need not have."""
    cfg = config("toy", *SYSTEMS[system], *TINY, "model.num_layers=2")
    on_gpu = record_update(cfg, 2, 8, 8, precision="32-true", capability=by_name("v100").capability)
    with as_on_a_gpu():
        here = record(*build(cfg, SIZES.case))
    assert operators(here) == pytest.approx(operators(on_gpu), rel=0.1)


@pytest.mark.parametrize("constants", [FAST, Constants(), SLOW])
def test_a_view_counts_as_in_predictions(constants: Constants) -> None:
    pace = Pace(by_name("h100"), constants)
    assert sum(host_s(kernel, pace) for kernel in EACH) == pytest.approx(1e-6 * constants.operator_us * operators(EACH))


def test_a_kernel_is_timed_by_itself_and_its_call_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty operator takes 2 s here, the others as many as their names have letters; a view is not timed."""
    def seconds(self: OperatorTimer, work: Callable[[], object]) -> float:
        assert isinstance(work, partial)
        name = work.func._schema.name.removeprefix("aten::")  # type: ignore[attr-defined]
        return 2.0 if name == "empty_like" else float(len(name))

    monkeypatch.setattr(OperatorTimer, "fastest", seconds)
    x = torch.ones(4)
    with OperatorTimer(repeats=1) as timer:
        (x * x).view(2, 2).sigmoid()
        x + x
        x + x
    assert timer.own_s == {"aten.mul": 1.0, "aten.sigmoid": 5.0, "aten.add": 2.0}


def test_an_operator_costs_between_what_is_left_without_kernels_and_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that only moves forward by a millisecond each time that it is read."""
    now = iter(range(10**9))
    monkeypatch.setattr(host, "own_seconds", lambda task, planned, repeats: {"aten.mm": 3e-4})
    monkeypatch.setattr(host, "perf_counter", lambda: 1e-3 * next(now))
    found = json.loads(json.dumps(measure_host(SIZES, Console())))
    row, = found["rows"]
    count = row["operators"] + VIEW * row["views"]
    assert row["update_us"] == pytest.approx(1000)
    assert row["operator_us"] == pytest.approx([700 / count, 1000 / count])
    assert sum(phase["operators"] for phase in row["by_phase"].values()) == pytest.approx(count)


def test_what_is_measured_is_told_beside_what_predictions_take() -> None:
    found = measure_host(SIZES, Console())
    row, = found["rows"]
    least, most = row["operator_us"]
    assert 0 < least < most
    assert 0 < sum(phase["us"] for phase in row["by_phase"].values()) < 2 * row["update_us"]
    lines = list(table(found))
    assert f"{least:.1f} to {most:.1f}" in lines[-2]
    assert lines[-1] == "predictions take 4 to 24 us, usually 8"


def test_a_slow_host_is_no_faster_than_one_that_was_measured() -> None:
    """With the launch of a kernel, which is not in what was measured."""
    for path in (ROOT / "results/host").glob("*.json"):
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        most = max(row["operator_us"][1] for row in rows if row["system"] not in LAUNCHES_OTHERS)
        assert FAST.operator_us < most + Constants().launch_us <= SLOW.operator_us
