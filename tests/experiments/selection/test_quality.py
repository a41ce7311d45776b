"""Quality follows from rows: read off a curve, compared through another system, or not known."""

from pathlib import Path

import pytest
from selected import TEXTS

from minitx.experiments.reports.results import read_rows
from minitx.experiments.selection.quality import COMPARATOR, Curves, expected, gather
from minitx.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(("tokens", "bleu"), [
    (2.5e6, 19.25 / 2), (5e6, 19.25), (7.5e6, 28.875), (1e7, 38.5), (1e12, 38.5)])
def test_a_measured_system_is_read_off_its_curve(tokens: float, bleu: float) -> None:
    found = expected("transformer", tokens, 16, TEXTS)
    assert found.bleu == pytest.approx(bleu)
    assert (found.measured, found.text, found.tokens) == (True, "captions", 1e7)


def test_seeds_are_averaged_and_the_shortest_is_how_far_was_measured() -> None:
    curves = Curves([[(10.0, 10.0)], [(20.0, 30.0)]], 1, ["a", "b"])
    assert curves.at(10.0) == pytest.approx((10 + 15) / 2)
    assert curves.measured_tokens == 10.0


def test_the_text_is_the_one_whose_sentences_are_nearer_in_length() -> None:
    assert [expected("transformer", 1e7, length, TEXTS).text for length in (4, 24, 25, 1000)] == [
        "captions", "captions", "verses", "verses"]


def test_a_loss_elsewhere_is_carried_over_and_a_gain_is_not() -> None:
    lost = expected("lstm", 1e7, 40, TEXTS)
    assert lost.bleu == pytest.approx(25 * 24 / 38.5)
    assert not lost.measured
    assert set(lost.rows) == {"verses.transformer", "captions.lstm"}
    gained = expected("transformer_rope", 1e7, 16, TEXTS)
    assert gained.bleu == pytest.approx(38.5)
    assert not gained.measured


def test_what_no_row_has_is_not_known() -> None:
    found = expected("linear_rnn", 1e7, 16, TEXTS)
    assert (found.bleu, found.measured, found.rows) == (None, False, ())


def test_the_ledger_has_both_texts() -> None:
    texts = gather(read_rows(ROOT / "results"))
    assert texts["captions"].length < texts["verses"].length
    assert len(texts["captions"].systems["lstm_attention"].rows) == 3
    captions = {name: curves.at(1e12) for name, curves in texts["captions"].systems.items()}
    assert captions["lstm"] < captions["transformer_nope"] < captions["lstm_attention"]


def test_a_ledger_without_them_is_refused() -> None:
    rows = [row for row in read_rows(ROOT / "results") if row.result.model != COMPARATOR]
    with pytest.raises(UserError, match="experiment=headline_small: the ledger has no row of it"):
        gather(rows)
