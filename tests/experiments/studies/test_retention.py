"""What a probe reads: what is there, nothing where nothing is, never its own split; and claims judged either way."""

import json
from io import StringIO
from typing import Any

import numpy as np
import pytest
import torch
from experiments.studies.conftest import families
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx.experiments.fits import wilson
from minitx.experiments.reports.study_plots import FIGURES
from minitx.experiments.studies import retention
from minitx.experiments.studies.common import KEYS, STAGES, SYSTEMS, Lesson, build_reader, run_study
from minitx.experiments.studies.retention import (
    CHANCE,
    ProbeCounts,
    Sizes,
    claims,
    forgets,
    probe,
    probe_reader,
    reads,
    summarize,
)
from minitx.utils.console import Console

N = 512


def drawn(strength: float, seed: int = 0, dimensions: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise, in which a key adds so much to a direction of its own. --> [2N, D], [2N]"""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randint(KEYS, (2 * N,), generator=generator)
    directions = torch.randn(KEYS, dimensions, generator=generator, dtype=torch.float64)
    return strength * directions[keys] + torch.randn(2 * N, dimensions, generator=generator, dtype=torch.float64), keys


def share(x: torch.Tensor, keys: torch.Tensor) -> float:
    return probe(x[:N], keys[:N], x[N:], keys[N:]) / N


def test_a_probe_reads_what_is_there_and_the_more_the_stronger_it_is() -> None:
    shares = [share(*drawn(strength)) for strength in (0.0, 0.3, 3.0)]
    low, high = wilson(round(shares[0] * N), N)
    assert low <= CHANCE <= high
    assert shares[0] + 0.1 < shares[1] < shares[2] - 0.1
    assert shares[2] > 0.97


def test_what_it_learned_by_heart_is_worth_nothing() -> None:
    x, keys = drawn(0.0, dimensions=600)  # more dimensions than sentences: any labels can be fitted
    assert probe(x[:N], keys[:N], x[:N], keys[:N]) > 0.95 * N
    low, high = wilson(round(share(x, keys) * N), N)
    assert low <= CHANCE <= high


@settings(max_examples=10)
@given(st.floats(-8, 8), st.floats(-100, 100))
def test_neither_scale_nor_place_of_a_state_matters(power: float, place: float) -> None:
    x, keys = drawn(1.0)
    assert share(10.0**power * x + 10.0**power * place, keys) == pytest.approx(share(x, keys), abs=0.02)


def test_what_is_there_is_read_however_little_of_the_state_it_moves() -> None:
    generator = torch.Generator().manual_seed(0)
    keys = torch.randint(KEYS, (2 * N,), generator=generator)
    apart = torch.linalg.qr(torch.randn(48, 48, generator=generator, dtype=torch.float64))[0]
    noise = torch.randn(2 * N, 32, generator=generator, dtype=torch.float64)
    key = 0.01 * torch.nn.functional.one_hot(keys, KEYS).double()
    assert share(torch.cat([noise, key], 1) @ apart, keys) > 0.97


def test_a_state_that_never_changes_says_nothing() -> None:
    _, keys = drawn(1.0)
    assert share(torch.ones(2 * N, 8, dtype=torch.float64), keys) < 3 * CHANCE


def test_the_state_of_a_recurrence_that_forgets_at_once_holds_nothing_and_after_one_step_all() -> None:
    sizes = Sizes(fitted=N, scored=N)
    reader = build_reader("rnn", families("lstm", "linear_rnn_attention", "transformer"), 32, 0).eval()
    near = probe_reader(reader, 1, sizes, np.random.default_rng(0))
    with torch.no_grad():
        reader.encoder.rnn.weight_hh_l0.zero_()
    gone = probe_reader(reader, 1, sizes, np.random.default_rng(0))
    assert near.n == gone.n == N
    assert near.probe > 0.95 * N
    assert gone.probe < 2 * CHANCE * N
    for seen in (near, gone):
        assert seen.shuffled < 2 * CHANCE * N


def test_the_readers_own_answers_are_counted() -> None:
    reader = build_reader("lstm", families("lstm", "linear_rnn_attention", "transformer"), 32, 0).eval()
    sizes = Sizes(fitted=8, scored=N)
    with torch.no_grad():
        reader.output.weight.zero_()  # it always names the first key
    assert probe_reader(reader, 2, sizes, np.random.default_rng(0)).reader / N == pytest.approx(CHANCE, abs=0.04)


# --- what follows


def seen(*rights: int, shuffled: int = 64) -> list[dict[str, Any]]:
    """Of 1,024 sentences each, at 2, 8, 32 ... tokens."""
    return [summarize(2 * 4**i, [ProbeCounts(1_024, right, shuffled, right)]) for i, right in enumerate(rights)]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=4))
def test_seeds_are_added_up(counts: list[tuple[int, int]]) -> None:
    found = summarize(8, [ProbeCounts(50, right, shuffled, right) for right, shuffled in counts])
    rights = [right for right, _ in counts]
    assert (found["n"], found["right"]) == (50 * len(counts), sum(rights))
    assert (found["low"], found["high"]) == wilson(sum(rights), 50 * len(counts))
    assert found["shares"] == [right / 50 for right in rights]


@pytest.mark.parametrize(("after", "holds"), [(100, True), (1_020, False), (965, None)])
def test_forgetting_is_judged_from_where_most_is_read_to_the_longest_distance(after: int, holds: bool | None) -> None:
    claim = forgets("it", seen(1_000, 1_022, after))
    assert claim.holds is holds
    assert "after 32 tokens than after 8" in claim.claim


def test_where_nothing_is_read_nothing_is_forgotten() -> None:
    claim = forgets("it", seen(90, 70, 64))
    assert claim.holds is None
    assert "no more than 0.088 is read" in claim.why


def test_seeds_that_disagree_leave_it_open() -> None:
    points = [summarize(distance, [ProbeCounts(1_024, right, 64, right) for right in rights])
              for distance, rights in ((8, (1_024, 1_024)), (32, (1_024, 100)))]
    assert forgets("it", points).holds is None


@pytest.mark.parametrize(("worst", "holds"), [(1_020, True), (700, False), (973, None)])
def test_retrieval_is_judged_where_it_is_worst(worst: int, holds: bool | None) -> None:
    assert reads("", seen(1_024, worst, 1_024), (0.95, float("inf"))).holds is holds


@pytest.mark.parametrize("memory", [True, False])
def test_claims_follow_the_figures_not_the_names(memory: bool) -> None:
    keeps = (1_024, 1_024, 1_024 if memory else 70)
    rights = {"lstm": keeps, "linear_rnn": keeps, "rnn": (1_024, 1_024, 70),
              "transformer": (1_024, 1_024, 70 if memory else 1_024)}
    figures = {system: dict.fromkeys(STAGES, seen(*rights[system])) for system in SYSTEMS}
    lost = not memory
    assert [claim.holds for claim in claims(figures)] == [True, lost, lost, True, *[lost] * 4]


# --- all of it

TINY = Sizes(Lesson(width=16, longest=4, sentences=8, updates=3, seeds=2), distances=(1, 4), fitted=64, scored=64)


def test_it_is_measured_stored_shown_and_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "SIZES", {"tiny": TINY})
    found = run_study(retention, families("lstm", "linear_rnn_attention", "transformer"), "tiny", Console(StringIO()))
    for system in SYSTEMS:
        for stage in STAGES:
            points = found["systems"][system][stage]
            assert [(point["distance"], point["n"]) for point in points] == [(1, 128), (4, 128)]
            assert all(0 <= p["low"] <= p["share"] <= p["high"] <= 1 for p in points)
    stored = json.loads(json.dumps(found))
    assert FIGURES["retention"](stored) == FIGURES["retention"](found)
    assert sum(line.startswith(SYSTEMS) for line in retention.table(found)) == 2 * len(SYSTEMS)
    assert len(found["claims"]) == 8
