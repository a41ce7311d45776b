"""A decision in words: the reason that is told is the one by which rows were ordered."""

from dataclasses import replace

import pytest
from selected import figures_of

from minitx.experiments.selection.candidates import Candidate
from minitx.experiments.selection.decision import Decision, Failure, Refused, Row, ranked
from minitx.experiments.selection.demands import Demands
from minitx.experiments.selection.quality import Quality
from minitx.experiments.selection.text import trade_off, why

USUAL = Demands(16, 32, "h100", tokens=1e7)


def rows(bleus: tuple[float | None, ...], hours: tuple[float, ...]) -> list[Row]:
    figures = figures_of(Candidate("transformer", "small"), USUAL)
    return [Row(Candidate(name, "small"), figures, Quality(bleu, True, "", (), None, None, ""),
                3600 * time * figures.tokens_per_s.value)
            for name, bleu, time in zip(("lstm", "gnmt", "transformer"), bleus, hours, strict=True)]


@pytest.mark.parametrize(("bleus", "hours", "said"), [
    ((31.0, 30.0, 20.0), (9, 1, 1), "31.0 BLEU against 30.0"),
    ((30.2, 30.4, 20.0), (1, 2, 1), "30.2 BLEU against 30.4, less than 0.5 apart, and 1h00m of training against 2h00m"),
    ((30.4, 29.9, 30.8), (2, 1, 3), "30.4 BLEU against 30.8, less than 0.5 apart, and 2h00m of training against 3h00m"),
    ((None, 30.0, None), (1, 2, 3), "30.0 BLEU, and that of the other was not measured"),
    ((None, None, None), (1, 2, 3), "the quality of neither was measured, and it trains sooner")])
def test_the_reason_is_the_one_of_the_order(bleus: tuple[float | None, ...], hours: tuple[float, ...],
                                            said: str) -> None:
    decision = Decision(USUAL, ranked(rows(bleus, hours)))
    assert [line for line in why(decision) if line.startswith("  before")][0].endswith(f"small: {said}")


@pytest.mark.parametrize(("others", "said"), [
    (("transformer",), "widen; what attends meets the demands, too"),
    ((), "widen; it is answered only because the demands exclude all that attends")])
def test_a_price_is_not_said_to_be_forced_where_it_was_not(others: tuple[str, ...], said: str) -> None:
    """A budget may end what attends before it is as good."""
    pure, _, attends = rows((30.0, None, 29.5), (1, 1, 2))
    pure = replace(pure, figures=replace(pure.figures, attends=False), tokens=2e9)
    left = [attends] if others else []
    refused = [] if others else [Refused(attends.candidate, [Failure("attention", "")], attends.quality)]
    told = trade_off(Decision(USUAL, [pure, *left], refused))
    assert told is not None
    assert said in told
