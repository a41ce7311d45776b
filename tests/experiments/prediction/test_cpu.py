"""Updates on the CPU: what is recorded, against the model's own count; and how predictions are summed up."""

import json
from collections import Counter

import numpy as np
import pytest

from minitx.experiments.prediction import cpu
from minitx.experiments.prediction.cpu import (
    SYSTEMS,
    WITHOUT,
    Case,
    CPUSizes,
    build,
    config,
    measure_cpu,
    record,
    table,
)
from minitx.profiling.cpu_bench import PASSES
from minitx.profiling.cpu_pace import CPUConstants, CPUParts, Curve, Grid
from minitx.profiling.kernels import Kernel
from minitx.utils.console import Console

TINY = Case("tiny", 32, 12)
FLAT = Grid(((1,),) * 3, (1e10,))
LAYERS = Grid(((1,),) * 2, (1e10,))
CONSTANTS = CPUConstants(FLAT, FLAT, LAYERS, LAYERS, {name: Curve((1e6,), (1e-4,)) for name in PASSES},
                         dict.fromkeys(("forward", "backward", "optimizer"), 1e-6), 1e-7)


def kernels_of(system: str, case: Case = TINY) -> tuple[list[Kernel], float]:
    """An update's kernels, and the operations that its model counts."""
    task, planned = build(config(case.size, *SYSTEMS[system]), case)
    lengths = np.full(case.sentences, case.length)
    return record(task, planned), 3 * (task.model.flops(lengths, lengths) or 0.0)


@pytest.mark.parametrize("system", [
    pytest.param(system, marks=[] if system in ("transformer", "lstm_attention") else pytest.mark.slow)
    for system in SYSTEMS])
def test_operations_are_those_that_the_model_counts(system: str) -> None:
    kernels, counted = kernels_of(system)
    assert sum(kernel.flop for kernel in kernels) == pytest.approx(counted, rel=0.05), "filler is computed, too"
    assert {kernel.phase for kernel in kernels} == {"forward", "backward", "optimizer"}


def test_a_recurrence_takes_a_step_a_token() -> None:
    kernels, _ = kernels_of("lstm")
    steps = Counter(kernel.steps for kernel in kernels)
    layers = 2 * 2 + 2  # both ways of two encoder layers, and the decoder's
    assert steps == {1: len(kernels) - 2 * layers, TINY.length: 2 * layers}
    assert {kernel.steps for kernel in kernels_of("transformer")[0]} == {1}


def test_random_numbers_of_dropout_are_seen() -> None:
    kernels, _ = kernels_of("transformer")
    drawn = sum(kernel.nbytes for kernel in kernels if kernel.name == "numpy.random_raw")
    rows = TINY.sentences * TINY.length * 128  # of a layer's output; embeddings, and 2 and 3 parts in 2 layers each
    assert drawn == pytest.approx(2 * rows * (2 + 2 * 2 + 2 * 3), rel=0.1)


def test_the_parts_are_left_out_one_at_a_time() -> None:
    assert {sum(not on for on in vars(parts).values()) for parts in WITHOUT.values()} == {1}
    assert len(set(WITHOUT.values())) == len(vars(CPUParts()))


def test_errors_are_of_predictions_over_measured_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "measure_constants", lambda console: CONSTANTS)
    monkeypatch.setattr(cpu, "repeats", lambda work, least, enough_s: [0.5, 0.25, 0.75])
    found = json.loads(json.dumps(measure_cpu(CPUSizes((Case("tiny", 4, 4),), ("lstm", "transformer")), Console())))
    for row in found["rows"]:
        assert row["predicted_ms"] == pytest.approx(sum(row["by_kind_ms"].values()))
        assert (row["measured_ms"], row["median_ms"], row["updates"]) == (250, 500, 3)
        assert row["error"] == pytest.approx(row["predicted_ms"] / 250 - 1)
        assert row["without"]["calls"] == pytest.approx(
            (row["predicted_ms"] - row["by_kind_ms"]["calls"]) / 250 - 1)
    sizes = sorted(abs(row["error"]) for row in found["rows"])
    assert found["errors"]["worst"] == sizes[-1]
    assert found["errors"]["median"] == pytest.approx(sum(sizes) / 2)
    lines = list(table(found))
    assert sum(line.startswith(("lstm ", "transformer ")) for line in lines) == 2
    assert sum(line.startswith("without ") for line in lines) == len(WITHOUT)
