"""README's picture and table, and the story: each number is the ledger's or a study's, and none is told without it."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from experiments.reports.test_findings import found
from matplotlib.figure import Figure
from published import write_run

from minitx.evaluation.significance import compare, interval
from minitx.experiments.fits import wilson
from minitx.experiments.reports import front, story
from minitx.experiments.reports.evidence import BY_SYSTEM, NAMES, Evidence, gather
from minitx.experiments.reports.markdown import make_blocks
from minitx.experiments.reports.page import pictures
from minitx.experiments.reports.plots import FORMS
from minitx.experiments.reports.results import Row, make_row
from minitx.experiments.reports.tables import RESAMPLES, TABLES

SETS = ("test_2016_flickr", "test", "minimal_pairs", "test_shuffled", "length_50")
EXPERIMENTS = {"headline": "headline_small", "embedded": "synthetic_{}", "positions_short": "positions_short",
               "positions_all": "positions_all"}
ROLES = {"lstm": 2.5, "lstm_attention": 100.0, "transformer_nope": 48.5, "transformer": 99.5}


def family(a_token: float, exponent: float) -> dict[str, Any]:
    fit = {"exponent": exponent, "standard_error": 0.01, "interval": [exponent - 0.1, exponent + 0.1]}
    points = [{"length": n, "seconds": n**exponent, "fastest_s": 0.9 * n**exponent, "slowest_s": 1.2 * n**exponent,
               "peak_bytes": n, "depth": 90 + a_token * n} for n in (16, 512, 2048)]
    return {"points": points, "depth": {"constant": 90.0, "a_token": a_token}, "time": fit, "memory": None}


LENGTHS = found("lengths", True) | {"sizes": {"d_model": 128}, "families": {
    "transformer": family(0, 1.75), "lstm_attention": family(64, 1.25), "lstm": family(64, 1.0)}}
STUDIES = {"lengths": LENGTHS}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """One row for each system that is told of; every system has translations of its own."""
    run = make_row(write_run(tmp_path_factory.mktemp("runs") / "run", "headline_small", ["model=lstm"],
                             target_bleu=30.0, time_to_target_s=100.0, train_s=600.0))
    (score,), (counts,) = run.result.test.values(), run.sentences.values()
    rows = []
    for table, models in BY_SYSTEM.items():
        for n, model in enumerate(models):
            experiment = EXPERIMENTS[table].format(model)
            worse = [[hypothesis, reference, *(max(0, m - n) for m in matched)]
                     for hypothesis, reference, *matched in counts]
            scores = {name: {**score, "dictionary_bleu": 16.0, "role_accuracy_pct": ROLES[model],
                             "roles_swapped_pct": 47.5, "bleu": 90.0 - n} for name in SETS}
            result = replace(run.result, experiment=experiment, model=model, test=scores)  # type: ignore[arg-type]
            rows.append(replace(run, command=f"python train.py experiment={experiment} model={model}", result=result,
                                sentences=dict.fromkeys(SETS, worse)))
    return rows


@pytest.fixture
def evidence(rows: list[Row]) -> Evidence:
    known = gather(rows, STUDIES)
    assert known is not None
    return known


def test_all_that_is_told_of_must_be_there(rows: list[Row]) -> None:
    for n in range(len(rows)):
        assert gather(rows[:n] + rows[n + 1:], STUDIES) is None
    assert gather(rows, {}) is None
    blocks = make_blocks([], {})
    for name in ("front", *(f"story_{step}" for step in story.STEPS)):
        assert blocks[name]().startswith("Not measured yet: ")
    assert {"front", "front-narrow"}.isdisjoint(picture.name for picture in pictures(rows, {}, {}))
    named = [picture.name for picture in pictures(rows, {}, STUDIES)]
    assert named[:2] == ["front", "front-narrow"]


def test_any_order_of_rows_tells_the_same_and_other_recipes_are_left_out(rows: list[Row]) -> None:
    assert gather(rows[::-1], STUDIES) == gather(rows, STUDIES)
    other = replace(rows[0], command=f"{rows[0].command} trainer.max_minutes=1")
    assert gather([other, *rows], STUDIES) == gather(rows, STUDIES)


def test_the_table_has_a_line_a_system_with_the_tables_own_cells(evidence: Evidence) -> None:
    lines = front.table(evidence).splitlines()
    assert lines[0] == f"| {' | '.join(front.HEAD)} |"
    assert [line.split(" | ")[0][2:] for line in lines[2:6]] == list(NAMES.values())
    assert lines[2] == "| LSTM | 90.0 | 90.0 | 2.5 % | 90 + 64 L |"
    assert lines[4].endswith("| 48.5 % | - |"), "its chain was not counted"
    assert lines[5].endswith("| 99.5 % | 90 |")
    captions, embedded, operators = lines[-3:]
    assert "10 minutes of training each, mean ± deviation of one seed (A Processor, 2 threads, 32-true)" in captions
    assert embedded == "- Embedded text: 800 updates, one seed (A Processor, 2 threads, 32-true)."
    assert operators.endswith("counted at width 128.")


@pytest.mark.parametrize("draw", [front.draw, front.draw_narrow])
def test_the_picture_shows_these_numbers(draw: Callable[[Evidence], bytes], evidence: Evidence,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setitem(FORMS, "svg", lambda figure: drawn.append(figure) or b"")
    draw(evidence)
    bleu, roles, chains = drawn[0].axes
    expected = [interval([evidence.rows["headline"][model][0].sentences["test_2016_flickr"]], resamples=RESAMPLES)
                for model in NAMES]
    assert [bar.get_width() for bar in bleu.patches] == pytest.approx([point for point, *_ in expected])
    assert [list(line.get_xdata()) for line in bleu.lines] == [pytest.approx(ends) for _, *ends in expected]
    assert [bar.get_width() for bar in roles.patches] == list(ROLES.values())
    assert [text.get_text() for text in roles.texts] == [
        "2.5 %", "100.0 %", "48.5 %", "99.5 %", "at most, if blind to order"]
    assert {line.get_label(): list(line.get_ydata()) for line in chains.lines}["LSTM: 90 + 64 L"] == [
        90 + 64 * n for n in (16, 512, 2048)]
    assert all(axes.get_title(loc="left") and axes.get_xlabel() for axes in (bleu, roles, chains))


def test_the_same_numbers_give_the_same_picture(evidence: Evidence) -> None:
    for draw in (front.draw, front.draw_narrow):
        assert draw(evidence, "png") == draw(evidence, "png")
    assert "LSTM 2.5 %" in front.describe(evidence)


def test_each_step_tells_its_numbers_and_how_to_repeat_them(evidence: Evidence) -> None:
    told = {step: story.render(step, evidence) for step in story.STEPS}
    gain = compare(*([evidence.rows["headline"][model][0].sentences["test_2016_flickr"]]
                     for model in ("lstm", "lstm_attention")), resamples=RESAMPLES)
    low, high = gain.interval
    assert (f"**{gain.difference:+.1f} BLEU** (95 % interval {low:+.1f} to {high:+.1f}, one seed each)"
            in told["attention"])
    low, high = (100 * end for end in wilson(round(0.485 * 40), 40))
    assert f"48.5 % ({low:.1f} to {high:.1f}) without" in told["order"]
    assert f"{90 + 64 * 1024:,} operators of the LSTM" in told["recurrence"]
    ratio = 512**1.0 / 512**1.75
    assert f"at 512 tokens the Transformer is {ratio:.2f} times as fast" in told["recurrence"]
    assert "L^1.75 (1.65 to 1.85)" in told["cost"]
    rivals = evidence.difference("headline", "lstm_attention", "transformer", "test_2016_flickr")
    assert f"Verdict: {rivals.verdict}. " in told["open"]
    for step, text in told.items():
        assert "\n```\n" in text, step
        assert re.search(r"\n```\n(minitx suite headline --size small|minitx study lengths|python train)", text), step
        assert "A Processor, 2 threads" in text or "a processor, 2 threads" in text, step


def test_what_is_told_is_in_a_table_too() -> None:
    assert BY_SYSTEM.keys() <= TABLES.keys()
