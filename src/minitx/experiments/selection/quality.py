"""What a system learns from so many tokens: BLEU, from the validation curves of published rows. No torch.

Two texts were measured, captions and verses; all that is compared is read off the one whose sentences are nearer in
length. A system that has no row there is compared through one that has: a loss against it is carried over, a gain is
not, since what a system gains depends on length.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from statistics import fmean

from minitx.experiments.reports.results import Row
from minitx.utils.errors import UserError

TEXTS = {"captions": "headline_small", "verses": "positions_bible"}  # by name, the experiment of its rows
COMPARATOR = "transformer"  # which has rows of each text
FAR = 10.0  # times what was measured: beyond, it is an extrapolation


@dataclass(frozen=True)
class Curves:
    """What was measured of a system on a text. curves: of each seed, training tokens and BLEU at each validation"""

    curves: Sequence[Sequence[tuple[float, float]]]
    params: int
    rows: Sequence[str]

    @property
    def measured_tokens(self) -> float:
        """Return the tokens up to which all seeds were measured."""
        return min(curve[-1][0] for curve in self.curves)

    def at(self, tokens: float) -> float:
        """Return the mean BLEU of the seeds after so many tokens; beyond its end a curve stays as it is there."""
        return fmean(_interpolate(curve, tokens) for curve in self.curves)


@dataclass(frozen=True)
class Text:
    """A text that systems were trained on."""

    name: str
    length: float  # mean target tokens of a sentence, EOS included
    systems: Mapping[str, Curves]


@dataclass(frozen=True)
class Quality:
    """BLEU as expected of a system; None = no row says anything of it."""

    bleu: float | None
    measured: bool
    text: str
    rows: Sequence[str]
    tokens: float | None  # up to which it was measured
    params: int | None  # of the model that was measured
    why: str  # how it follows from the rows


def gather(rows: Sequence[Row]) -> dict[str, Text]:
    """Find the curves of each text. Errors: `UserError` where the ledger lacks a text, or the comparator on it"""
    found = {}
    for name, experiment in TEXTS.items():
        mine = [row for row in rows if row.result.experiment == experiment]
        if not any(row.result.model == COMPARATOR for row in mine):
            raise UserError(f"experiment={experiment}: the ledger has no row of it with model={COMPARATOR}, which the "
                            "others are compared with; name the folder of published rows with --ledger")
        systems = {model: _curves([row for row in mine if row.result.model == model])
                   for model in sorted({row.result.model for row in mine})}
        found[name] = Text(name, fmean(_sentence(row) for row in mine), systems)
    return found


def expected(architecture: str, tokens: float, length: int, texts: Mapping[str, Text]) -> Quality:
    """Return the quality of an architecture after so many training tokens, on sentences of a length."""
    text = nearest_text(length, texts)
    if (own := text.systems.get(architecture)) is not None:
        seeds = len(own.rows)
        return Quality(own.at(tokens), True, text.name, own.rows, own.measured_tokens, own.params,
                       f"{text.name}, the mean of {seeds} seeds" if seeds > 1 else f"{text.name}, one seed")
    base = text.systems[COMPARATOR]
    for other in texts.values():
        there, beside = other.systems.get(architecture), other.systems[COMPARATOR]
        if there is None:
            continue
        same = min(there.measured_tokens, beside.measured_tokens, tokens)
        ratio = there.at(same) / beside.at(same) if beside.at(same) > 0 else 1.0
        kept = min(1.0, ratio)
        why = (f"{COMPARATOR} on {text.name}" + (f", times {kept:.2f} as on {other.name}" if kept < 1 else
                                                 f"; a gain on {other.name} is not carried over"))
        return Quality(kept * base.at(tokens), False, text.name, [*base.rows, *there.rows], base.measured_tokens,
                       base.params, why)
    return Quality(None, False, text.name, (), None, None, "no published row")


def nearest_text(length: int, texts: Mapping[str, Text]) -> Text:
    """Return the text whose sentences are nearest in length."""
    return min(texts.values(), key=lambda text: abs(log(text.length / length)))


def _curves(rows: Sequence[Row]) -> Curves:
    curves = [[(step * row.result.tokens / row.result.steps, bleu) for step, _, _, bleu in row.curve] for row in rows]
    return Curves(curves, rows[0].result.params, [row.name for row in rows])


def _sentence(row: Row) -> float:
    """Return the mean target tokens of a training sentence."""
    return float(row.result.tokens / (row.result.epochs * row.result.cleaning["kept"]))


def _interpolate(curve: Sequence[tuple[float, float]], tokens: float) -> float:
    before, reached = 0.0, 0.0
    for after, bleu in curve:
        if tokens <= after:
            return reached + (bleu - reached) * (tokens - before) / (after - before)
        before, reached = after, bleu
    return reached
