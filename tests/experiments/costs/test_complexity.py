"""What a micro-batch costs: the power law that is fitted, the models that are compared, the order they are timed in."""

from math import sqrt
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import FAMILIES, sentences

from minitx.config.compose import compose
from minitx.config.schema import ModelConfig, OptimConfig, resolve_size
from minitx.data.tokenizer import TokenizerPair
from minitx.experiments.costs.complexity import (
    FULL,
    FamilyBenchmark,
    Grid,
    TimedBatch,
    fit_curve,
    power_law,
    random_batch,
    with_width,
)
from minitx.profiling.peak import Peak
from minitx.training.launch import resolve
from minitx.training.state import RunState
from minitx.training.task import TranslationTask
from minitx.utils.console import Console

XS = st.lists(st.integers(1, 10_000), min_size=3, max_size=8, unique=True)


@given(XS, st.floats(-3, 3), st.floats(1e-6, 1e3))
def test_a_power_law_is_recovered(x: list[int], exponent: float, factor: float) -> None:
    found, error = power_law(x, [factor * value ** exponent for value in x])
    assert found == pytest.approx(exponent, abs=1e-6)
    assert error == pytest.approx(0, abs=1e-6)


@given(XS, st.integers(0, 2**32))
def test_the_standard_error_is_that_of_least_squares(x: list[int], seed: int) -> None:
    y = np.exp(np.random.default_rng(seed).normal(size=len(x)))
    found, error = power_law(x, y.tolist())
    # numpy's covariance, scaled by the residuals over their degrees of freedom
    (slope, _), covariance = np.polyfit(np.log(x), np.log(y), 1, cov=True)
    assert found == pytest.approx(slope, rel=1e-6, abs=1e-9)
    assert error == pytest.approx(sqrt(covariance[0, 0]), rel=1e-6)


def test_two_points_have_an_exponent_and_no_error() -> None:
    assert power_law([128, 256], [1, 4]) == (pytest.approx(2), None)


def test_the_last_step_has_an_exponent_of_its_own() -> None:
    found = fit_curve([{"length": x, "sentence_s": y} for x, y in ((16, 1), (32, 2), (64, 8))], "length", "sentence_s")
    assert found["last_exponent"] == pytest.approx(2)
    assert found["exponent"] == pytest.approx(1.5)


def model(name: str, size: str) -> ModelConfig:
    return resolve(compose([f"model={name}", f"model.size={size}"])).model


@pytest.mark.parametrize("width", FULL.widths)
def test_widths_grow_in_step(width: int) -> None:
    transformer, lstm = (vars(with_width(model(name, "small"), width)) for name in ("transformer", "lstm_attention"))
    assert (transformer["d_model"], transformer["d_ff"], transformer["n_heads"]) == (width, 4 * width, width // 64)
    assert (lstm["d_model"], lstm["d_hidden"], lstm["num_layers"]) == (width, width * 416 // 256, 2)


@pytest.mark.parametrize("family", ["transformer", "lstm"])
@pytest.mark.parametrize("size", ["toy", "tiny", "small", "base", "big"])
def test_every_size_can_have_every_width(family: str, size: str) -> None:
    cfg = resolve(compose([f"model={family}", f"model.size={size}"]))
    own = cfg.model.d_model
    assert own is not None
    assert with_width(cfg.model, own) == cfg.model == resolve_size(cfg.model)
    for width in FULL.widths:
        with_width(cfg.model, width).check(cfg.data)


TOKENIZERS = TokenizerPair.train([("ein Hund", "a dog"), ("ein Hund", "a dog")], 260, joint=True)


@given(st.integers(1, 64), st.integers(2, 64))
def test_all_sentences_are_of_one_length(count: int, length: int) -> None:
    batch = random_batch(count * length, length, TOKENIZERS)
    assert batch.n_tokens == batch.src.n_tokens == len(batch.labels) == count * length
    for side in (batch.src, batch.tgt):
        assert [len(sentence) for sentence in sentences(side)] == [length] * count
    assert int(batch.src.ids.max()) < 260


def point(family: str, **changes: Any) -> TimedBatch:
    vocab = {"src_vocab_size": 260, "tgt_vocab_size": 260}
    task = TranslationTask(FAMILIES[family](**vocab, **changes), optim(), state=RunState(), precision="32-true", seed=0)
    return TimedBatch(family, task.train(), random_batch(64, 16, TOKENIZERS), 16, 16)


def optim() -> OptimConfig:
    return compose([]).optim


@pytest.mark.parametrize("family", ["transformer sinusoidal", "lstm", "lstm dot"])
def test_a_micro_batch_goes_back_to_every_weight_and_leaves_nothing(family: str) -> None:
    timed = point(family)
    reached = set[str]()
    for name, weight in timed.task.named_parameters():
        weight.register_hook(lambda _, name=name: reached.add(name))
    before = [weight.clone() for weight in timed.task.parameters()]
    timed.time_once()
    assert reached == {name for name, _ in timed.task.named_parameters()}
    assert all(weight.grad is None for weight in timed.task.parameters())
    assert all(map(torch.equal, before, timed.task.parameters()))
    assert timed.seconds[0] > 0


def test_a_record_is_of_the_median_and_the_first_round_left_out() -> None:
    timed = point("lstm")
    timed.seconds = [100.0, 3.0, 1.0, 2.0]
    found = timed.record(Peak(1e-5, "data sheet"))
    assert timed.flop is not None
    assert (found["seconds"], found["fastest_s"], found["slowest_s"]) == (2, 1, 3)
    assert (found["sentence_s"], found["token_s"]) == (2 / 4, 2 / 64)
    assert found["tflops"] == pytest.approx(1e-12 * timed.flop / 2)
    assert found["mfu_pct"] == pytest.approx(100 * found["tflops"] / 1e-5)


def test_a_family_that_counts_no_operations_has_times_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = point("lstm")
    monkeypatch.setattr(type(timed.task.model), "flops", lambda *_: None)
    timed.time_once()
    timed.time_once()
    found = timed.record(Peak(1.0, "data sheet"))
    assert (found["flop"], found["tflops"], found["mfu_pct"]) == (None, None, None)
    assert found["seconds"] == timed.seconds[1]


def test_every_point_is_timed_once_a_round_and_families_alternate(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[tuple[str, int, int]] = []
    monkeypatch.setattr(TimedBatch, "time_once", lambda self: order.append((self.name, self.length, self.d_model)))
    words = ["model.size=toy", "trainer.precision=32-true", "trainer.accelerator=cpu"]
    families = {name: resolve(compose([*words, f"model={name}"])) for name in ("transformer", "lstm")}
    grid = Grid(lengths=(8, 16), widths=(32, 64), length=16, tokens=32, repeats=2)
    benchmark = FamilyBenchmark(families, grid, Console())
    benchmark.time_all(list(benchmark.points(TOKENIZERS)))
    one_round = [(name, *at) for at in ((8, 32), (16, 32), (16, 64)) for name in families]
    assert order == one_round * 3
