"""Predictions of trainings: errors by hand, losses of several GPUs and gaps of a loop that are found again."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import ROOT

from minitx.config.compose import compose
from minitx.experiments.prediction import validation
from minitx.experiments.prediction.published import Training, trainings
from minitx.experiments.prediction.speed import without_weights
from minitx.experiments.prediction.validation import (
    LOOP,
    NO_LOSS,
    WITHOUT,
    Fitted,
    Prediction,
    errors,
    fit_fleet,
    fit_trainings,
    kernels_of,
    least_squares,
    predict,
    refit,
)
from minitx.profiling.devices import by_name
from minitx.profiling.fleet import Fleet
from minitx.profiling.kernels import Kernel
from minitx.profiling.timeline import WHOLE, Constants, Pace, timeline
from minitx.training.launch import resolve

TRUTH = Constants(tensor_intensity=30.0, plain_intensity=12.0, memory=0.6, product_us=5.0, step_us=14.0)
LOST = {"exposed": 0.6, "uneven": 0.05, "parameter_s": 1e-10}
TRAINING = Training("gnmt", ("model=gnmt",), "v100", 1, "half", 128, 25, 25, counted=6_400, tokens_per_s=64_000.0,
                    source="")
PARAMS = {"gnmt": 150_000_000, LOOP: 150_000_000, "transformer_big": 200_000_000}


def kernels(system: str, half: bool) -> tuple[Kernel, ...]:
    """An update that tests each constant: the Transformer's has large products, GNMT's small steps, both copies."""
    dtype, size = ("half", 2) if half else ("float", 4)

    def product(rows: int, columns: int, inner: int, by: str) -> Kernel:
        nbytes = size * (rows * inner + inner * columns + rows * columns)
        return Kernel("mm", "product", "forward", dtype, 2.0 * rows * columns * inner, nbytes,
                      (1, rows, columns, inner), launched_by=by)

    copy = Kernel("copy_", "copy", "forward", dtype, 0.0, 4e8 * size)
    end = Kernel("item", "copy", "optimizer", "float", 0.0, 4.0, host_waits=True)
    if system == "transformer_big":
        return (*[product(8192, 4096, 1024, "operator")] * 40, *[copy] * 10, end)
    return (*[product(128, 4096, 1024, "library")] * 200, *[copy] * 2, end)


@pytest.fixture
def unrecorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "recorded", lambda words, sentences, src_len, tgt_len, half: (
        kernels(words[0], half), PARAMS[words[0]] * (2 if half else 4), PARAMS[words[0]]))


def published(constants: Constants, *, gap_us: float = 0.0, device: str = "v100",
              systems: Sequence[str] = ("gnmt", "transformer_big"), gpus: Sequence[int] = (1, 4, 8)) -> list[Training]:
    """Trainings that went as the model says."""
    fitted = Fitted(constants, replace(constants, gap_us=gap_us), LOST)
    tf32 = by_name(device).has_bf16
    blank = [replace(TRAINING, system=system, words=(system,), device=device, gpus=n, precision=precision)
             for system in systems for n in gpus for precision in ("half", "tf32" if tf32 else "fp32")]
    return [replace(p.training, tokens_per_s=p.tokens_per_s) for p in predict(blank, fitted)]


def test_an_error_is_of_the_speed() -> None:
    """6,400 tokens at 64,000 a second are an update of 100 ms; one of 80 ms would be a quarter faster."""
    found = Prediction(TRAINING, 0.08)
    assert (found.error, found.tokens_per_s) == (pytest.approx(0.25), pytest.approx(80_000))
    assert Prediction(replace(TRAINING, gpus=2), 0.2).error == pytest.approx(0.0), "two GPUs have twice the tokens"


def test_errors_are_summed_up_by_size() -> None:
    slow, fast, near = (Prediction(TRAINING, 0.1 / (1 + error)) for error in (-0.4, 0.1, -0.05))
    assert errors([slow, fast, near]) == (pytest.approx(0.1), pytest.approx(0.4))


@pytest.mark.usefixtures("unrecorded")
@pytest.mark.parametrize(("precision", "tf32", "size"), [("tf32", True, 4), ("half", False, 2)])
def test_a_training_is_predicted_from_its_kernels_its_format_and_its_gpus(precision: str, tf32: bool,
                                                                          size: int) -> None:
    asked = replace(TRAINING, words=("gnmt",), device="a100", precision=precision, gpus=8)
    alone, eight = predict([replace(asked, gpus=1), asked], Fitted(TRUTH, Constants(), LOST))
    device = by_name("a100")
    one_s = timeline(kernels("gnmt", precision == "half"), Pace(device, TRUTH, WHOLE, tf32)).seconds
    assert alone.predicted_s == pytest.approx(one_s)
    assert eight.predicted_s == pytest.approx(Fleet(device, 16, **LOST).update_s(one_s, size * 150e6, 150_000_000, 8))


@pytest.mark.usefixtures("unrecorded")
@pytest.mark.parametrize("part", sorted(WITHOUT.keys() - {"the cache"}))  # which helps copies, but not all products
def test_a_model_without_one_of_its_parts_is_faster(part: str) -> None:
    fitted = Fitted(TRUTH, TRUTH, NO_LOSS)
    asked = published(TRUTH, gpus=[1])
    whole, without = ([p.predicted_s for p in predict(asked, fitted, model)] for model in (WHOLE, WITHOUT[part]))
    assert all(a <= b for a, b in zip(without, whole, strict=True))
    assert sum(without) < sum(whole)


@pytest.mark.usefixtures("unrecorded")
def test_what_several_gpus_lose_is_found() -> None:
    assert fit_fleet(published(TRUTH)) == pytest.approx(LOST, rel=1e-4)


@pytest.mark.usefixtures("unrecorded")
def test_the_gap_of_a_loop_is_found_and_predicts_its_trainings_alone() -> None:
    asked = published(TRUTH, gap_us=9.0, systems=("gnmt", "transformer_big", LOOP))
    found = fit_trainings(asked, TRUTH)
    assert found.loop.gap_us == pytest.approx(9.0, rel=0.01)
    assert (found.kernels, dict(found.fleet)) == (TRUTH, pytest.approx(LOST, rel=1e-4))
    assert errors(list(predict(asked, found)))[1] < 0.01


@pytest.mark.usefixtures("unrecorded")
def test_constants_are_found_from_trainings_alone() -> None:
    """Of an A100, of which no kernels were published."""
    asked = published(replace(TRUTH, plain_intensity=10.0), device="a100")
    found = refit(asked)
    assert found.kernels.tensor_intensity == pytest.approx(30.0, rel=0.05)
    assert found.kernels.memory == pytest.approx(0.6, rel=0.05)
    assert errors(list(predict(asked, found)))[1] < 0.02


SIDE = st.floats(-5, 5).map(lambda x: round(x, 3))


@given(st.integers(1, 3), st.integers(1, 6), st.data())
def test_least_squares_have_no_negative_number_and_no_better_neighbour(k: int, n: int, data: st.DataObject) -> None:
    """The conditions of Karush, Kuhn and Tucker, which only the best fulfil: no slope leads down that may be taken."""
    a = np.array(data.draw(st.lists(st.lists(SIDE, min_size=k, max_size=k), min_size=n, max_size=n)))
    b = np.array(data.draw(st.lists(SIDE, min_size=n, max_size=n)))
    x = np.array(least_squares(a, b))
    slope = a.T @ (a @ x - b)
    assert x.min() >= 0
    assert slope.min() >= -1e-6
    assert abs(slope[x > 1e-9]).max(initial=0.0) <= 1e-6


def test_gpus_lose_by_default_what_those_of_the_published_trainings_did(monkeypatch: pytest.MonkeyPatch) -> None:
    @cache
    def params(words: tuple[str, ...]) -> int:
        cfg = resolve(compose(["logger=none", "trainer.accelerator=cpu", *words]))
        return sum(p.numel() for p in without_weights(cfg).parameters())

    monkeypatch.setattr(validation, "recorded", lambda words, sentences, src_len, tgt_len, half: (
        (), params(words) * (2 if half else 4), params(words)))
    found = fit_fleet([t for t in trainings(ROOT / "results" / "published") if t.device.startswith("v100")])
    default = Fleet(by_name("v100"))
    assert found == pytest.approx({name: getattr(default, name) for name in found}, rel=0.02)


@pytest.mark.slow
def test_a_published_training_is_recorded_with_its_own_batch_and_gradients() -> None:
    """GNMT's layers, 4 + 4 and one in both directions, have 92 million parameters, its attention 2 million; ours has
    one matrix of 32,320 x 1,024 for source, target and output. In fp16 each has a gradient of two bytes. Sentences of
    25 tokens are padded to 28, as `data.pad_to_multiple` of our texts says.
    """
    gnmt = next(t for t in trainings(ROOT / "results" / "published") if t.system == "gnmt" and t.precision == "half")
    found, gradient_bytes, params = kernels_of(gnmt)
    assert params == pytest.approx(92.3e6 + 2.1e6 + 32_320 * 1_024, rel=0.001)
    assert gradient_bytes == 2 * params
    steps = [kernel for kernel in found if kernel.name in ("cudnn.lstm.state", "cudnn.lstm.persistent")]
    assert {kernel.product for kernel in steps if kernel.phase == "forward"} == {(1, 128, 4096, 1024)}
    assert sum(kernel.steps for kernel in steps) == 2 * 28 * (4 + 4 + 1)
