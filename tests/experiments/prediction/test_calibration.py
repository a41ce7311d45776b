"""Constants of a device: those that made synthetic kernels are found again, and the defaults are those of a V100."""

from collections.abc import Callable
from dataclasses import replace
from math import exp

import numpy as np
import pytest
from toys import ROOT

from minitx.experiments.prediction.calibration import FITTED, Floats, calibrate, fit, layer_us, product_us
from minitx.experiments.prediction.published import LSTMLayer, Product, kernels
from minitx.profiling.devices import by_name
from minitx.profiling.timeline import Constants, Pace

V100 = by_name("v100")
TRUTH = Constants(tensor_intensity=30.0, plain_intensity=8.0, memory=0.75, product_us=6.0, step_us=12.0)
ELSEWHERE = Constants(tensor_intensity=15.0, plain_intensity=15.0, memory=0.5, product_us=12.0, step_us=25.0)
SHAPES = [(64, 64, 64), (1760, 16, 1760), (2048, 7000, 2048), (4096, 128, 4096), (5124, 700, 2048), (35, 8457, 2560),
          (7680, 1500, 2560), (512, 24000, 2816), (128, 128, 128)]


def synthetic(constants: Constants) -> tuple[list[Product], list[LSTMLayer]]:
    """Kernels that take exactly what the model of a V100 with these constants says."""
    pace = Pace(V100, constants)
    products = [Product(dtype, *shape, us=0.0) for dtype in ("half", "float") for shape in SHAPES]
    layers = [LSTMLayer(dtype, hidden, sentences, 5, 0.0, 0.0, 0.0)
              for dtype in ("half", "float") for hidden, sentences in ((256, 16), (1024, 64), (2048, 128))]
    return ([replace(p, us=product_us(p, pace)) for p in products],
            [LSTMLayer(layer.dtype, layer.hidden, layer.sentences, layer.steps, *layer_us(layer, pace))
             for layer in layers])


def fitted(constants: Constants) -> dict[str, float]:
    return {name: getattr(constants, name) for name in FITTED}


def test_a_product_by_itself_takes_its_work_and_a_floor() -> None:
    """80 tiles of 256 x 128, and a product of nothing."""
    pace = Pace(V100, TRUTH)
    share = (256 * 128 / 384) / (256 * 128 / 384 + 30.0)
    work_us = 1e6 * 2 * 2048 * 1280 * 1024 / (share * 125e12)
    assert product_us(Product("half", 2048, 1280, 1024, us=0.0), pace) == pytest.approx(6.0 + work_us)
    assert product_us(Product("half", 1, 1, 1, us=0.0), pace) == pytest.approx(6.0, rel=0.01)


def test_a_layer_takes_two_kernels_a_step_and_two_for_its_weights() -> None:
    """Of a layer so small that floors alone count."""
    found = layer_us(LSTMLayer("float", 8, 1, 50, 0.0, 0.0, 0.0), Pace(V100, replace(TRUTH, step_us=1e3)))
    assert found == pytest.approx((2 * 50 * 1e3, 2 * 50 * 1e3, 2 * 1e3), rel=0.01)


def test_the_constants_that_made_kernels_are_found() -> None:
    assert fitted(calibrate(*synthetic(TRUTH), V100, start=ELSEWHERE)) == pytest.approx(fitted(TRUTH), rel=0.01)


def test_an_outlier_does_not_decide() -> None:
    products, layers = synthetic(TRUTH)
    products[3] = replace(products[3], us=20 * products[3].us)
    assert fitted(calibrate(products, layers, V100, start=ELSEWHERE)) == pytest.approx(fitted(TRUTH), rel=0.15)


def test_what_no_kernel_tells_stays_as_it_was() -> None:
    start = replace(ELSEWHERE, kernel_us=1.5, operator_us=9.0)
    found = calibrate(*synthetic(TRUTH), V100, start=start)
    assert replace(found, **fitted(start)) == start


def near(**wanted: float) -> Callable[[Constants], Floats]:
    return lambda constants: np.array([np.log(getattr(constants, name) / value) for name, value in wanted.items()])


def test_a_fit_finds_what_has_no_residuals_and_never_more_than_all_of_the_memory() -> None:
    found = fit(Constants(), ("product_us", "memory"), near(product_us=0.01, memory=0.2))
    assert (found.product_us, found.memory) == (pytest.approx(0.01, rel=1e-3), pytest.approx(0.2, rel=1e-3))
    assert fit(Constants(), ("memory",), near(memory=3.0)).memory == 1.0


def test_a_fit_takes_the_middle_of_what_is_near_and_little_of_an_outlier() -> None:
    def residuals(*us: float) -> Callable[[Constants], Floats]:
        return lambda constants: np.log(constants.product_us / np.array(us))

    assert fit(Constants(), ("product_us",), residuals(5.0, 5.5)).product_us == pytest.approx(27.5 ** 0.5, rel=1e-3)
    with_outlier = fit(Constants(), ("product_us",), residuals(4.0, 4.0, 90.0)).product_us
    assert with_outlier == pytest.approx(4.0 * exp(0.15 / 2), rel=1e-2), "where 2 x / 0.15 = 1"


@pytest.mark.slow
@pytest.mark.parametrize("start", [ELSEWHERE, replace(ELSEWHERE, tensor_intensity=40.0, memory=0.95, step_us=8.0)])
def test_the_defaults_are_those_of_a_v100_wherever_the_fit_begins(start: Constants) -> None:
    found = calibrate(*kernels(ROOT / "results" / "published", "v100"), V100, start=start)
    assert fitted(found) == pytest.approx(fitted(Constants()), rel=0.02)
