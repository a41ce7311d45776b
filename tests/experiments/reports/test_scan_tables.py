"""The tables of docs/scan.md show what was stored, cell by cell, and say what was not measured."""

from typing import Any

import pytest
from scanned import scan_study

from minitx.experiments.reports import scan_tables
from minitx.experiments.reports.scan_tables import BLOCKS, FORMULAS, render

CONDITIONS = {"hardware": {"cpu": "a processor"}, "threads": 2, "precision": "32-true", "seed": 1, "took_s": 61.0,
              "versions": {"torch": "2.13.0"}, "other_cpu_pct": 0.5, "git_dirty": False}
ABOUT = {"size": "full", "conditions": CONDITIONS, "claims": []}
PREDICTED = {"claim": "seconds", "expected": "1 to 2", "because": "two calls", "measured": "3", "why": "2.9 to 3.1",
             "holds": False}
SCAN: dict[str, Any] = scan_study() | ABOUT | {"study": "scan", "predictions": [PREDICTED]}
FIT = {"exponent": 1.5, "standard_error": 0.02}
LENGTHS: dict[str, Any] = ABOUT | {"study": "lengths", "families": {
    "lstm": {"depth": {"constant": 100, "a_token": 64}, "time": FIT, "memory": None},
    "linear_rnn": {"depth": {"constant": 100, "a_token": 0, "a_doubling": 12}, "time": FIT, "memory": FIT}}}
DECODING: dict[str, Any] = ABOUT | {"study": "decoding", "families": {
    "lstm_attention": {"a_token": 0.0}, "linear_rnn": {"a_token": 0.0}, "transformer": {"a_token": 6_144.0}}}
STUDIES = {"scan": SCAN, "lengths": LENGTHS}


def rows(name: str, **studies: Any) -> dict[str, list[str]]:
    """Return a table's cells by their first."""
    lines = [line for line in render(name, STUDIES | studies).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first: others for first, *others in cells}


@pytest.mark.parametrize("name", BLOCKS)
def test_below_each_table_stand_conditions_and_command_and_without_the_study_how_to_measure(name: str) -> None:
    (needed,) = BLOCKS[name][0]
    assert render(name, {}) == (f"Not measured yet: `minitx study {needed} -o results/studies/{needed}.json`, and then "
                                "`minitx report`, put it here.")
    if name != "scan_counts":  # which any machine counts alike
        text = render(name, STUDIES)
        assert "Size full, seed 1: a processor, 2 threads" in text
        assert text.endswith(f"```\nminitx study {needed} --size full -o results/studies/{needed}.json\n```")


def test_counts_are_shown() -> None:
    table = rows("scan_counts")
    assert table["combinations: in turn / in all"] == ["1,024 positions"]
    assert table["scan by doubling (Hillis and Steele)"] == ["10 / 9,217"]
    assert table["reduction by a tree"] == ["10 / 1,023"]
    assert "doubling gives the same numbers as" in render("scan_counts", STUDIES)
    other = SCAN | {"numbers": SCAN["numbers"] | {"exact": False}}
    assert "doubling gives other numbers than" in render("scan_counts", STUDIES | {"scan": other})


def test_steps_are_in_microseconds_and_what_has_no_width_has_a_dash() -> None:
    table = rows("scan_steps")
    assert table["Python, one number"] == ["0.04", "-", "-"]
    assert table["Python, a list"] == ["0.04", "2.56", "10.24"]
    assert table["torch"] == ["4.00", "4.00", "4.00"]


def test_times_are_in_milliseconds_and_end_where_a_way_stopped() -> None:
    short = SCAN["lengths"] | {"attention": {"points": SCAN["lengths"]["attention"]["points"][:1], "time": None}}
    table = rows("scan_times", scan=SCAN | {"lengths": short})
    assert table["ms, by positions"] == ["64", "256", "1,024", "4,096", "16,384", "65,536", "grows as"]
    assert table["recurrence"] == ["0.128", "0.512", "2.05", "8.19", "32.8", "131", "N^1.00 ± 0.01"]
    assert table["attention"] == ["0.0041", "-", "-", "-", "-", "-", "-"]
    assert "plain Python: recurrence 40.0 µs, sum() 4.0 µs, a sum as a loop 39.0 µs." in render("scan_times", STUDIES)


def test_a_prediction_stands_beside_its_reason_and_its_outcome() -> None:
    assert rows("scan_predictions")["seconds"] == ["1 to 2", "two calls", "3 (2.9 to 3.1)", "does not hold"]


def test_formulas_stand_beside_what_was_measured_of_each_family() -> None:
    table = rows("scan_costs")
    assert table["LSTM"][-4:] == ["64 a token", "L^1.50 ± 0.02", "-", "not yet"]
    assert table["linear RNN, scanned"][-4:-1] == ["12 a doubling", "L^1.50 ± 0.02", "L^1.50 ± 0.02"]
    assert table["Transformer"][-4:] == ["not yet"] * 4
    table = rows("scan_costs", decoding=DECODING)
    assert [table[name][-1] for name in ("LSTM", "linear RNN, scanned", "Transformer")] == ["0", "0", "6,144"]
    assert len(table) == 2 + len(FORMULAS)
    assert all(len(cells) == len(scan_tables.HEAD) - 1 for cells in table.values())
