"""How runs learned: what each panel shows, and where the mean of seeds ends."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from runs.test_overview import begin, learn

from minitx.experiments.reports import curves
from minitx.experiments.reports.curves import BLEU, LOSS, MINUTES, STEPS, columns, curves_by_system, mean_curve
from minitx.experiments.reports.plots import FAMILY_STYLES, FORMS
from minitx.runs.overview import read_run

ONE = [[10, 60.0, 3.0, 2.0], [20, 120.0, None, 4.0]]
OTHER = [[10, 120.0, 1.0, 4.0], [20, 180.0, 2.0, 8.0], [25, 210.0, 2.0, 9.0]]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were drawn, before they became bytes."""
    found: list[Figure] = []
    monkeypatch.setitem(FORMS, "svg", lambda figure: found.append(figure) or b"")
    return found


def test_axes_show_their_column_and_leave_out_what_is_not_finite() -> None:
    assert columns(ONE, MINUTES, BLEU) == ([1.0, 2.0], [2.0, 4.0])
    assert columns(ONE, STEPS, LOSS) == ([10.0], [3.0])


def test_the_mean_is_at_steps_that_all_seeds_have() -> None:
    assert mean_curve([ONE, OTHER]) == [[10, 90, 2, 3], [20, 150, None, 6]]
    assert mean_curve([ONE]) == ONE
    assert mean_curve([ONE, [[15, 60.0, 1.0, 2.0]]]) == [], "they ended at other times"
    assert mean_curve([ONE, []]) == []


def test_the_mean_ends_where_its_seeds_do_if_these_ended_together() -> None:
    ends = [[*ONE, [26, 205.0, 1.0, 5.0]], OTHER]
    assert mean_curve(ends)[-1] == [25.5, 207.5, 1.5, 7.0]
    late = [[*ONE, [40, 400.0, 1.0, 5.0]], OTHER]
    assert mean_curve(late)[-1][0] == 20, "one was stopped early: a mean of their ends would be of nothing"


def test_four_panels_with_titles_thin_seeds_and_the_highest_curve_first(drawn: list[Figure]) -> None:
    curves.learning_curves({"lstm": [ONE, OTHER], "mine": [[[10, 60.0, 0.5, 30.0], [20, 120.0, 0.4, 40.0]]]})
    (figure,) = drawn
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "BLEU by minutes of training", "BLEU by updates", "Loss by minutes of training", "Loss by updates"]
    bleu, _, loss, _ = figure.axes
    labels = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in (bleu, loss)]
    assert labels == [["mine", "lstm, mean of 2 seeds"], ["lstm, mean of 2 seeds", "mine"]]
    thin = [line for line in bleu.lines if line.get_linewidth() < 1]
    assert [len(line.get_xdata()) for line in thin] == [2, 3]
    assert {line.get_color() for line in thin} == {FAMILY_STYLES["lstm"][0]}
    assert "Thin: single seeds." in figure._supxlabel.get_text()


def test_runs_that_differ_in_the_seed_alone_are_one_system(tmp_path: Path) -> None:
    runs = []
    for name, seed, model in (("a", 1, "lstm"), ("b", 2, "lstm"), ("c", 1, "transformer")):
        run_dir = begin(tmp_path / name, seed, model)
        if name != "c":
            learn(run_dir, '{"event": "valid", "step": 10, "train_s": 9.0, "loss": null, "bleu": 1.5}')
        runs.append(read_run(run_dir))
    systems, without = curves_by_system(runs)
    assert systems == {"lstm": [[(10, 9.0, None, 1.5)]] * 2}
    assert without == runs[2:]
