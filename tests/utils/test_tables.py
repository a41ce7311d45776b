"""Cells below one another: sides, widths that are given, and rows that do not fit together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx.utils.tables import aligned, bullets, markdown

CELLS = st.text("abc", max_size=5)
ROWS = st.integers(1, 4).flatmap(lambda columns: st.lists(st.lists(CELLS, min_size=columns, max_size=columns)))


def test_names_stand_to_the_left_and_figures_to_the_right() -> None:
    assert aligned([("", "ms", "MiB"), ("lstm", "12.5", "3"), ("transformer", "7", "1,024")]) == [
        "               ms    MiB",
        "lstm         12.5      3",
        "transformer     7  1,024"]


@pytest.mark.parametrize(("align", "line"), [("<", "a   b    c"), (">", " a    b    c"), ("<><", "a     b  c")])
def test_the_last_side_serves_all_further_columns(align: str, line: str) -> None:
    assert aligned([("a", "b", "c"), ("aa", "bbb", "ccc")], align)[0] == line


def test_rows_of_one_table_may_be_written_one_by_one() -> None:
    rows = [("system", "BLEU"), ("lstm", "30.1")]
    assert [aligned([row], min_widths=(6, 4))[0] for row in rows] == aligned(rows)


@given(ROWS)
def test_every_cell_is_there_and_no_line_ends_in_a_space(rows: list[list[str]]) -> None:
    lines = aligned(rows)
    assert [line.split() for line in lines] == [[cell for cell in row if cell] for row in rows]
    assert all(line == line.rstrip() for line in lines)


def test_rows_of_different_lengths_are_no_table() -> None:
    with pytest.raises(ValueError, match="zip"):
        aligned([("a", "b"), ("c",)])


def test_a_markdown_table() -> None:
    assert markdown(("a", "b"), [("1", "2"), ("3", "4")]) == "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |"


def test_a_markdown_list() -> None:
    assert bullets(["a", "b"]) == "- a\n- b"
    assert bullets([]) == ""
