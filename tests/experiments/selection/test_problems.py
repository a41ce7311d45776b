"""The twelve problems of docs/pick.json: what was decided is what is decided now from the same figures."""

import json
from pathlib import Path

import pytest

from minitx.experiments.reports.results import read_rows
from minitx.experiments.selection.candidates import architectures
from minitx.experiments.selection.decision import decide
from minitx.experiments.selection.demands import Demands
from minitx.experiments.selection.quality import gather
from minitx.experiments.selection.recorded import knowledge_in
from minitx.experiments.selection.text import trade_off

ROOT = Path(__file__).resolve().parents[3]
PROBLEMS = json.loads((ROOT / "docs" / "pick.json").read_text(encoding="utf-8"))
FOUND = json.loads((ROOT / "results" / "selection" / "problems.json").read_text(encoding="utf-8"))
WORDS = [problem["words"] for problem in PROBLEMS if problem["words"] in FOUND]


def test_there_are_twelve_and_the_page_says_which_were_not_decided() -> None:
    """Some are left to an idle machine: a sequence of a million tokens takes minutes to record."""
    assert len(PROBLEMS) == 12
    assert list(FOUND) == WORDS
    page = (ROOT / "docs" / "pick.md").read_text(encoding="utf-8")
    undecided = [problem["words"] for problem in PROBLEMS if problem["words"] not in FOUND]
    assert [line for line in page.splitlines() if "*not decided yet*" in line] == [
        line for line in page.splitlines() if any(f"`minitx pick {words}`" in line for words in undecided)]
    for problem in PROBLEMS:
        assert problem["expert"] in ("none", *architectures())
        assert problem["why"].endswith(".")


@pytest.mark.parametrize("words", WORDS)
def test_a_problem_is_decided_as_it_is_published(words: str) -> None:
    found = FOUND[words]
    decided = decide(Demands(**found["demands"]), knowledge_in(found, gather(read_rows(ROOT / "results"))))
    assert found["answer"] == (None if decided.chosen is None else {
        "architecture": decided.chosen.architecture, "size": decided.chosen.size})
    assert [row["architecture"] for row in found["candidates"]] == [row.candidate.architecture for row in decided.rows]
    assert trade_off(decided) == found["trade_off"]


@pytest.mark.parametrize("words", WORDS)
def test_a_recurrence_alone_above_a_billion_tokens_has_its_trade_off(words: str) -> None:
    found = FOUND[words]
    pure = found["answer"] is not None and not found["candidates"][0]["figures"]["attends"]
    assert (found["trade_off"] is not None) == (pure and found["candidates"][0]["tokens"] > 1e9)


@pytest.mark.parametrize("words", WORDS)
def test_what_is_told_to_change_an_answer_names_another(words: str) -> None:
    for change in FOUND[words]["changes"]:
        assert change["answer"] != FOUND[words]["answer"]
