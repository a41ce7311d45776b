"""Figures of studies: the same numbers give the same bytes, whatever a user has set; each system has its look."""

import json
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure
from predicted import gpu_study
from scanned import scan_study
from toys import ROOT

from minitx.experiments.reports.plots import FORMS, styles
from minitx.experiments.reports.study_plots import FIGURES, FURTHER, SCALES

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
    return {"points": [{key: n, "loss": 9.0 * n**-0.1 + 0.1 * (n == 10_000)} for n in (100, 1_000, 10_000, 100_000)]}


def way(exponent: float) -> dict[str, Any]:
    grown = family(1e-5, exponent, 0.0)
    return {"points": grown["points"], "time": grown["time"] | {"from": 16, "to": 128}, "memory": None}


def layered(factor: float) -> dict[str, Any]:
    return {"points": [{"layers": n, "peak_bytes": factor * n} for n in (1, 2, 4)], "a_layer": factor,
            "held_a_layer": factor / 2}


def decoder(a_token: float) -> dict[str, Any]:
    points = [{"length": n, "seconds": 1e-3 * (1 + a_token * n), "state_bytes": 64 + a_token * n}
              for n in (64, 128, 256)]
    return {"points": points, "a_token": a_token, "source_bytes": 2_048}


WAYS = {"transformer, stored": 2.0, "transformer": 1.0, "lstm": 0.9}
FOUND: dict[str, dict[str, Any]] = {
    "memory": {"sizes": {"d_model": 64, "layers_length": 128, "layers": [1, 2, 4]}, "num_layers": 2,
               "by_length": {name: way(exponent) for name, exponent in WAYS.items()},
               "by_layers": {name: layered(1e6 * exponent) for name, exponent in WAYS.items()},
               "shape": {"sentences": 32, "length": 2_048, "layers": 4, "heads": 16},
               "at_shape": {"transformer, stored": 136_500_000_000, "transformer": 33_000_000_000}},
    "decoding": {"sizes": {"d_model": 64, "source": 16},
                 "families": {"transformer": decoder(512.0), "lstm_attention": decoder(0.0)}},
    "lengths": {"sizes": {"d_model": 64}, "families": {
        name: family(1e-5 * (i + 1), 1 + 0.3 * i, 4.0 * (i > 0)) for i, name in enumerate(FAMILIES)}},
    "gradients": {"sizes": {"lesson": LESSON}, "systems": {
        name: {"initial": flows(0.5 + 0.1 * i), "trained": flows(0.9)} for i, name in enumerate(SYSTEMS)}},
    "retention": {"sizes": {"lesson": LESSON, "fitted": 64, "scored": 32}, "state": 64, "chance": 1 / 16, "systems": {
        name: {"initial": shares(1.0, 0.5, 0.1), "trained": shares(1.0, 1.0, 0.9)} for name in SYSTEMS}},
    "scaling-law": {"sizes": {"updates": 300}, "tokens_per_update": 2048, "data": "synthetic",
                    "laws": {"size": laws("weights"), "text": laws("text_tokens")}},
    "scan": scan_study(),
    "gpu": gpu_study(),
}  # fmt: skip


def changed(name: str) -> dict[str, Any]:
    other = {"memory": {"by_layers": FOUND["memory"]["by_layers"] | {"lstm": layered(7.0)}},
             "decoding": {"families": {"transformer": decoder(300.0)}},
             "lengths": {"families": FOUND["lengths"]["families"] | {"lstm": family(1e-5, 1.9, 4.0)}},
             "gradients": {"systems": FOUND["gradients"]["systems"] | {"rnn": dict.fromkeys(
                 ("initial", "trained"), flows(0.3))}},
             "retention": {"chance": 0.5}, "scaling-law": {"laws": FOUND["scaling-law"]["laws"] | {
                 "text": laws("text_tokens") | {"points": [
                     {"text_tokens": n, "loss": 3.0} for n in (10, 100, 1_000, 10_000)]}}},
             "scan": {"lengths": scan_study(2.0)["lengths"]},
             "gpu": {"by_width": [row | {"busy_pct": [1.0, 2.0]} for row in FOUND["gpu"]["by_width"]]}}
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
    systems = WAYS if name == "memory" else FOUND[name].get("families", FOUND[name].get("systems", ["transformer"]))
    for colour, _ in styles(systems):
        assert colour.lower().encode() in drawn


@pytest.mark.parametrize("name", FURTHER)
def test_further_figures_are_drawn_alike(name: str) -> None:
    for draw in FURTHER[name].values():
        drawn = draw(FOUND[name])
        assert draw(FOUND[name]) == drawn
        assert ElementTree.fromstring(drawn).tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize("name", ["size", "text"])
def test_laws_are_drawn_as_they_are_judged_without_the_largest(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a curve ends it misses the largest by what the study found, and what the claims are about."""
    found = json.loads((ROOT / "results/studies/scaling-law.json").read_text())
    figures: list[Figure] = []
    monkeypatch.setitem(FORMS, "svg", lambda figure: figures.append(figure) or b"")
    FIGURES["scaling-law"](found)
    axes = figures[0].axes[list(SCALES).index(name)]
    fitted, largest, *laws = ([float(y) for y in line.get_ydata()] for line in axes.lines)
    losses = [point["loss"] for point in found["laws"][name]["points"]]
    assert [*fitted, *largest] == losses
    assert len(largest) == 1
    fits = found["laws"][name]["fits"].values()
    assert [curve[-1] / losses[-1] - 1 for curve in laws] == pytest.approx([fit["miss"] for fit in fits])
    floored = "a power and a floor" + (" (it finds none)" if name == "size" else "")  # its curve bends downwards
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {
        "measured, fitted to", f"measured, to be predicted: {losses[-1]:.2f}",
        *(f"{form}: {curve[-1]:.2f}, {100 * fit['miss']:+.1f} %" for form, curve, fit in zip(
            ("a power", floored), laws, fits, strict=True))}
