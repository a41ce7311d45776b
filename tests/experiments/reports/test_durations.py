"""How long trainings took is what their rows say: the extremes of an experiment's runs, a line for each machine."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from published import write_run

from minitx.experiments.reports.durations import MISSING, render
from minitx.experiments.reports.results import Row, make_row


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory) -> Row:
    return make_row(write_run(tmp_path_factory.mktemp("runs") / "run"))


def changed(row: Row, **changes: Any) -> Row:
    return replace(row, result=replace(row.result, **changes))


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]


def test_a_line_holds_the_extremes_of_its_runs(row: Row) -> None:
    rows = [changed(row, seed=seed, steps=steps, train_s=train_s, wall_s=train_s + 20)
            for seed, steps, train_s in ((1, 800, 71.2), (2, 1_200, 87.0), (3, 900, 75.0))]
    assert cells(render(rows)) == [["`synthetic_*`", "1m31s to 1m47s", "1m11s to 1m27s", "800 to 1,200", "3",
                                    "synthetic", "A Processor, 2 threads, 32-true"]]
    assert render(random.Random(1).sample(rows, 3)) == render(rows)
    assert cells(render(rows[:1]))[0][1:4] == ["1m31s", "1m11s", "800"], "one value is no range"


def test_machines_number_formats_and_experiments_have_lines_of_their_own_the_shortest_first(row: Row,
                                                                                           tmp_path: Path) -> None:
    captions = changed(make_row(write_run(tmp_path / "captions", "multi30k_30min_lstm")), wall_s=1_900)
    rows = [captions, changed(row, precision="bf16-mixed", wall_s=150), row,
            changed(row, threads=1, wall_s=300), changed(row, hardware={"gpu": "A GPU", "cpu": "A CPU"}, wall_s=9)]
    found = cells(render(rows))
    assert [(line[0], line[1], line[6]) for line in found] == [
        ("`synthetic_*`", "9s", "A GPU, 32-true"), ("`synthetic_*`", "2m30s", "A Processor, 2 threads, bf16-mixed"),
        ("`synthetic_*`", "3m20s", "A Processor, 2 threads, 32-true"),
        ("`synthetic_*`", "5m00s", "A Processor, 1 thread, 32-true"),
        ("`multi30k_*`", "31m40s", "A Processor, 2 threads, 32-true")]
    assert [line[5] for line in found] == ["synthetic"] * 4 + ["multi30k"]


def test_a_run_that_shared_its_machine_says_nothing_of_time(row: Row) -> None:
    shared = changed(row, seed=2, wall_s=9_000.0, other_cpu_pct=40.0)
    assert render([row, shared]) == render([row])
    assert render([shared]) == MISSING


def test_a_ledger_without_rows_says_so() -> None:
    assert render([]) == MISSING
