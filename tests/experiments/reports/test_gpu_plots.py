"""Figures of predictions: each range is drawn as it was stored, and what no published training tests is told apart."""

from typing import Any

import pytest
from matplotlib.figure import Figure
from predicted import gpu_study

from minitx.experiments.reports import gpu_plots
from minitx.experiments.reports.plots import FORMS


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were drawn, before they became bytes."""
    found: list[Figure] = []
    monkeypatch.setitem(FORMS, "svg", lambda figure: found.append(figure) or b"")
    return found


def lines(axes: Any, style: str) -> dict[str, list[tuple[float, float]]]:
    """Return the points of each line of this style, by its colour."""
    return {line.get_color(): list(zip(map(float, line.get_xdata()), map(float, line.get_ydata()), strict=True))
            for line in axes.lines if line.get_linestyle() == style}


def test_a_bar_reaches_from_the_least_to_the_most_of_busy(drawn: list[Figure]) -> None:
    gpu_plots.use(found := gpu_study())
    axes = drawn[0].axes[0]
    bars = [[tuple(map(float, end)) for end in bar.get_segments()[0]] for bar in axes.collections]
    expected = [row["busy_pct"] for row in found["by_width"] if row["d_model"] == 256]
    assert [[bottom[1], top[1]] for bottom, top in bars] == expected
    places = [bottom[0] for bottom, _ in bars]
    assert places == sorted(set(places)), "side by side"
    assert all(256 / 1.2 < place < 256 * 1.2 for place in places)


def test_a_transformer_without_positions_is_not_drawn_beside_the_other(drawn: list[Figure]) -> None:
    found = gpu_study()
    found["by_width"] += [row | {"system": "transformer_nope"} for row in found["by_width"]
                          if row["system"] == "transformer"]
    gpu_plots.use(found)
    told = [text.get_text() for text in drawn[0].axes[0].get_legend().get_texts()]
    assert sorted(told) == ["LSTM", "LSTM + attention", "LSTM, cell by cell", "Transformer"]


def test_the_share_of_the_peak_has_a_band_from_slow_to_fast_hosts(drawn: list[Figure]) -> None:
    gpu_plots.use(found := gpu_study())
    axes = drawn[0].axes[len(gpu_plots.SHAPES)]
    ends = [(corners[:, 1].min(), corners[:, 1].max()) for band in axes.collections
            for corners in [band.get_paths()[0].vertices]]
    widest = [[row["mfu_pct"] for row in found["by_width"] if row["system"] == system]
              for system in ("lstm_cell_loop", "lstm", "lstm_attention", "transformer")]
    assert ends == [(pytest.approx(min(mfu) / 2), pytest.approx(2 * max(mfu))) for mfu in widest]


def test_a_smoke_study_without_widths_is_drawn(drawn: list[Figure]) -> None:
    gpu_plots.use(gpu_study() | {"by_width": [], "by_length": []})
    assert len(drawn[0].axes) == 4


def test_beyond_what_was_tested_lines_are_dashed(drawn: list[Figure]) -> None:
    gpu_plots.quality(gpu_study())
    shared, growing = drawn[0].axes[:2]
    for axes, ends in ((shared, 16), (growing, 32)):
        for points in lines(axes, "-").values():
            assert [x for x, _ in points] == [1, 8, 16]
        for points in lines(axes, "--").values():
            assert [x for x, _ in points] == ([16, 32] if ends == 32 else [16]), "it goes on from the last tested"


def test_who_does_not_get_there_has_no_line(drawn: list[Figure]) -> None:
    gpu_plots.quality(gpu_study())
    told = [{text.get_text() for text in axes.get_legend().get_texts()} for axes in drawn[0].axes]
    assert told[0] == told[1] == {"LSTM", "LSTM + attention", "LSTM, cell by cell", "Transformer"}
    assert told[2] == told[3] == {"LSTM + attention", "Transformer"}
    points = lines(drawn[0].axes[2], "-")["#0072B2"]
    assert points[0] == (1, pytest.approx(1000 * 5.0 / 1e3)), "updates times milliseconds, in seconds"


def test_predicted_stands_over_published_and_half_precision_is_filled(drawn: list[Figure]) -> None:
    gpu_plots.speeds(found := gpu_study())
    for axes, tested in zip(drawn[0].axes, found["tests"].values(), strict=True):
        half, full = (sorted((float(x), float(y)) for line in axes.lines if line.get_linestyle() == "None"
                             and (line.get_markerfacecolor() == "white") == hollow
                             for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True))
                      for hollow in (False, True))
        for points, is_half in ((half, True), (full, False)):
            assert points == sorted((row["published"], row["predicted"]) for row in tested["rows"]
                                    if (row["precision"] == "half") == is_half)
        assert axes.get_xlim() == axes.get_ylim(), "so that the diagonal is where both are the same"
    titles = [axes.get_legend().get_title().get_text() for axes in drawn[0].axes]
    assert titles == ["Trainings on A100, with constants of a V100", "Trainings on V100, with constants of an A100"]
