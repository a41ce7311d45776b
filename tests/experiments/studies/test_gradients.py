"""What comes back of a gradient: as autograd has it at the table, by a known factor a step, and judged either way."""

import json
from io import StringIO
from math import exp, inf, log
from typing import Any

import numpy as np
import pytest
import torch
from experiments.studies.conftest import families
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import sentences

from minitx.data.batch import pack
from minitx.data.tokenizer import N_SPECIALS, PAD_ID
from minitx.experiments.reports.study_plots import FIGURES
from minitx.experiments.studies import gradients
from minitx.experiments.studies.common import (
    STAGES,
    SYSTEMS,
    LatchBatch,
    Lesson,
    Reader,
    build_reader,
    draw_latch_batch,
    run_study,
)
from minitx.experiments.studies.gradients import (
    GradientFlow,
    Sizes,
    claims,
    decays,
    geometric_mean,
    if_learned,
    keeps,
    measure_flow,
    summarize,
)
from minitx.utils.console import Console

DISTANCES = (1, 2, 4, 8, 16, 32, 64)
WIDTH = 16


@pytest.mark.parametrize("system", SYSTEMS)
@given(distance=st.integers(1, 9), seed=st.integers(0, 99))
def test_it_is_the_gradient_that_arrives_at_the_keys_row_of_the_table(system: str, distance: int, seed: int) -> None:
    reader = build_reader(system, families("lstm", "linear_rnn_attention", "transformer"), WIDTH, seed).eval().double()
    batch = draw_latch_batch([distance], np.random.default_rng(seed))
    found = measure_flow(reader, batch)
    states = reader(batch.src)
    loss = reader.loss_sum(states, batch.keys)
    table, state = torch.autograd.grad(loss, (reader.encoder.src_embed.weight, states))
    at_key = table[N_SPECIALS + int(batch.keys[0])].norm()  # fillers are other rows
    assert found.gradient == pytest.approx(float(at_key))
    assert found.carried == pytest.approx(float(at_key / state.norm()))
    assert found.right == float(reader.output(states).argmax() == batch.keys[0])


def test_norms_are_means_over_sentences_and_nothing_is_left_behind() -> None:
    reader = build_reader("lstm", families("lstm", "linear_rnn_attention", "transformer"), WIDTH, 0).eval().double()
    both = draw_latch_batch([3, 5], np.random.default_rng(0))
    apart = [measure_flow(reader, LatchBatch(pack([ids], PAD_ID), key[None])).gradient
             for ids, key in zip(sentences(both.src), both.keys, strict=True)]
    assert measure_flow(reader, both).gradient == pytest.approx(sum(apart) / 2)
    assert all(weight.grad is None for weight in reader.parameters())


@settings(max_examples=15)
@given(st.floats(0.3, 0.97))
def test_a_recurrence_that_shrinks_by_a_factor_is_seen_to(factor: float) -> None:
    reader = shrinking(factor)
    flows = [measure_flow(reader, draw_latch_batch([distance] * 4, np.random.default_rng(0))) for distance in DISTANCES]
    found = summarize(DISTANCES, [flows])
    assert found["exponential"]["a_step"] == pytest.approx(factor, rel=1e-3)
    assert found["exponential"]["residual"] < 1e-2
    assert decays("it decays", found).holds is True


def shrinking(factor: float) -> Reader:
    """A plain RNN near zero, where tanh is the identity, that keeps so much of its state at each step."""
    reader = build_reader("rnn", families("lstm", "linear_rnn_attention", "transformer"), WIDTH, 0).eval().double()
    with torch.no_grad():
        reader.encoder.src_embed.weight.mul_(1e-6)
        for weight in (reader.encoder.rnn.bias_ih_l0, reader.encoder.rnn.bias_hh_l0):
            weight.zero_()
        reader.encoder.rnn.weight_hh_l0.copy_(factor * torch.eye(WIDTH))
    return reader


# --- what follows


def seen(carried: Any, seeds: int = 1) -> dict[str, Any]:
    """Sum up what is carried over each distance, the same for every seed."""
    return summarize(DISTANCES, [[GradientFlow(carried(d), carried(d), 1.0) for d in DISTANCES]] * seeds)


@given(st.floats(0.05, 0.97), st.floats(0.1, 10))
def test_an_exponential_is_told_from_a_power(factor: float, first: float) -> None:
    assert decays("", seen(lambda d: first * factor**d)).holds is True
    assert decays("", seen(lambda d: first * d ** log(factor))).holds is False


def test_what_rises_or_stays_does_not_decay_and_what_is_between_the_two_forms_is_not_decided() -> None:
    assert decays("", seen(lambda d: 1.01**d)).holds is False
    assert decays("", seen(lambda d: 2.0 + (-1) ** d * exp(-d))).holds is False
    assert decays("", seen(lambda d: 0.999**d)).holds is False, "a tenth of it is lost"
    assert decays("", seen(lambda d: exp(-d**0.5))).holds is None
    assert decays("", seen(lambda d: exp(2 * (-1) ** d))).holds is None


@pytest.mark.parametrize("named", [(1.0, 0.95), (1.0, 0.5)])
def test_of_a_reader_that_has_not_learned_with_every_seed_nothing_is_said(named: tuple[float, float]) -> None:
    flows = [[GradientFlow(1, 0.5**d, 1.0 if d < 64 else last) for d in DISTANCES] for last in named]
    taught = summarize(DISTANCES, flows)
    claim = if_learned(taught, decays("it decays", taught))
    assert claim.holds is (True if min(named) > 0.9 else None)
    assert ("no more than 50 % of the keys" in claim.why) is (min(named) < 0.9)


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=5))
def test_a_geometric_mean_is_that_of_logarithms(values: list[float]) -> None:
    assert geometric_mean(values) == pytest.approx(float(np.exp(np.log(values).mean())))
    assert geometric_mean([*values, 0.0]) == 0


def test_a_gradient_that_is_zero_is_in_no_fit() -> None:
    found = seen(lambda d: 0.5**d if d < 64 else 0.0)
    assert found["exponential"]["a_step"] == pytest.approx(0.5)
    assert (found["kept"], found["kept_interval"]) == (0.0, (0.0, 0.0))


@pytest.mark.parametrize(("last", "holds"), [((0.6, 0.9), True), ((0.01, 0.2), False), ((0.1, 0.9), None)])
def test_what_is_kept_is_judged_between_seeds(last: tuple[float, float], holds: bool | None) -> None:
    seeds = [[GradientFlow(1, 1, 1), GradientFlow(1, 1, 1), GradientFlow(kept, kept, 1)] for kept in last]
    found = summarize((1, 2, 4), seeds)
    assert found["kept"] == pytest.approx((last[0] * last[1]) ** 0.5)
    assert keeps("", found, (0.5, inf)).holds is holds


@pytest.mark.parametrize("lost", ["rnn", "transformer"])
def test_claims_follow_the_figures_not_the_names(lost: str) -> None:
    figures = {system: {stage: seen((lambda d: 0.8**d) if system == lost else (lambda d: 1.0 + 0.01 * (d % 3)))
                        for stage in STAGES} for system in SYSTEMS}
    holds = [claim.holds for claim in claims(figures)]
    assert holds[0] is (lost == "rnn")
    assert holds[6:] == [lost != "transformer"] * 2
    assert holds[4:6] == [True, True]


# --- all of it

TINY = Sizes(Lesson(width=WIDTH, longest=4, sentences=8, updates=3, seeds=2), distances=(1, 2, 4), sentences=4)


def test_it_is_measured_stored_shown_and_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "SIZES", {"tiny": TINY})
    found = run_study(gradients, families("lstm", "linear_rnn_attention", "transformer"), "tiny", Console(StringIO()))
    for system in SYSTEMS:
        for stage in STAGES:
            points = found["systems"][system][stage]["points"]
            assert [point["distance"] for point in points] == [1, 2, 4]
            assert all(0 < p["carried_low"] <= p["carried"] <= p["carried_high"] for p in points)
    stored = json.loads(json.dumps(found))
    assert FIGURES["gradients"](stored) == FIGURES["gradients"](found)
    assert sum("a step, or d^" in line for line in gradients.table(found)) == 2 * len(SYSTEMS)
    assert len(found["claims"]) == 8
