"""The figures of the study `scan` show what was stored and counted: each combination, each curve."""

import pytest
from matplotlib.figure import Figure
from scanned import LENGTHS, WAYS, scan_study

from minitx.experiments.prefix_scan import SCANS, trace
from minitx.experiments.reports import scan_plots
from minitx.experiments.reports.plots import FORMS

CONDITIONS = {"hardware": {"cpu": "a processor"}, "threads": 2, "precision": "32-true"}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """What is drawn, in place of its bytes."""
    drawn: list[Figure] = []
    monkeypatch.setitem(FORMS, "svg", lambda figure: drawn.append(figure) or b"")
    return drawn


def test_every_combination_of_a_scan_is_drawn_below_what_it_waits_for(figures: list[Figure]) -> None:
    scan_plots.depth(scan_study())
    panels = figures[0].axes
    assert len(panels) == len(SCANS)
    for axes, (name, scan) in zip(panels, SCANS.items(), strict=True):
        counted = trace(scan, scan_plots.EIGHT, int.__add__)
        assert axes.get_title(loc="left") == (
            f"{scan_plots.NAMES[name]}: {counted.depth} in turn, {counted.work} in all")
        circles = {text.get_text(): text.get_position()[1] for text in axes.texts}
        assert len(axes.texts) == len(scan_plots.EIGHT) + counted.work
        assert max(circles.values()) == counted.depth
        assert {"1", "1-2", "1-8"} <= circles.keys()
        edges = [line for line in axes.lines if len(line.get_xdata()) == 2]
        assert len(edges) == 2 * counted.work
        assert all(line.get_ydata()[0] < line.get_ydata()[1] for line in edges)


def test_each_way_is_a_curve_with_its_exponent(figures: list[Figure]) -> None:
    scan_plots.times(scan_study() | {"conditions": CONDITIONS})
    by_length, by_width = figures[0].axes
    for line, law in zip(by_length.lines, WAYS.values(), strict=True):
        assert list(line.get_xdata()) == list(LENGTHS)
        assert list(line.get_ydata()) == pytest.approx([1e3 * law(n) for n in LENGTHS])
    legend = by_length.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [
        "attention: N^2.00 ± 0.01", "scan by doubling: N^1.20 ± 0.01", "recurrence: N^1.00 ± 0.01",
        "reduction: N^1.00 ± 0.01"], "the highest at the right first"
    assert len(by_width.lines) == 5
