"""Cleaning: which training pairs are left out and why, which are held out, and how much of other sets is among them.

- Pairs are strings here, as read. Which are too long or lopsided is known after encoding: see `data.encoded`.
- A pair that is left out counts under its first reason; the others keep their order.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from heapq import nsmallest
from typing import Any

from minitx.config.schema import CleanConfig
from minitx.data.lines import is_blank
from minitx.utils.errors import Exit, UserError

Pair = tuple[str, str]
REASONS = (INVALID, CONTROL, EMPTY, IDENTICAL, DUPLICATE) = (
    "with invalid UTF-8", "with control characters", "with an empty side", "with identical sides", "repeated")
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")  # what reading with `surrogateescape` makes of a byte that is no UTF-8
# Tab, VT, FF, CR and NEL are white space in real text. Lone surrogates are no text: no tokenizer takes them.
_NO_TEXT = re.compile("[\0-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Overlap:
    """The rows of another set whose source, or whole pair, is in the training text."""

    sentences: int
    sources: list[int]
    pairs: list[int]


@dataclass(frozen=True)
class Cleaning:
    """What became of training pairs: `pairs` read, `kept`, and `dropped` by reason.

    `overlap`: the rows of each other set that are in the cleaned text too, counted before pairs that are too long or
    lopsided are left out.
    """

    pairs: int
    kept: int
    dropped: dict[str, int]
    overlap: dict[str, Overlap]

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "Cleaning":
        """Rebuild a record from its `asdict`."""
        return cls(**{**values, "overlap": {name: Overlap(**rows) for name, rows in values["overlap"].items()}})

    @classmethod
    def combine(cls, parts: Sequence["Cleaning"]) -> "Cleaning":
        """Add up the records of a text's parts, each cleaned by itself."""
        dropped: Counter[str] = Counter()
        for part in parts:
            dropped.update(part.dropped)
        overlap = {}
        for name, first in parts[0].overlap.items():
            found = [part.overlap[name] for part in parts]
            overlap[name] = Overlap(first.sentences, sorted({row for part in found for row in part.sources}),
                                    sorted({row for part in found for row in part.pairs}))
        return cls(sum(part.pairs for part in parts), sum(part.kept for part in parts), dict(dropped), overlap)

    def counts(self) -> dict[str, Any]:
        """Return the record with numbers of rows instead of the rows."""
        return asdict(self) | {"overlap": {name: {"sources": len(rows.sources), "pairs": len(rows.pairs),
                                                  "sentences": rows.sentences} for name, rows in self.overlap.items()}}

    def with_dropped(self, dropped: Mapping[str, int]) -> "Cleaning":
        """Return the record with further pairs counted as left out."""
        return replace(self, kept=self.kept - sum(dropped.values()), dropped=self.dropped | dict(dropped))

    def describe_dropped(self) -> str:
        """List how many pairs were left out for each reason; "" for none."""
        return ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items() if count)

    def describe_overlap(self) -> str:
        """List how much of each other set is in the cleaned text; "" for nothing."""
        return "; ".join(f"{len(rows.sources):,} sources, {len(rows.pairs):,} whole pairs of the {rows.sentences:,} in "
                         f"{name}" for name, rows in self.overlap.items() if rows.sources)

    def check(self, max_dropped_pct: float) -> None:
        """Refuse a text of which too little is left. Errors: `UserError` naming counts and key."""
        if not self.pairs:
            raise UserError("the training text is empty, no pair of sentences in it", Exit.DATA)
        if not self.kept:
            raise UserError(f"no training pair is left of {self.pairs:,} ({self.describe_dropped()}): see "
                            "data.max_length and data.clean", Exit.DATA)
        dropped_pct = 100 * (self.pairs - self.kept) / self.pairs
        if dropped_pct > max_dropped_pct:
            raise UserError(f"{dropped_pct:.1f} % of {self.pairs:,} training pairs are left out "
                            f"({self.describe_dropped()}): mend the text, or raise "
                            f"data.clean.max_dropped_pct={max_dropped_pct:g}", Exit.DATA)


def fault(pair: Pair, identical: bool) -> str | None:
    """Return the first reason in the pair itself to leave it out, or None."""
    src, tgt = pair
    if _NO_TEXT.search(src) or _NO_TEXT.search(tgt):
        return INVALID if _ESCAPED_BYTE.search(src) or _ESCAPED_BYTE.search(tgt) else CONTROL
    if is_blank(src) or is_blank(tgt):
        return EMPTY
    return IDENTICAL if identical and src.strip() == tgt.strip() else None


def clean(pairs: Iterable[Pair], cfg: CleanConfig) -> tuple[list[Pair], dict[str, int]]:
    """Return the pairs to train on, and how many were left out for each reason."""
    kept: list[Pair] = []
    dropped = dict.fromkeys(REASONS, 0)
    seen: set[bytes] = set()
    for pair in pairs:
        reason = fault(pair, cfg.identical)
        if reason is None and cfg.duplicates:
            mark = _mark(*pair)
            reason = DUPLICATE if mark in seen else None
            seen.add(mark)
        if reason is None:
            kept.append(pair)
        else:
            dropped[reason] += 1
    return kept, dropped


def overlap(train: Iterable[Pair], sets: Mapping[str, Sequence[Pair]]) -> dict[str, Overlap]:
    """Find the rows of each set whose source, or whole pair, is in the training text to the letter."""
    wanted = {pair for pairs in sets.values() for pair in pairs}
    wanted_sources = {src for src, _ in wanted}
    matches = {pair for pair in train if pair[0] in wanted_sources}  # few: memory is that of the sets
    sources, both = {src for src, _ in matches}, matches & wanted
    return {name: Overlap(len(pairs), [row for row, (src, _) in enumerate(pairs) if src in sources],
                          [row for row, pair in enumerate(pairs) if pair in both]) for name, pairs in sets.items()}


def hold_out(pairs: Sequence[Pair], size: int, reverse: bool) -> dict[str, list[Pair]]:
    """Choose `size` pairs for "test" and as many for "valid", in the order of the text; the rest is for training.

    Only a pair whose source and whose target occur nowhere else in the text is chosen, so nothing of it is trained on.
    The content's hash decides, so the order of pairs does not matter, nor which side is the source (`reverse`: the
    languages are not in alphabetical order).
    Errors: `UserError` if too few such pairs are there.
    """
    sources, targets = Counter(src for src, _ in pairs), Counter(tgt for _, tgt in pairs)
    unique = [row for row, pair in enumerate(pairs)
              if sources[pair[0]] == targets[pair[1]] == 1 and fault(pair, identical=True) is None]
    if len(unique) < 2 * size or len(pairs) <= 2 * size:
        raise UserError(f"data.hold_out={size}: takes {2 * size:,} pairs whose source and target occur once in the "
                        f"training text, and leaves some; of {len(pairs):,} pairs {len(unique):,} are such", Exit.DATA)
    chosen = nsmallest(2 * size, unique, key=lambda row: _mark(*(pairs[row][::-1] if reverse else pairs[row])))
    return {name: [pairs[row] for row in sorted(rows)]
            for name, rows in (("valid", chosen[size:]), ("test", chosen[:size]))}


def _mark(src: str, tgt: str) -> bytes:
    """Hash a pair to 64 bits, the same on any machine; among ten million pairs two collide in one text of 370,000."""
    return blake2b(f"{src}\0{tgt}".encode(), digest_size=8).digest()
