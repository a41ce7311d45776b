"""Figures of studies: the same numbers give the same bytes, whatever a user has set; each system has its look."""

from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import pytest

from minitx.experiments.reports.plots import styles
from minitx.experiments.reports.study_plots import FIGURES, law_text

CONDITIONS = {"hardware": {"cpu": "a processor"}, "threads": 2, "precision": "32-true"}
FAMILIES, SYSTEMS = ("transformer", "lstm_attention", "lstm"), ("rnn", "lstm", "transformer")
LESSON = {"seeds": 3, "width": 64}


def family(factor: float, exponent: float, a_token: float) -> dict[str, Any]:
    fit = {"exponent": exponent, "standard_error": 0.01}
    points = [{"length": n, "seconds": factor * n**exponent, "peak_bytes": 1e4 * n**exponent, "depth": 50 + a_token * n}
              for n in (16, 32, 64, 128)]
    return {"points": points, "depth": {"constant": 50, "a_token": a_token}, "time": fit, "memory": None}


def flows(factor: float) -> dict[str, Any]:
    points = [{"distance": d, "carried": factor**d, "carried_low": 0.5 * factor**d * (d < 64),
               "carried_high": 2 * factor**d} for d in (1, 4, 16, 64)]
    return {"points": points, "exponential": {"a_step": factor}}


def shares(*values: float) -> list[dict[str, Any]]:
    return [{"distance": 2**i, "share": value, "low": 0.9 * value, "high": min(1.0, 1.1 * value)}
            for i, value in enumerate(values)]


def laws(key: str) -> dict[str, Any]:
    fit = {"factor": 9.0, "exponent": 0.1, "exponent_error": 0.01, "constant": 0.0, "constant_error": 0.0,
           "miss": 0.01}
    return {"points": [{key: n, "loss": 9.0 * n**-0.1} for n in (1_000, 10_000, 100_000)],
            "fits": {"power": fit, "power and floor": fit | {"factor": 8.0, "constant": 0.5, "constant_error": 0.1}}}


FOUND: dict[str, dict[str, Any]] = {
    "lengths": {"sizes": {"d_model": 64}, "families": {
        name: family(1e-5 * (i + 1), 1 + 0.3 * i, 4.0 * (i > 0)) for i, name in enumerate(FAMILIES)}},
    "gradients": {"sizes": {"lesson": LESSON}, "systems": {
        name: {"initial": flows(0.5 + 0.1 * i), "trained": flows(0.9)} for i, name in enumerate(SYSTEMS)}},
    "retention": {"sizes": {"lesson": LESSON, "fitted": 64, "scored": 32}, "state": 64, "chance": 1 / 16, "systems": {
        name: {"initial": shares(1.0, 0.5, 0.1), "trained": shares(1.0, 1.0, 0.9)} for name in SYSTEMS}},
    "scaling-law": {"sizes": {"updates": 300}, "tokens_per_update": 2048, "data": "synthetic",
                    "laws": {"size": laws("weights"), "text": laws("text_tokens")}},
}  # fmt: skip


def changed(name: str) -> dict[str, Any]:
    other = {"lengths": {"families": FOUND["lengths"]["families"] | {"lstm": family(1e-5, 1.9, 4.0)}},
             "gradients": {"systems": FOUND["gradients"]["systems"] | {"rnn": dict.fromkeys(
                 ("initial", "trained"), flows(0.3))}},
             "retention": {"chance": 0.5}, "scaling-law": {"laws": FOUND["scaling-law"]["laws"] | {
                 "text": laws("text_tokens") | {"points": [
                     {"text_tokens": n, "loss": 3.0} for n in (10, 100, 1_000)]}}}}
    return FOUND[name] | other[name] | {"conditions": CONDITIONS}


@pytest.mark.parametrize("name", FIGURES)
def test_the_same_numbers_give_the_same_bytes(name: str) -> None:
    found = FOUND[name] | {"conditions": CONDITIONS}
    drawn = FIGURES[name](found)
    with mpl.rc_context({"lines.linewidth": 9, "svg.hashsalt": None, "font.size": 20}):
        assert FIGURES[name](found) == drawn
        assert mpl.rcParams["lines.linewidth"] == 9
    assert FIGURES[name](changed(name)) != drawn


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_an_svg_on_white_with_each_systems_colour_and_no_date(name: str) -> None:
    drawn = FIGURES[name](FOUND[name] | {"conditions": CONDITIONS})
    assert ElementTree.fromstring(drawn).tag == "{http://www.w3.org/2000/svg}svg"
    assert b"fill: #ffffff" in drawn
    assert b"dc:date" not in drawn
    systems = FOUND[name].get("families", FOUND[name].get("systems", ["transformer"]))
    for colour, _ in styles(systems):
        assert colour.lower().encode() in drawn


def test_a_law_is_written_with_its_errors_and_a_floor_where_there_is_one() -> None:
    power, floored = FOUND["scaling-law"]["laws"]["size"]["fits"].values()
    assert law_text(power, "N") == "N^-0.10 ± 0.01\nmisses the last by +1.0 %"
    assert law_text(floored, "D") == "D^-0.10 ± 0.01 + 0.50 ± 0.10\nmisses the last by +1.0 %"
    assert law_text(floored | {"constant": -0.5}, "D") == "D^-0.10 ± 0.01 - 0.50 ± 0.10\nmisses the last by +1.0 %"
