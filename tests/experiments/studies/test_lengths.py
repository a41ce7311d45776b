"""What a sentence costs: bytes and operators counted where the count is known, limits kept, claims that can fail."""

import json
from io import StringIO
from math import inf
from typing import Any

import pytest
import torch
from experiments.studies.conftest import families
from hypothesis import given
from hypothesis import strategies as st

from minitx.experiments.reports.study_plots import FIGURES
from minitx.experiments.studies import lengths
from minitx.experiments.studies.common import run_study
from minitx.experiments.studies.growth import Sizes, common_points, family_task, speedup
from minitx.experiments.studies.lengths import claims, crossover, depth_law, longest_chain, serial_depth, waits
from minitx.models import cpu_attention
from minitx.utils.console import Console

NAMES = ("transformer", "transformer_window", "linear_rnn_attention", "linear_rnn", "lstm_attention", "lstm")
TINY = Sizes(d_model=16, shortest=8, longest=1_024, pass_s=3_600.0, repeats=1)  # however busy the machine is


# --- operators


@given(st.integers(1, 30), st.integers(0, 30))
def test_the_longest_of_several_paths_is_counted(long: int, short: int) -> None:
    x = torch.ones((), requires_grad=True)
    a, b = x, x
    for _ in range(long):
        a = a.sin()
    for _ in range(short):
        b = b.cos()
    assert longest_chain(a + b) == 1 + max(long, short)


@pytest.mark.parametrize("name", NAMES)
def test_the_law_of_depth_holds_at_lengths_that_were_not_counted(name: str) -> None:
    model = family_task(families(name)[name], 16, "32-true").model
    law = depth_law(model)
    assert law["exact"]
    for length in (5, 23, 90):
        doublings = (length - 1).bit_length()
        assert serial_depth(model, length) == law["constant"] + law["a_token"] * length + law["a_doubling"] * doublings


def test_a_recurrence_waits_for_each_token_in_each_layer_and_attention_for_none() -> None:
    def a_token(name: str, **words: object) -> float:
        return float(depth_law(family_task(families(name, **words)[name], 16, "32-true").model)["a_token"])

    one = a_token("lstm", **{"model.num_layers": 1})
    assert one >= 4  # a step forwards and a step backwards, in the encoder and in the decoder
    assert a_token("lstm", **{"model.num_layers": 3}) == 3 * one
    assert a_token("lstm", **{"model.num_layers": 1, "model.bidirectional": "false"}) == one  # both ways at once
    assert a_token("lstm_attention", **{"model.num_layers": 1}) == one
    assert a_token("transformer", **{"model.num_layers": 3}) == 0
    assert a_token("linear_rnn") == 0


def test_a_linear_recurrence_waits_for_as_many_rounds_more_with_each_doubling_in_each_layer() -> None:
    def a_doubling(layers: int) -> float:
        cfg = families("linear_rnn", **{"model.num_layers": layers})["linear_rnn"]
        return float(depth_law(family_task(cfg, 16, "32-true").model)["a_doubling"])

    assert a_doubling(1) >= 4  # a round forwards and a round backwards, in the encoder and in the decoder
    assert a_doubling(3) == 3 * a_doubling(1)


@pytest.mark.parametrize("limit", [{"pass_s": 0.0}, {"memory_share": 0.0}])
def test_limits_end_a_climb(limit: dict[str, float]) -> None:
    found = lengths.measure(families(*NAMES), Sizes(d_model=16, shortest=8, longest=64, repeats=1, **limit),
                            Console(StringIO()))
    for family in found["families"].values():
        assert [point["length"] for point in family["points"]] == [8]
        assert family["stopped"].startswith("before 16 tokens")
    assert all(claim["holds"] is None for claim in found["claims"][:5])


# --- all of it


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lengths, "SIZES", {"tiny": TINY})
        patch.setattr(cpu_attention, "LONG", 2**14)  # so that sentences of some hundred tokens are long
        patch.setattr(cpu_attention, "SCORES", 2**14)
        return run_study(lengths, families(*NAMES), "tiny", Console(StringIO()))


def test_every_family_is_measured_at_every_length(found: dict[str, Any]) -> None:
    assert list(found["families"]) == list(NAMES)
    for family in found["families"].values():
        points = family["points"]
        assert [point["length"] for point in points] == TINY.lengths
        assert family["stopped"] is None
        assert all(0 < p["fastest_s"] <= p["seconds"] <= p["slowest_s"] for p in points)
        peaks = [p["peak_bytes"] for p in points]
        assert peaks == sorted(peaks)
        assert peaks[0] > 0


def test_no_family_holds_squares_of_long_sentences(found: dict[str, Any]) -> None:
    for name, family in found["families"].items():
        assert family["memory"]["exponent"] < 1.1, name


@pytest.mark.slow
def test_memory_is_the_same_however_often_it_is_counted(found: dict[str, Any]) -> None:
    again = lengths.measure(families(*NAMES), Sizes(d_model=16, shortest=8, longest=32, repeats=1), Console(StringIO()))
    for name, family in again["families"].items():
        before = found["families"][name]["points"][:3]
        assert [p["peak_bytes"] for p in family["points"]] == [p["peak_bytes"] for p in before]


def test_it_is_stored_shown_and_drawn(found: dict[str, Any]) -> None:
    stored = json.loads(json.dumps(found))
    assert FIGURES["lengths"](stored) == FIGURES["lengths"](found)
    lines = list(lengths.table(found))
    assert sum("grows as L^" in line for line in lines) == 2 * len(NAMES)
    assert {claim["holds"] for claim in found["claims"]} <= {True, False, None}
    assert len(found["claims"]) == 11


# --- what follows


OTHERS = {"linear_rnn": (lambda n: n, 12), "linear_rnn_attention": (lambda n: n, 12),
          "lstm_attention": (lambda n: 2 * n, 12)}


def timed(**families_: Any) -> dict[str, Any]:
    return {name: {"points": [{"length": 2**i, "seconds": seconds(2**i), "fastest_s": 0.9 * seconds(2**i),
                               "slowest_s": 1.1 * seconds(2**i)} for i in range(4, last)],
                   "depth": {"exact": True, "a_token": 1.0 * (name == "lstm"), "counted": {}},
                   "time": None, "memory": None}
            for name, (seconds, last) in (OTHERS | families_).items()}


@given(st.floats(20, 4_000))
def test_the_crossover_of_two_powers_is_found(where: float) -> None:
    found = timed(transformer=(lambda n: n * n / where, 13), lstm=(lambda n: n, 16))
    assert crossover(found, "transformer", "lstm") == pytest.approx(where, rel=1e-6)


@pytest.mark.parametrize("quadratic", [1.0, 1e-9])
def test_a_crossover_may_be_missing(quadratic: float) -> None:
    found = timed(transformer=(lambda n: quadratic * n * n, 13), lstm=(lambda n: n, 17))
    assert crossover(found, "transformer", "lstm") is None


@pytest.mark.parametrize(("quadratic", "holds"), [(1 / 300, True), (1 / 4_096, None), (1e-9, False)])
def test_the_last_claim_is_of_the_longest_sentence_that_both_were_given(quadratic: float, holds: bool | None) -> None:
    *_, claim = claims(timed(transformer=(lambda n: quadratic * n * n, 13), lstm=(lambda n: n, 17)))
    assert claim.claim.startswith("at 4,096 tokens, the longest")
    assert claim.holds is holds


@pytest.mark.parametrize(("a_token", "exact", "holds"), [(0.0, True, True), (4.0, True, False), (0.0, False, None)])
def test_depth_is_judged(a_token: float, exact: bool, holds: bool | None) -> None:
    depth = {"a_token": a_token, "exact": exact, "counted": {8: 1}}
    assert waits("none", depth, (0, 0)).holds is holds


@pytest.mark.parametrize(("factor", "holds"), [(10, True), (2, False), (5, None)])
def test_speed_is_judged_between_extremes(factor: float, holds: bool | None) -> None:
    found = timed(transformer=(lambda n: n, 12), lstm=(lambda n: factor * n, 12))
    both = common_points(found["transformer"]["points"], found["lstm"]["points"])
    assert speedup("", both[512], (5, inf)).holds is holds


def test_all_claims_are_made() -> None:
    found = timed(transformer=(lambda n: n * n, 12), lstm=(lambda n: n, 12))
    assert [claim.holds for claim in claims(found)] == [None] * 5 + [True, True, True, False, True, True]
    short = timed(transformer=(lambda n: n * n, 7), lstm=(lambda n: n, 12))
    assert [claim.holds for claim in claims(short)][-3:] == [None, True, True], "512 tokens were not measured"
