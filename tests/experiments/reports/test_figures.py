"""The report's figures show the ledger's numbers, say what their axes are, and are the same bytes each time."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from evaluation.test_attention import made
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from published import write_run

from minitx.evaluation.attention_maps import BOS, EOS, SCALE, AttentionMaps
from minitx.evaluation.metrics import bleu_from_sentences
from minitx.evaluation.significance import interval
from minitx.experiments.reports import figures
from minitx.experiments.reports.figures import (
    attention_map,
    bleu_over_length,
    bleu_over_time,
    buckets,
    group_systems,
    time_split,
)
from minitx.experiments.reports.plots import FAMILY_STYLES, FORMS
from minitx.experiments.reports.results import Row, make_row

SPLIT = {"startup": 8.0, "data": 1.0, "forward": 40.0, "backward": 35.0, "other": 1.5}
CURVES = {"lstm": [[100, 60.0, 3.0, 10.0], [200, 120.0, 2.0, 20.0]],
          "transformer": [[100, 66.0, 3.0, 30.0], [200, 132.0, 2.0, 50.0], [300, 200.0, 1.0, 60.0]]}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Two systems, one of them with two seeds, of which one was validated once more."""
    folder = tmp_path_factory.mktemp("runs")
    found = []
    for model, seed in (("lstm", 1), ("transformer", 1), ("transformer", 2)):
        run_dir = write_run(folder / f"{model}{seed}", f"synthetic_{model}", [f"seed={seed}"], sentences=130,
                            time_split={part: s * seed for part, s in SPLIT.items()})
        found.append(replace(make_row(run_dir), curve=CURVES[model][:4 - seed]))
    return found


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were drawn, before they became bytes."""
    found: list[Figure] = []
    monkeypatch.setitem(FORMS, "svg", lambda figure: found.append(figure) or b"")
    return found


ALL: dict[str, Callable[..., bytes]] = {
    "time": bleu_over_time, "length": partial(bleu_over_length, test_sets=["test"]), "split": time_split}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [*ALL, "attention"])
def test_the_same_numbers_give_the_same_bytes(name: str, form: str, rows: list[Row]) -> None:
    draw = partial(attention_map, made()) if name == "attention" else partial(ALL[name], rows)
    expected = draw(form=form)
    with mpl.rc_context({"lines.linewidth": 9, "svg.hashsalt": None, "font.size": 20, "savefig.dpi": 30}):
        assert draw(form=form) == expected
        if name != "attention":
            assert ALL[name](rows[::-1], form=form) == expected
    if form == "png":
        assert expected.startswith(b"\x89PNG")
        assert b"tEXt" not in expected
    else:
        assert ElementTree.fromstring(expected).tag == "{http://www.w3.org/2000/svg}svg"
        assert b"dc:date" not in expected


def labels(figure: Figure) -> tuple[str, str, list[str]]:
    axes = figure.axes[0]
    legend = axes.get_legend()
    return axes.get_xlabel(), axes.get_ylabel(), [text.get_text() for text in legend.get_texts()] if legend else []


# --- names


def test_systems_have_the_shortest_name_that_tells_them_apart(rows: list[Row]) -> None:
    one, first, second = rows
    assert {name: len(seeds) for name, seeds in group_systems(rows).items()} == {"lstm": 1, "transformer": 2}
    elsewhere = replace(one, result=replace(one.result, model="transformer", experiment="multi30k_transformer"))
    assert list(group_systems([first, second, elsewhere])) == ["multi30k_transformer", "synthetic_transformer"]
    longer = replace(second, command=f"{first.command} trainer.max_steps=9")
    assert list(group_systems([longer, first])) == ["transformer", "trainer.max_steps=9"]
    newer = replace(first, result=replace(first.result, config_sha256="0" * 64))
    assert len(group_systems([newer, first])) == 1, "one command"
    assert [row.result.seed for row in group_systems([second, first])["transformer"]] == [1, 2]


# --- against time


def test_time_is_in_minutes_and_the_mean_is_of_steps_that_all_seeds_have(rows: list[Row], drawn: list[Figure]) -> None:
    aimed = [replace(row, result=replace(row.result, target_bleu=25.0)) for row in rows]
    bleu_over_time(aimed)
    axes = drawn[0].axes[0]
    across, up, legend = labels(drawn[0])
    assert (across, up) == ("training, minutes (validation not counted)", "validation BLEU")
    assert legend == ["transformer, mean of 2 seeds", "target, BLEU 25", "lstm"], "as they end at the right"
    assert axes.get_title(loc="left") == "BLEU on the validation set while training goes on"
    lines = {line.get_label(): line for line in axes.lines}
    lstm, transformer = lines["lstm"], lines["transformer, mean of 2 seeds"]
    assert (list(lstm.get_xdata()), list(lstm.get_ydata())) == ([1, 2], [10, 20])
    assert (list(transformer.get_xdata()), list(transformer.get_ydata())) == ([1.1, 2.2], [30, 50])
    assert (lstm.get_color(), lstm.get_marker()) == FAMILY_STYLES["lstm"]
    thin = [line for line in axes.lines if line.get_linewidth() < 1]
    assert [len(line.get_xdata()) for line in thin] == [3, 2]
    assert {line.get_color() for line in thin} == {FAMILY_STYLES["transformer"][0]}


# --- against length


@given(st.lists(st.integers(1, 30), min_size=1, max_size=800))
def test_buckets_part_sentences_by_length_and_hold_enough(lengths: list[int]) -> None:
    found = buckets(lengths)
    assert sorted(n for part in found for n in part) == list(range(len(lengths)))
    assert len(found) <= figures.MAX_BUCKETS
    assert len(found) == 1 or min(map(len, found)) >= figures.MIN_SENTENCES
    spans = [sorted({lengths[n] for n in part}) for part in found]
    assert [length for span in spans for length in span] == sorted(set(lengths))


def test_bleu_over_length_is_each_bucket_s_own_with_its_interval(rows: list[Row], drawn: list[Figure]) -> None:
    bleu_over_length(rows[:2], ["test"])
    axes = drawn[0].axes[0]
    across, up, legend = labels(drawn[0])
    assert across == "tokens of the reference (13a), mean of at least 50 sentences"
    assert (up, sorted(legend)) == ("BLEU (bars: 95 % interval)", ["lstm", "transformer"])
    assert axes.get_title(loc="left") == "BLEU by length: test set test"
    counts = rows[0].sentences["test"]
    parts = buckets([count[1] for count in counts])
    assert len(parts) == 2
    chosen = [[counts[n] for n in part] for part in parts]
    assert list(axes.lines[0].get_ydata()) == pytest.approx([bleu_from_sentences(part) for part in chosen])
    bars = [[y for _, y in path.vertices] for path in axes.collections[0].get_paths()]
    assert bars == [pytest.approx(interval([part], resamples=figures.RESAMPLES)[1:]) for part in chosen]
    places = [np.mean([count[1] for count in part]) for part in chosen]
    for line in axes.lines:  # systems stand beside each other
        assert list(line.get_xdata()) == pytest.approx(places, rel=0.02)
    assert axes.get_xscale() == "linear"


def test_sets_by_length_are_shown_as_one(rows: list[Row], drawn: list[Figure]) -> None:
    row = rows[0]
    longer = [[10 * n for n in counts] for counts in row.sentences["test"]]
    bleu_over_length([replace(row, sentences={"length_10": row.sentences["test"], "length_100": longer})],
                     ["length_10", "length_100"])
    axes = drawn[0].axes[0]
    assert axes.get_xscale() == "log"
    assert max(axes.lines[0].get_xdata()) > 60 > 10 > min(axes.lines[0].get_xdata())
    assert axes.get_title(loc="left") == "BLEU by length: sentences of 10 and 100 words"


# --- parts of the time


def test_bars_are_the_parts_in_turn_and_as_long_as_the_run(rows: list[Row], drawn: list[Figure]) -> None:
    time_split(rows)
    axes = drawn[0].axes[0]
    assert labels(drawn[0]) == ("seconds of a run, from start to result", "", list(SPLIT))
    assert [text.get_text() for text in axes.get_yticklabels()] == ["lstm", "transformer"]
    ends = dict.fromkeys(range(2), 0.0)
    for part, bars in zip(SPLIT.values(), axes.containers, strict=True):
        for number, bar in enumerate(bars):
            assert bar.get_x() == pytest.approx(ends[number])
            assert bar.get_width() == pytest.approx(part * (1, 1.5)[number])  # of two seeds the mean
            ends[number] += bar.get_width()
    assert ends == pytest.approx({0: sum(SPLIT.values()), 1: 1.5 * sum(SPLIT.values())})
    assert len({bars[0].get_facecolor() for bars in axes.containers}) == len(SPLIT)


def test_there_is_a_colour_for_each_part_of_today() -> None:
    assert len(set(figures.COLOURS)) == 8


# --- attention


def test_a_map_holds_each_head_s_weights_and_names_their_tokens(drawn: list[Figure]) -> None:
    maps = made(layers=2, heads=3)
    attention_map(maps)
    *every, bar = drawn[0].axes
    grids = [axes for axes in every if axes.images]
    assert [axes.get_xlabel() for axes in grids] == [
        "source token looked at", "source token looked at", "target token looked at"]
    assert [axes.get_ylabel() for axes in grids] == ["target token written", "source token", "target token written"]
    assert [axes.get_title(loc="left").partition(":")[0] for axes in grids] == ["cross", "encoder", "decoder"]
    assert bar.get_ylabel() == "attention weight"
    cross = grids[0].images[0]
    shown = np.ma.filled(cross.get_array(), np.nan)
    assert shown.shape == (2 * 6 - 1, 3 * 7 - 1)
    assert (cross.get_clim(), cross.get_cmap().name) == ((0, 1), "cividis")
    for layer in range(2):
        for head in range(3):
            block = shown[6 * layer:6 * layer + 5, 7 * head:7 * head + 6]
            assert (block == maps.weights["cross"][layer, head] / SCALE).all()
    assert np.isnan(shown[5]).all()
    assert np.isnan(shown[:, 6]).all()
    across, down = ([text.get_text() for text in texts()] for texts in (
        grids[2].get_xticklabels, grids[2].get_yticklabels))
    assert across == [BOS, "Der", "Hund", "schläft", "."] * 3
    assert down == ["Der", "Hund", "schläft", ".", EOS] * 2
    heads = [text.get_text() for text in grids[0].child_axes[0].get_xticklabels()]
    layers = [text.get_text() for text in grids[0].child_axes[1].get_yticklabels()]
    assert (heads, layers) == (["head 1", "head 2", "head 3"], ["layer 1", "layer 2"])


def test_kinds_can_be_chosen_and_no_token_is_taken_for_a_formula() -> None:
    maps = made(target=["$", "_{", "$", "<b>", EOS])
    assert attention_map(maps, ["cross"]) != attention_map(maps, ["encoder"])


@pytest.mark.parametrize("size", [1, 40])
def test_maps_of_any_size_are_drawn(size: int) -> None:
    alike = np.full((1, 1, size, size), SCALE // size)
    maps: AttentionMaps = made(source=["a"] * size, target=["b"] * size, weights={"cross": alike})
    assert attention_map(maps, form="png").startswith(b"\x89PNG")
