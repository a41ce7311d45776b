"""Figures: the same numbers give the same bytes, whatever a user has set; without matplotlib there is one line."""

import sys
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import pytest

from minitx.experiments.reports import plots
from minitx.experiments.reports.plots import FAMILY_STYLES, cost_curves, exponents, styles
from minitx.utils.errors import UserError

NAMES = ("transformer", "lstm_attention", "mine")


def curves(x: str, y: str, across: tuple[int, ...], error: float | None) -> dict[str, Any]:
    return {name: {"x": x, "y": y, "exponent": 1.5, "standard_error": error, "last_exponent": 1.75,
                   "points": [{x: at, y: 1e-6 * (1 + number) * at ** 1.5} for at in across]}
            for number, name in enumerate(NAMES)}


FOUND = {
    "conditions": {"tokens": 4096, "threads": 2, "precision": "bf16-mixed", "hardware": {"cpu": "a processor"}},
    "by_length": curves("length", "sentence_s", (16, 32, 64), 0.125),
    "by_width": curves("d_model", "token_s", (128, 256), None),
}  # fmt: skip


def test_the_same_numbers_give_the_same_bytes() -> None:
    drawn = cost_curves(FOUND)
    with mpl.rc_context({"lines.linewidth": 9, "svg.hashsalt": None, "font.size": 20}):
        assert cost_curves(FOUND) == drawn
        assert mpl.rcParams["lines.linewidth"] == 9  # what a user has set is left as it is
    other = FOUND | {"by_width": curves("d_model", "token_s", (128, 512), None)}
    assert cost_curves(other) != drawn


def test_a_figure_is_an_svg_on_white_with_a_line_a_family_and_no_date() -> None:
    drawn = cost_curves(FOUND)
    assert ElementTree.fromstring(drawn).tag == "{http://www.w3.org/2000/svg}svg"
    assert b"fill: #ffffff" in drawn
    assert b"dc:date" not in drawn
    for colour, _ in styles(NAMES):
        assert f"stroke: {colour.lower()}".encode() in drawn


def test_exponents_are_written_with_what_they_are_worth() -> None:
    by_length, by_width = FOUND["by_length"]["lstm_attention"], FOUND["by_width"]["lstm_attention"]
    assert exponents(by_length, "L") == "L^1.50 ± 0.12 (32 → 64: L^1.75)"
    assert exponents(by_width, "D") == "D^1.50 (128 → 256: D^1.75)"


def test_a_published_family_looks_the_same_in_every_figure() -> None:
    assert styles(["mine", "lstm"])[1] == styles(["lstm"])[0] == FAMILY_STYLES["lstm"]
    assert len(set(styles(["mine", "yours", *FAMILY_STYLES]))) == 2 + len(FAMILY_STYLES)


def test_without_matplotlib_one_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"pip install -c constraints.txt -e '\.\[report\]'$"):
        plots.require_matplotlib()
