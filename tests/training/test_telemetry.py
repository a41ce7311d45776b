"""What a run's result says of the machine: parts that sum up, figures, or the reason why there is none."""

from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx.distributed.ranks import SINGLE
from minitx.profiling.peak import Peak
from minitx.profiling.provenance import NO_COMMIT
from minitx.profiling.utilisation import Usage
from minitx.runs.result import Result
from minitx.training.state import RunState
from minitx.training.telemetry import MEASURED, Telemetry, measured, time_split

SECONDS = st.floats(0, 1e5)
PEAK = Peak(2.0, "data sheet")
USAGE = Usage(100.0, 90.0, 3.0, None, None, {"energy_wh": "MIG", "gpu_memory_gib": "MIG"})


@given(train=SECONDS, phases=st.lists(st.floats(0, 0.5), min_size=4, max_size=4), evaluation=SECONDS)
def test_the_parts_of_a_run_are_the_whole(train: float, phases: list[float], evaluation: float) -> None:
    names = ("data", "forward", "backward", "optimizer")
    state = RunState(train_s=train, split_s={n: train * share for n, share in zip(names, phases, strict=True)})
    sections = {"startup": 5.0, "train": train, "eval": evaluation, "checkpoint": 1.0}
    parts = time_split(state, sections)
    assert min(parts.values()) >= 0
    work = sum(parts[name] for name in names[1:])
    if work <= train:
        assert sum(parts.values()) == pytest.approx(sum(sections.values()))
        assert parts["data"] <= train - work + 1e-6, "what the GPU's work hid is not counted twice"


def test_mfu_is_of_the_real_tokens_operations_in_the_training_time() -> None:
    state = RunState(git_sha="c0ffee", flop=50e12, train_s=100.0, usage=asdict(USAGE))
    found = measured(state, {}, PEAK)
    assert found["mfu_pct"] == pytest.approx(25)
    assert (found["peak_tflops"], found["peak_source"]) == (2.0, "data sheet")
    assert (found["busy_pct"], found["other_cpu_pct"], found["energy_wh"]) == (90.0, 3.0, None)
    assert found["not_measured"] == USAGE.reasons


@pytest.mark.parametrize(("state", "peak", "why"), [
    (RunState(flop=1.0, train_s=1.0), Peak(None, "no product could be timed: why"), "no product could be timed: why"),
    (RunState(flop=None, train_s=1.0), PEAK, "the model does not count its operations"),
    (RunState(flop=1e15, train_s=1.0), PEAK, "it would be above 100 %"),
    (RunState(), PEAK, "no update was trained"),
])
def test_every_figure_that_is_lacking_has_its_reason(state: RunState, peak: Peak, why: str) -> None:
    state.git_sha = "c0ffee"
    found = measured(state, {}, peak)
    assert found["not_measured"]["mfu_pct"] == why
    lacking = {name for name, value in found.items() if value is None} - {"peak_source"}
    assert lacking == found["not_measured"].keys()
    assert set(MEASURED) < lacking


def test_a_run_of_no_commit_says_why() -> None:
    assert measured(RunState(), {}, PEAK)["not_measured"]["git_sha"] == NO_COMMIT


def test_a_run_that_goes_on_counts_on() -> None:
    state = RunState(split_s={"data": 1.0, "forward": 2.0}, usage=asdict(USAGE))
    run: Any = SimpleNamespace(state=state, ranks=SINGLE)
    data: Any = SimpleNamespace(wait_s=0.5)
    watch: Any = SimpleNamespace(usage=lambda: replace(USAGE, other_cpu_pct=5.0))
    note = Telemetry(run, data, watch)
    for _ in range(2):  # at each checkpoint, of all since this process began
        note.note(phased(forward=4.0, backward=8.0))
    assert state.split_s == {"data": 1.5, "forward": 6.0, "backward": 8.0, "optimizer": 0.0}
    assert state.usage is not None
    assert (state.usage["seconds"], state.usage["other_cpu_pct"]) == (200.0, 4.0)


def phased(**seconds: float) -> Any:
    """A task whose phases took so long."""
    from minitx.training.task import TranslationTask

    task = TranslationTask.__new__(TranslationTask)
    object.__setattr__(task, "phases", SimpleNamespace(seconds=lambda: seconds))
    return task


@pytest.mark.parametrize(("other", "disturbed"), [(None, False), (5.0, False), (5.1, True)])
def test_more_than_5_percent_of_others_is_a_disturbance(other: float | None, disturbed: bool) -> None:
    result = Result.__new__(Result)
    object.__setattr__(result, "other_cpu_pct", other)
    assert result.disturbed is disturbed
