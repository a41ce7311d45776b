"""What is said of GPUs: predictions that are held against published ones, their ranges, and verdicts that can fall."""

import json
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from math import log, sqrt
from types import SimpleNamespace
from typing import Any

import pytest
from toys import ROOT, recorded_update

from minitx.experiments.prediction import validation
from minitx.experiments.prediction.published import Training, trainings
from minitx.experiments.prediction.speed import Work, predict_speed
from minitx.experiments.prediction.validation import NO_LOSS, WITHOUT, Fitted
from minitx.experiments.studies import gpu
from minitx.experiments.studies.gpu import (
    CASES,
    SIZES,
    SYSTEMS,
    Sizes,
    as_values,
    busy_claim,
    claims,
    config,
    kernel_errors,
    ranged,
    share_of,
    table,
    times_to_quality,
)
from minitx.profiling.devices import Device, by_name
from minitx.profiling.kernels import Kernel
from minitx.profiling.timeline import Constants
from minitx.utils.console import Console
from minitx.utils.errors import UserError

H100 = by_name("h100")
TINY = Sizes(gpus=(1, 8), widths=(64,), lengths=(8,), published=("transformer_big", "gnmt_cell_loop"))
WORK = Work(recorded_update(2), tgt_tokens=2048.0, flop=3e9, params=1_000_000, gradient_bytes=4e6,
            precision="bf16-mixed")


# --- all of it, on kernels that are not recorded


def unrecorded(words: Sequence[str], *_: int | bool) -> tuple[tuple[Kernel, ...], int, int]:
    return tuple(recorded_update(3)), 4_000_000, 1_000_000


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(gpu, "calibrate", lambda *_: Constants())
        patch.setattr(validation, "recorded", unrecorded)
        patch.setattr(gpu, "recorded", lambda *_: WORK)
        patch.setattr(gpu, "work", lambda *_: WORK)
        return gpu.measure({}, TINY, Console(StringIO()))


def test_everything_is_predicted_for_each_system_device_and_number_of_gpus(found: dict[str, Any]) -> None:
    systems, devices = TINY.systems, TINY.devices
    assert [(each["system"], each["device"], each["gpus"]) for each in found["speeds"]] == [
        (system, device, gpus) for system in systems for device in devices for gpus in (1, 8)]
    assert [(each["system"], each["d_model"]) for each in found["by_width"]] == [(system, 64) for system in systems]
    assert [(each["system"], each["length"]) for each in found["by_length"]] == [(system, 8) for system in systems]
    assert [(each["system"], each["gpus"]) for each in found["shared"]] == [
        (system, gpus) for system in systems for gpus in (1, 8)]


def test_published_trainings_are_each_predicted_from_the_other_kind_of_gpu(found: dict[str, Any]) -> None:
    published = [t for t in trainings(ROOT / "results" / "published") if t.system in TINY.published]
    for way, kind in (("v100 to a100", "a100"), ("a100 to v100", "v100")):
        tested = found["tests"][way]
        asked = [t for t in published if t.device.startswith(kind)]
        assert [(row["system"], row["gpus"], row["published"]) for row in tested["rows"]] == [
            (t.system, t.gpus, t.tokens_per_s) for t in asked]
        for row in tested["rows"]:
            assert row["predicted"] == pytest.approx((1 + row["error"]) * row["published"])
        logs = [log(1 + row["error"]) for row in tested["rows"] if row["gpus"] == 1]
        assert tested["spread"] == pytest.approx(sqrt(sum(x * x for x in logs) / len(logs)))
        assert tested["freedom"] == len(logs)
        assert tested["without"].keys() == WITHOUT.keys()


def test_it_is_stored_and_shown(found: dict[str, Any]) -> None:
    stored = json.loads(json.dumps(found))
    lines = list(table(stored))
    assert lines == list(table(found))
    assert sum(line.startswith(TINY.systems) for line in lines) == len(TINY.systems) * len(TINY.devices)
    assert [claim["holds"] for claim in stored["claims"]] == [claim.holds for claim in claims(stored)]
    assert len(stored["claims"]) == 2 * 2 + len(TINY.systems) * len(TINY.devices)


def test_outside_a_checkout_it_is_refused(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"results/published: no such folder; .* in a checkout"):
        gpu.measure({}, TINY, Console(StringIO()))


@pytest.mark.slow
def test_real_updates_are_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = gpu.measure({}, Sizes(devices=("h100",), gpus=(1,)), Console(StringIO()))
    lstm, transformer = found["speeds"]
    assert lstm["launches"] > transformer["launches"] > 100, "a kernel for each step, unless it is persistent"
    assert transformer["update_ms"] < lstm["update_ms"]
    assert all(tested["median"] < 0.25 for tested in found["tests"].values())


# --- its parts


def test_small_is_the_update_of_the_published_runs() -> None:
    case = CASES["small"]
    assert config(*case.words).trainer.tokens_per_update == case.sentences * case.length


def test_full_predicts_every_system_and_tests_on_every_published_training() -> None:
    full = SIZES["full"]
    assert set(full.systems) == SYSTEMS.keys()
    assert set(full.cases) == CASES.keys()
    assert set(full.published) == {t.system for t in trainings(ROOT / "results" / "published")}
    for sizes in SIZES.values():
        assert {by_name(name).name for name in (*sizes.devices, sizes.shape_device)} == {*sizes.devices, "h100"}
        assert set(sizes.cases) <= CASES.keys()
        assert set(sizes.systems) <= SYSTEMS.keys()


@pytest.mark.parametrize("device", [by_name(name) for name in ("v100", "h100")], ids=lambda device: device.name)
@pytest.mark.parametrize("gpus", [1, 8])
def test_values_have_their_ranges_about_them(device: Device, gpus: int) -> None:
    found = as_values(WORK, device, gpus, Constants())
    assert found["fast_ms"] <= found["update_ms"] <= found["slow_ms"]
    assert found["graphed_ms"] <= found["update_ms"]
    low, high = found["busy_pct"]
    speed = predict_speed(WORK, device, gpus, Constants())
    assert low <= speed.surely_busy_pct <= speed.busy_pct <= high <= 100
    assert found["tgt_tokens_per_s"] == pytest.approx(gpus * 2048 / found["update_ms"] * 1e3)
    assert sum(found["by_kind_ms"].values()) == pytest.approx(1e3 * speed.one.busy_s)


def test_single_kernels_are_compared_with_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = kernel_errors(Constants())
    assert found["v100, products, half"]["kernels"] == found["t4, products, float"]["kernels"] == 160
    assert found["v100, LSTM layers, forward"]["kernels"] == 44
    assert not any(name.startswith("t4, LSTM") for name in found), "none were published"
    for name, kernels in found.items():
        if name.startswith("v100"):
            assert kernels["median_error"] < 0.2
            assert 0.85 < kernels["median_ratio"] < 1.15


def test_ratios_are_summed_up() -> None:
    assert share_of([0.5, 1.1, 1.2]) == {"kernels": 3, "median_ratio": 1.1, "median_error": pytest.approx(0.2)}


SPEED = {"case": "small", "system": "lstm", "device": "h100", "gpus": 1, "update_ms": 60.0, "fast_ms": 30.0,
         "slow_ms": 90.0}
TESTED = {"spread": 0.0, "freedom": 4}


def test_minutes_reach_from_a_fast_host_to_a_slow_one() -> None:
    assert ranged([1000.0], SPEED, TESTED) == pytest.approx([1.0, 0.5, 1.5])
    assert ranged([1000.0, None], SPEED, TESTED) is None
    low, high = 0.5 * 1.1 ** -2.776, 1.5 * 1.1 ** 2.776
    assert ranged([1000.0], SPEED, {"spread": log(1.1), "freedom": 4}) == pytest.approx([1.0, low, high])


def test_growing_updates_are_fewer_but_not_than_a_warm_up_and_shared_ones_are_as_many(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """A curve of 30 BLEU after 900 updates on a line from 0; the warm-up is what the config says."""
    def row(model: str, experiment: str = "headline_small") -> Any:
        return SimpleNamespace(result=SimpleNamespace(experiment=experiment, model=model),
                               curve=[(900.0, 1.0, 1.0, 30.0)])

    monkeypatch.setattr(gpu, "read_rows", lambda folder: [row("lstm"), row("transformer"), row("lstm", "other")])
    warm_up = config(*CASES["small"].words).optim.warmup_steps
    speeds = [SPEED | {"system": system, "gpus": gpus} for system in ("lstm", "lstm_cell_loop") for gpus in (1, 2, 512)]
    found = list(times_to_quality({"speeds": [*speeds, SPEED | {"case": "big"}], "shared": speeds}, TESTED))
    assert len(found) == 2 * 2 * len(speeds), "kinds, targets"
    for each in found:
        alone = 900.0 * each["bleu"] / 30
        fewer = max(alone / each["gpus"], min(alone, warm_up))
        assert each["updates"] == [pytest.approx(fewer if each["kind"] == "growing" else alone)]
        assert each["minutes"][0] == pytest.approx(each["updates"][0] * 0.06 / 60)


# --- verdicts


@pytest.mark.parametrize(("system", "busy", "holds"), [
    ("lstm", [1.2, 1.9], True), ("lstm", [20.0, 60.0], False), ("lstm", [1.5, 30.0], None),
    ("transformer", [86.0, 91.0], True), ("transformer", [40.0, 70.0], False), ("transformer", [80.0, 99.0], None)])
def test_a_share_is_judged_by_both_of_its_figures(system: str, busy: list[float], holds: bool | None) -> None:
    claim = busy_claim({"system": system, "device": "h100", "busy_pct": busy})
    assert claim.holds is holds
    assert claim.claim.startswith(f"an H100 is busy with {system}, size small, for ")


@pytest.mark.parametrize(("median", "worst", "holds"), [(0.1, 0.3, [True, True]), (0.2, 0.3, [False, True]),
                                                        (0.1, 0.4, [True, False])])
def test_predictions_are_judged(median: float, worst: float, holds: list[bool]) -> None:
    found = {"tests": {"v100 to a100": {"median": median, "worst": worst}}, "speeds": []}
    assert [claim.holds for claim in claims(found)] == holds
    assert all("trainings on A100, predicted from V100" in claim.claim for claim in claims(found))


def test_nothing_is_predicted_better_than_by_what_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a published speed is what the model says, its errors are none."""
    monkeypatch.setattr(validation, "recorded", unrecorded)
    fitted = Fitted(Constants(), Constants(), NO_LOSS)
    blank = Training("gnmt", ("model=gnmt",), "a100", 1, "half", 1, 1, 1, counted=1000, tokens_per_s=1.0, source="")
    prediction, = validation.predict([blank], fitted)
    tested = gpu.test(fitted, [replace(blank, tokens_per_s=prediction.tokens_per_s)])
    assert (tested["median"], tested["worst"], tested["spread"]) == (pytest.approx(0, abs=1e-9),) * 3
