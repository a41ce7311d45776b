"""The table of runs says in what they differ, and no more; they are chosen and sorted by any of it."""

from pathlib import Path
from typing import Any

import pytest

from minitx.runs.listing import about, chosen, differences, ordered, system_names, table
from minitx.runs.overview import RunOverview
from minitx.utils.errors import UserError


def run(name: str = "run", **changes: Any) -> RunOverview:
    """A run of the defaults; changes: of its settings (`__` for a dot), or of what is known of it."""
    known = {"status": "finished", "steps": 800, "train_s": 90.0, "valid_bleu": 20.0, "test": {"test": 19.0}}
    settings = {"experiment": None, "data": "synthetic", "model": "transformer", "model.size": "tiny",
                "model.d_model": 128, "optim.lr": 0.003, "seed": 1, "run_dir": name, "data.recommends.lr": 0.003}
    known |= {key: changes.pop(key) for key in list(changes) if key in known}
    return RunOverview(Path("runs", name), settings | {key.replace("__", "."): value for key, value in changes.items()},
                       **known)


def test_what_follows_from_a_choice_is_not_told() -> None:
    runs = [run("a"), run("b", seed=2), run("c", model="lstm", model__d_hidden=160, model__d_model=96),
            run("d", data="multi30k", optim__lr=0.001)]
    assert differences(runs) == [
        {"data": "synthetic", "model": "transformer"}, {"data": "synthetic", "model": "transformer"},
        {"data": "synthetic", "model": "lstm"}, {"data": "multi30k", "model": "transformer"}]
    assert differences([run(model__size="small", model__d_model=256), run()]) == [
        {"model.size": "small"}, {"model.size": "tiny"}], "widths follow from a size"


def test_what_was_chosen_is_told() -> None:
    assert differences([run(), run(optim__lr=0.001), run(seed=2)]) == [
        {"optim.lr": 0.003}, {"optim.lr": 0.001}, {"optim.lr": 0.003}]
    assert differences([run(), run(model__d_model=64)]) == [{"model.d_model": 128}, {"model.d_model": 64}]
    assert differences([run(), run(trainer__max_steps=7)]) == [
        {"trainer.max_steps": None}, {"trainer.max_steps": 7}], "another version may lack a key"
    assert differences([run(), run(seed=2)]) == [{}, {}]


def test_systems_have_the_shortest_name_that_tells_them_apart() -> None:
    assert system_names([run(), run(seed=2), run(model="lstm")]) == ["transformer", "transformer", "lstm"]
    assert system_names([run(experiment="a_lstm", model="lstm"), run(experiment="a_transformer")]) == [
        "lstm", "transformer"]
    assert system_names([run(), run(optim__lr=0.001)]) == ["optim.lr=0.003", "optim.lr=0.001"]
    assert system_names([run(seed=1), run(seed=2)]) == ["transformer", "transformer"]


def test_the_table_has_a_line_a_run_and_no_column_that_says_nothing() -> None:
    lines = table([run("a", optim__lr=0.001), run("b", seed=2, test={}, status="running", steps=None, train_s=None)])
    assert lines[0].split("  ")[0] == "run"
    assert lines[1].split() == ["runs/a", "20.0", "19.0", "optim.lr=0.001", "1", "800", "1.5", "finished"]
    assert lines[2].split() == ["runs/b", "20.0", "-", "optim.lr=0.003", "2", "-", "-", "running"]
    assert "differs in" not in table([run("a"), run("b", seed=2)])[0]
    assert "of test or test_2016" in about([run(), run(test={"test_2016": 3.0})])


def test_runs_are_chosen_by_settings_and_figures() -> None:
    runs = [run("a"), run("b", optim__lr=0.001, status="failed"), run("c", model="lstm", seed=2)]

    def names(*conditions: str) -> str:
        return "".join(run.path.name for run in chosen(runs, conditions))

    assert names("optim.lr=1e-3") == "b"
    assert names("model=trans*", "status=finished") == "a"
    assert names("seed=2") == "c"
    assert names("experiment=null") == "abc"
    assert names("model=nothing") == ""
    with pytest.raises(UserError, match="optm.lr: none of these runs has such a key; did you mean optim.lr"):
        names("optm.lr=1")


def test_the_best_come_first_and_runs_without_a_figure_last() -> None:
    runs = [run("a", valid_bleu=1.0), run("b", valid_bleu=None), run("c", valid_bleu=3.0, optim__lr=0.0005),
            run("d", valid_bleu=2.0, seed=10)]

    def names(key: str, reverse: bool = False) -> str:
        return "".join(run.path.name for run in ordered(runs, key, reverse))

    assert names("valid") == "cdab"
    assert names("valid", reverse=True) == "adcb"
    assert names("run") == "abcd"
    assert names("seed") == "abcd"
    assert names("optim.lr") == "cabd"
    with pytest.raises(UserError, match="blue: none of these runs has such a key"):
        names("blue")
