"""Rows of cells as lines of text: aligned for a terminal, or as Markdown; a list in Markdown."""

from collections.abc import Iterable, Sequence
from itertools import zip_longest

Row = Sequence[str]


def aligned(rows: Sequence[Row], align: str = "<>", min_widths: Sequence[int] = ()) -> list[str]:
    """Return one line a row, its cells below those of the other rows and two spaces apart.

    align: `<` (left) or `>` (right) for each column; the last letter serves all columns that follow.
    min_widths: of the first columns, where later calls print more rows of the same table.
    Errors: ValueError for rows of different lengths.
    """
    longest = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths = [max(pair) for pair in zip_longest(longest, min_widths, fillvalue=0)]
    sides = align.ljust(len(widths), align[-1])[:len(widths)]
    return ["  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
            for row in rows]


def markdown(head: Row, rows: Iterable[Row]) -> str:
    """Return a Markdown table, without a line feed at its end."""
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)])


def bullets(texts: Iterable[str]) -> str:
    """Return a Markdown list, without a line feed at its end; "" for no texts."""
    return "\n".join(f"- {text}" for text in texts)
