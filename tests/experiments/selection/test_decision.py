"""A decision excludes what fails a demand, for a reason that is true, and orders the rest by quality, then hours."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from selected import KNOWN, PURE, figures_of, made_up

from minitx.evaluation.significance import MATTERS
from minitx.experiments.selection.candidates import Candidate, architectures, command, is_too_large, savings, sizes
from minitx.experiments.selection.decision import Decision, Row, attempts, best_of, choose, examined, ranked
from minitx.experiments.selection.demands import Demands
from minitx.experiments.selection.quality import Quality

USUAL = Demands(16, 32, "h100", tokens=1e7)
FIGURE = {"latency_ms": lambda row: row.figures.token_ms.value, "memory_gib": lambda row: row.figures.train_gib.value,
          "serve_gib": lambda row: row.figures.serve_gib.value, "budget_minutes": lambda row: row.minutes}


def chosen(**changes: Any) -> str:
    return str(made_up(replace(USUAL, **changes)).chosen)


def test_the_best_quality_wins_and_cost_decides_among_equals() -> None:
    assert chosen() in ("transformer small", "transformer_rope small"), "38.5; either takes as long"
    decided = made_up(USUAL)
    assert decided.answer is not None
    assert decided.answer.bleu == pytest.approx(38.5)
    order = [row.candidate.architecture for row in decided.meeting if row.bleu is not None]
    assert order.index("lstm_attention") < order.index("lstm")


@pytest.mark.parametrize(("bleus", "minutes", "order"), [
    ((30.0, 30.4, 20.0), (1, 2, 3), "abc"), ((30.0, 30.6, 20.0), (1, 2, 3), "bac"),
    ((None, 30.0, 20.0), (1, 2, 3), "bca"), ((30.0, 30.4, 30.8), (1, 2, 3), "bca")])
def test_order_by_hand(bleus: tuple[float | None, ...], minutes: tuple[float, ...], order: str) -> None:
    """Alike is what is within half a BLEU of the best that is left, so that no chain of small steps counts as alike."""
    assert MATTERS == 0.5
    figures = figures_of(Candidate("transformer", "small"), USUAL)
    rows = [Row(Candidate(name, "small"), figures, Quality(bleu, True, "", (), None, None, ""),
                60 * time * figures.tokens_per_s.value) for name, bleu, time in zip("abc", bleus, minutes, strict=True)]
    assert "".join(row.candidate.architecture for row in ranked(rows)) == order


def test_constant_memory_excludes_all_that_attends() -> None:
    decided = made_up(replace(USUAL, streaming=True))
    assert {row.candidate.architecture for row in decided.meeting} <= set(PURE)
    assert {failure.demand for row in decided.refused for failure in row.failures} == {"streaming"}
    assert {row.candidate.architecture for row in decided.refused} == set(architectures()) - set(PURE)
    assert chosen(attention=True).startswith("transformer")


def test_a_smaller_size_is_taken_where_a_larger_one_fails() -> None:
    assert chosen(tokens=3e9).endswith(" base")
    assert chosen(tokens=3e9, latency_ms=0.7).endswith(" small")
    assert chosen(tokens=3e9, latency_ms=0.45).endswith(" tiny")


def test_no_size_is_larger_than_what_so_much_text_is_recommended() -> None:
    assert sizes(USUAL) == ("small", "tiny")
    assert sizes(replace(USUAL, tokens=3e9)) == ("base", "small", "tiny")
    minutes = made_up(replace(USUAL, tokens=None, budget_minutes=0.01))
    for row in minutes.meeting:
        assert not is_too_large(row.candidate, row.tokens)


def test_a_budget_alone_says_how_much_each_reads() -> None:
    decided = made_up(replace(USUAL, tokens=None, budget_minutes=10.0))
    for row in decided.rows:
        assert row.minutes == pytest.approx(10.0)
        assert row.tokens == pytest.approx(600 * row.figures.tokens_per_s.value)


def test_a_smaller_size_is_taken_where_a_larger_one_learns_too_little_in_the_time() -> None:
    """In two minutes `small` reads 3.6 million tokens, for 13.9 BLEU, and `tiny` 14.4 million, for 38.5."""
    asked = replace(USUAL, tokens=None, budget_minutes=2.0)
    for bleu in (None, 13.0, 20.0):
        tried = attempts("transformer", replace(asked, target_bleu=bleu), KNOWN)
        found = best_of(tried)
        assert str(found.candidate) == "transformer tiny"
        assert found.bleu == pytest.approx(38.5)
        assert not found.failures
        assert tried[-2].bleu == pytest.approx(13.86)
        assert tried[-2].failures


def test_a_budget_that_is_enough_for_any_size_is_given_the_largest() -> None:
    """In ten minutes `small` reads 18 million tokens, and no curve goes beyond 10."""
    decided = made_up(replace(USUAL, tokens=None, budget_minutes=10.0))
    assert str(decided.chosen).endswith(" small")
    assert not [row for row in decided.tried if row.candidate.size == "tiny" and row.candidate.architecture ==
                "transformer"], "a smaller one cannot be better, so that none is looked at"


def test_of_a_system_without_rows_a_budget_is_given_the_largest_size() -> None:
    tried = attempts("linear_rnn", replace(USUAL, tokens=None, budget_minutes=0.5), KNOWN)
    meeting = [row for row in tried if not row.failures]
    assert [row.bleu for row in meeting] == [None]
    assert meeting[0] is best_of(tried)


def test_memory_is_saved_before_the_model_is_made_smaller() -> None:
    """60 million parameters take 0.9 GiB; 1,000 tokens one more, or half of that, or a tenth."""
    asked = replace(USUAL, tokens=3e9, longest=1000)
    chosen_at = {gib: str(best_of(attempts("transformer", replace(asked, memory_gib=gib), KNOWN)).candidate)
                 for gib in (2.0, 1.5, 1.0, 0.5)}
    assert chosen_at == {2.0: "transformer base", 1.5: "transformer base, small micro-batches",
                         1.0: "transformer base, recomputed layers", 0.5: "transformer small, recomputed layers"}
    lstm = best_of(attempts("lstm_attention", replace(asked, memory_gib=1.0), KNOWN))
    assert str(lstm.candidate) == "lstm_attention small, small micro-batches", "which has nothing to compute again"


def test_what_fails_more_than_memory_is_not_helped_by_saving_it() -> None:
    asked = replace(USUAL, tokens=3e9, longest=1000, memory_gib=1.0, latency_ms=0.1)
    assert {row.candidate.saving for row in attempts("transformer", asked, KNOWN)} == {""}


def test_what_saves_memory_is_in_the_command_and_nothing_else_differs() -> None:
    asked = replace(USUAL, tokens=3e9)
    usual, narrow, again = savings(Candidate("transformer", "base"), asked, True)
    plain, small, recomputed = (command(way, asked, 3e9, "bf16-mixed").split() for way in (usual, narrow, again))
    assert [word for word in small if word not in plain] == ["data.max_tokens=256"]
    assert [word for word in recomputed if word not in small] == ["trainer.activation_checkpointing=true"]
    long = replace(asked, longest=200_000)
    assert savings(Candidate("transformer", "base"), long, True) == (
        Candidate("transformer", "base"), Candidate("transformer", "base", "recomputed layers")), "as small as can be"
    assert savings(Candidate("lstm", "base"), long, False) == (Candidate("lstm", "base"),)


def test_what_cannot_be_trained_is_told_and_the_rest_is_decided() -> None:
    decided = made_up(replace(USUAL, longest=200_000, memory_gib=1e6))
    assert [(str(row.candidate), row.failures[0].why) for row in decided.refused] == [("transformer tiny", "too long")]
    assert decided.answer is not None


def test_nothing_meets_what_nothing_could() -> None:
    decided = made_up(replace(USUAL, latency_ms=1e-3))
    assert decided.answer is None
    assert {row.candidate.size for row in decided.rows} == {"tiny"}, "the smallest size fails last"


DEMANDS = st.builds(
    Demands, st.just(16), st.integers(16, 2000), st.just("h100"), st.integers(1, 8), st.floats(1e6, 1e10),
    st.none() | st.floats(0.1, 1e5), st.none() | st.floats(0.05, 2.0), st.none() | st.floats(0.01, 4.0),
    st.none() | st.floats(0.001, 1.0), st.booleans(), st.just(False), st.none() | st.floats(1.0, 40.0))


def meets(row: Row, demands: Demands) -> bool:
    """Hold a row against the demands, written apart from what is tested."""
    limits = [(FIGURE[name](row), getattr(demands, name)) for name in FIGURE]
    return (all(limit is None or value <= limit for value, limit in limits)
            and row.figures.train_gib.value <= (demands.memory_limit_gib or 0.0)
            and not (demands.streaming and row.figures.attends)
            and (demands.target_bleu is None or (row.bleu or 0.0) >= demands.target_bleu))


@given(DEMANDS)
def test_what_is_offered_meets_all_and_what_is_excluded_does_not(demands: Demands) -> None:
    decided = made_up(demands)
    assert {row.candidate.architecture for row in (*decided.rows, *decided.refused)} == set(architectures())
    for row in decided.rows:
        assert meets(row, demands) == (not row.failures)
    for excluded in (*decided.rows, *decided.refused):
        for failure in excluded.failures:
            without = replace(demands, **{failure.demand: None if failure.demand != "streaming" else False})
            again = best_of(attempts(excluded.candidate.architecture, without, KNOWN))
            assert failure.demand not in {other.demand for other in again.failures}, "each reason is its own demand's"
            alone = examined(excluded.candidate, demands, KNOWN)
            assert isinstance(alone, Row)
            assert not meets(alone, demands)


@given(DEMANDS, st.sampled_from(sorted(FIGURE)), st.floats(0.1, 1.0))
def test_a_tighter_demand_is_never_answered_with_what_fails_it(demands: Demands, name: str, share: float) -> None:
    decided = made_up(demands)
    if decided.answer is None:
        return
    limit = share * FIGURE[name](decided.answer)
    tighter: Decision = made_up(replace(demands, **{name: limit}))
    for row in tighter.meeting:
        assert FIGURE[name](row) <= limit
        assert meets(row, demands)
    if tighter.answer is not None and tighter.answer.bleu is not None and decided.answer.bleu is not None:
        assert tighter.answer.bleu < decided.answer.bleu + MATTERS, "less is allowed, so nothing gets better"


@given(DEMANDS)
def test_the_answer_alone_is_that_of_the_whole_decision(demands: Demands) -> None:
    assert choose(demands, KNOWN) == made_up(demands).answer
