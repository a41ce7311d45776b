"""Published figures: read as they stand, of devices that exist, and none better than physics allows."""

from statistics import median

import pytest
from toys import ROOT

from minitx.experiments.prediction.published import Training, kernels, lstm_runs, trainings
from minitx.profiling.devices import by_name
from minitx.profiling.timeline import BYTES, FAST, Constants, peak_flops

FOLDER = ROOT / "results" / "published"
TRAININGS = trainings(FOLDER)


def training(system: str, device: str, gpus: int, precision: str) -> Training:
    found, = (t for t in TRAININGS if (t.system, t.device, t.gpus, t.precision) == (system, device, gpus, precision))
    return found


@pytest.mark.parametrize(("device", "n_products", "n_layers"), [("v100", 320, 44), ("t4", 320, 0)])
def test_kernels_are_read(device: str, n_products: int, n_layers: int) -> None:
    products, layers = kernels(FOLDER, device)
    assert (len(products), len(layers)) == (n_products, n_layers)


def test_a_kernel_is_what_its_row_says() -> None:
    products, layers = kernels(FOLDER, "v100")
    first, last = products[0], layers[-1]
    assert (first.dtype, first.rows, first.columns, first.inner, first.us) == ("float", 1760, 16, 1760, 38.0)
    assert (last.dtype, last.hidden, last.sentences, last.steps) == ("half", 256, 64, 150)
    assert (last.forward_us, last.backward_us, last.weights_us) == (4450.0, 5429.0, 241.0)


@pytest.mark.parametrize("name", ["v100", "t4"])
def test_no_kernel_was_faster_than_its_device(name: str) -> None:
    """Neither than its peak nor, where the cache cannot hold its matrices, than its memory."""
    device = by_name(name)
    products, layers = kernels(FOLDER, name)
    for p in products:
        peak, _ = peak_flops(device, p.dtype, tf32=False)
        assert 2e6 * p.rows * p.columns * p.inner / peak < p.us
        moved = BYTES[p.dtype] * (p.rows * p.inner + p.inner * p.columns + p.rows * p.columns)
        assert moved < device.l2_mib * 2**20 or moved / (1e3 * device.bandwidth_gb_s) < p.us
    for layer in layers:
        peak, _ = peak_flops(device, layer.dtype, tf32=False)
        least_us = 8e6 * layer.steps * layer.sentences * layer.hidden**2 / peak
        assert least_us < min(layer.forward_us, layer.backward_us, layer.weights_us)


@pytest.mark.parametrize(("system", "device", "gpus", "precision", "counted", "update_s"), [
    ("gnmt", "v100", 1, "half", 128 * (25 + 25), 6_400 / 76_438),
    ("gnmt", "a100", 8, "tf32", 6_400, 8 * 6_400 / 519_952),
    ("transformer_big", "v100-32", 16, "half", 320 * 32, 16 * 10_240 / 517_227)])
def test_an_update_takes_its_tokens_over_those_of_a_second(system: str, device: str, gpus: int, precision: str,
                                                           counted: int, update_s: float) -> None:
    """GNMT's speed counts the tokens of both sides, the Transformer's those of the target; tokens are of one GPU."""
    found = training(system, device, gpus, precision)
    assert found.counted == counted
    assert found.update_s == pytest.approx(update_s)


def test_trainings_are_of_devices_that_exist_and_of_named_sources() -> None:
    for t in TRAININGS:
        device = by_name(t.device)
        assert t.precision in ("half", "tf32" if device.has_bf16 else "fp32")
        assert "commit" in t.source
    assert len({(t.system, t.device, t.gpus, t.precision) for t in TRAININGS}) == len(TRAININGS) == 34


def test_several_gpus_are_faster_than_one_and_never_beat_their_number() -> None:
    for t in TRAININGS:
        one = training(t.system, t.device, 1, t.precision)
        assert one.tokens_per_s <= t.tokens_per_s <= t.gpus * one.tokens_per_s


def test_a_step_of_cudnns_lstm_took_longer_backwards_and_the_kernel_for_narrow_states_wins_where_they_are_narrow(
        ) -> None:
    """What the page says of them: medians of one layer in half precision, and that DeepBench's steps took longer."""
    runs = [run for run in lstm_runs(FOLDER) if run.dtype == "half"]
    assert len(runs) == 20
    one = [run for run in runs if run.layers == 1]
    forward, backward = (median(run.step_us(ms) for run, ms in zip(one, took, strict=True)) for took in (
        [run.forward_ms for run in one], [run.backward_ms for run in one]))
    assert (forward, backward) == (pytest.approx(7.8, abs=0.05), pytest.approx(12.9, abs=0.05))
    assert 2 * FAST.step_us == pytest.approx(forward, rel=0.1)
    assert 2 * Constants().step_us > backward
    assert all(run.small_forward_ms < run.forward_ms for run in runs if run.d_hidden <= 128)
    assert all(run.small_backward_ms < 0.5 * run.backward_ms for run in runs if run.d_hidden <= 128)
