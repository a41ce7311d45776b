"""The decision: each candidate is excluded by the demands that it fails, the others are ordered by quality, then cost.

Candidates whose quality differs by less than what matters are as good as one another, and cost decides among them.
No torch: figures come from the caller.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf

from minitx.evaluation.significance import MATTERS
from minitx.experiments.selection.candidates import Candidate, architectures, is_too_large, savings, sizes
from minitx.experiments.selection.demands import Demands, option
from minitx.experiments.selection.quality import Quality
from minitx.utils.errors import UserError

PURE_LIMIT = 1e9  # training tokens above which a recurrence alone is not recommended without its price


@dataclass(frozen=True)
class Figure:
    """A number, and where it is from."""

    value: float
    measured: bool
    stands_on: str


@dataclass(frozen=True)
class Figures:
    """What a candidate takes, on the hardware that is asked for."""

    params: int
    precision: str
    attends: bool  # to the source
    growth: int  # bytes of state that each token more adds, read or written
    tokens_per_s: Figure  # target tokens, in training, by all devices
    train_gib: Figure  # of a device, in training
    token_ms: Figure  # of decoding, one sentence at a time
    serve_gib: Figure  # weights, and the state of a typical sentence at its end
    notes: Sequence[str] = ()  # what was lengthened beyond what was recorded or measured


@dataclass(frozen=True)
class Failure:
    """A demand that a candidate does not meet."""

    demand: str  # a field of `Demands`, or "size"
    why: str


@dataclass(frozen=True)
class Row:
    """A candidate with all that is known of it, and the demands that it fails."""

    candidate: Candidate
    figures: Figures
    quality: Quality
    tokens: float  # that training reads
    failures: Sequence[Failure] = ()

    @property
    def minutes(self) -> float:
        """Return the minutes of training."""
        return self.tokens / self.figures.tokens_per_s.value / 60

    @property
    def bleu(self) -> float | None:
        """Return the BLEU that is expected; None = no row says anything of it."""
        return self.quality.bleu

    @property
    def is_pure(self) -> bool:
        """Return whether it is a recurrence alone: nothing in it attends."""
        return not self.figures.attends

    def cost(self, demands: Demands) -> float | None:
        """Return the price of the training."""
        return None if demands.price is None else self.minutes / 60 * demands.gpus * demands.price


@dataclass(frozen=True)
class Refused:
    """A candidate that cannot be trained so, or that no size of could meet a demand: its figures are not made."""

    candidate: Candidate
    failures: Sequence[Failure]
    quality: Quality | None = None  # where it is known without the speed

    @property
    def bleu(self) -> float | None:
        """Return the BLEU that would be expected, if that is known."""
        return None if self.quality is None else self.quality.bleu


@dataclass(frozen=True)
class Structure:
    """What is so at any size."""

    attends: bool  # to the source
    grows: bool  # the state that decoding carries, with the tokens
    recomputable: bool = False  # layers, for the gradient


FiguresOf = Callable[[Candidate, Demands], Figures]
QualityOf = Callable[[str, float, int], Quality]
StructureOf = Callable[[str, bool], Structure]  # of an architecture, and whether it must decode in constant memory


@dataclass(frozen=True)
class Knowledge:
    """Where figures, qualities and structures come from."""

    figures_of: FiguresOf
    quality_of: QualityOf
    structure_of: StructureOf


@dataclass(frozen=True)
class Decision:
    """What was decided. rows: one an architecture, those that meet all demands first, the best first

    refused: architectures without figures; tried: candidates that were looked at besides
    """

    demands: Demands
    rows: Sequence[Row]
    refused: Sequence[Refused] = ()
    tried: Sequence[Row | Refused] = ()

    @property
    def meeting(self) -> Sequence[Row]:
        """Return the rows that meet all demands."""
        return [row for row in self.rows if not row.failures]

    @property
    def answer(self) -> Row | None:
        """Return the best, or None where nothing meets all demands."""
        return next(iter(self.meeting), None)

    @property
    def chosen(self) -> Candidate | None:
        """Return the candidate that is chosen."""
        return None if self.answer is None else self.answer.candidate

    @property
    def runner_up(self) -> Row | None:
        """Return the second best."""
        return self.meeting[1] if len(self.meeting) > 1 else None


def decide(demands: Demands, known: Knowledge, done: Callable[[str], None] = lambda _: None) -> Decision:
    """Take of each architecture the largest size that meets all demands, and order them. Errors: as `Demands.check`

    done: is told of each of `architectures()` that was looked at
    """
    demands.check()
    looked_at = list[list[Row | Refused]]()
    for architecture in architectures():
        looked_at.append(attempts(architecture, demands, known))
        done(architecture)
    found = [best_of(tried) for tried in looked_at]
    rows = [row for row in found if isinstance(row, Row)]
    return Decision(demands, [*ranked([row for row in rows if not row.failures]),
                              *(row for row in rows if row.failures)],
                    [row for row in found if isinstance(row, Refused)],
                    [row for tried in looked_at for row in tried if row not in found])


def choose(demands: Demands, known: Knowledge) -> Row | None:
    """Return the answer of `decide`, and look at no more candidates than that takes. Errors: as `Demands.check`

    In the order of their quality, until what is left is more than `MATTERS` below one that meets all demands.
    """
    demands.check()
    if demands.tokens is None:  # quality follows from the speed of each
        return decide(demands, known).answer
    meeting = list[Row]()
    for bleu, architecture in by_quality(demands, demands.tokens, known):
        if meeting and ((best := meeting[0].bleu) is not None and (bleu is None or best - bleu >= MATTERS)):
            break
        row = best_of(attempts(architecture, demands, known))
        if isinstance(row, Row) and not row.failures:
            meeting.append(row)
    return next(iter(ranked(meeting)), None)


def by_quality(demands: Demands, tokens: float, known: Knowledge) -> list[tuple[float | None, str]]:
    """Return the architectures that no demand excludes at any size, the best first, those of unknown quality last."""
    found = [(known.quality_of(architecture, tokens, demands.length).bleu, architecture)
             for architecture in architectures() if not list(at_any_size(architecture, demands, known))]
    return sorted(found, key=lambda pair: (pair[0] is None, -(pair[0] or 0.0)))


def attempts(architecture: str, demands: Demands, known: Knowledge) -> list[Row | Refused]:
    """Look at an architecture's sizes, the largest first, until one meets all demands.

    Where a budget says how much each reads, on until no smaller one could learn more; those that learn less fail.
    """
    tried = list[Row | Refused]()
    if hopeless := list(at_any_size(architecture, demands, known)):
        quality = demands.tokens and known.quality_of(architecture, demands.tokens, demands.length)
        return [Refused(Candidate(architecture, sizes(demands)[0]), hopeless, quality or None)]
    for size in sizes(demands):
        tried += sparing(Candidate(architecture, size), demands, known)
        last = tried[-1]
        if isinstance(last, Row) and not last.failures and not could_learn_more(last, demands, known):
            break
    return [outlearned(row, tried, demands) for row in tried]


def sparing(candidate: Candidate, demands: Demands, known: Knowledge) -> Iterator[Row | Refused]:
    """Yield a candidate and, as long as memory is all that it lacks, the same with what saves some."""
    structure = known.structure_of(candidate.architecture, demands.streaming)
    for way in savings(candidate, demands, structure.recomputable):
        row = examined(way, demands, known)
        yield row
        if {failure.demand for failure in row.failures} != {"memory_gib"}:
            return


def could_learn_more(row: Row, demands: Demands, known: Knowledge) -> bool:
    """Return whether a faster model, which reads more in the time, could get a BLEU that is better by what matters."""
    if demands.tokens is not None or row.bleu is None:
        return False
    most = known.quality_of(row.candidate.architecture, inf, demands.length).bleu
    return most is not None and most - row.bleu >= MATTERS


def outlearned(row: Row | Refused, tried: Sequence[Row | Refused], demands: Demands) -> Row | Refused:
    """Return a row; if it meets all demands, but another size learns more in the same time, with that as a failure."""
    if not isinstance(row, Row) or row.failures or row.bleu is None:
        return row
    best = max((other for other in tried if isinstance(other, Row) and not other.failures),
               key=lambda other: other.bleu or 0.0)
    if (best.bleu or 0.0) - row.bleu < MATTERS:
        return row
    why = (f"{option('budget_minutes')} {demands.budget_minutes:g}: it reads {row.tokens:.3g} tokens, for "
           f"{row.bleu:.1f} BLEU, and {best.candidate.size} {best.tokens:.3g}, for {best.bleu:.1f}")
    return replace(row, failures=[Failure("budget_minutes", why)])


def best_of(tried: Sequence[Row | Refused]) -> Row | Refused:
    """Return the largest size that meets all demands, or else the last that was tried and can be trained."""
    rows = [row for row in tried if isinstance(row, Row)]
    return next((row for row in rows if not row.failures), rows[-1] if rows else tried[-1])


def at_any_size(architecture: str, demands: Demands, known: Knowledge) -> Iterator[Failure]:
    """Yield the demands that an architecture fails whatever its size: seen before any figure is made."""
    structure = known.structure_of(architecture, demands.streaming)
    if demands.streaming and structure.grows:
        yield Failure("streaming", "its state grows with each token")
    if demands.attention and not structure.attends:
        yield Failure("attention", "it never looks back at the source")
    if demands.target_bleu is not None and demands.tokens is not None:
        yield from short_of(demands.target_bleu, known.quality_of(architecture, demands.tokens, demands.length).bleu)


def short_of(target: float, bleu: float | None) -> Iterator[Failure]:
    """Yield the failure to reach a BLEU."""
    if bleu is None:
        yield Failure("target_bleu", "its BLEU was not measured")
    elif bleu < target:
        yield Failure("target_bleu", f"{option('target_bleu')} {target:g}: it gets {bleu:.1f}")


def examined(candidate: Candidate, demands: Demands, known: Knowledge) -> Row | Refused:
    """Hold a candidate against the demands that depend on its figures."""
    try:
        figures = known.figures_of(candidate, demands)
    except UserError as error:
        return Refused(candidate, [Failure("size", str(error))])
    tokens = demands.tokens or 60 * (demands.budget_minutes or 0.0) * figures.tokens_per_s.value
    row = Row(candidate, figures, known.quality_of(candidate.architecture, tokens, demands.length), tokens)
    return replace(row, failures=list(failures(row, demands)))


def failures(row: Row, demands: Demands) -> Iterator[Failure]:
    """Yield each demand that a candidate's figures do not meet, and why."""
    figures = row.figures
    if is_too_large(row.candidate, row.tokens):
        yield Failure("size", f"larger than what texts of {row.tokens:,.0f} training tokens are recommended")
    limits = (("latency_ms", figures.token_ms.value, demands.latency_ms),
              ("memory_gib", figures.train_gib.value, demands.memory_limit_gib),
              ("serve_gib", figures.serve_gib.value, demands.serve_gib),
              ("budget_minutes", row.minutes, demands.budget_minutes if demands.tokens else None))
    for name, has, limit in limits:
        if limit is not None and has > limit:
            yield Failure(name, f"{option(name)} {limit:.3g}: it takes {has:.3g}")
    if demands.target_bleu is not None and demands.tokens is None:
        yield from short_of(demands.target_bleu, row.bleu)


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Order rows by quality and, where it differs by less than `MATTERS` from the best left, by hours of training.

    All are of as many devices, so that hours are costs. Those of unknown quality come last.
    """
    def hours(row: Row) -> tuple[float, float, str]:
        return row.minutes, -(row.bleu or 0.0), row.candidate.architecture

    left = sorted((row for row in rows if row.bleu is not None), key=lambda row: -(row.bleu or 0.0))
    order = list[Row]()
    while left:
        alike = [row for row in left if (left[0].bleu or 0.0) - (row.bleu or 0.0) < MATTERS]
        order += sorted(alike, key=hours)
        left = left[len(alike):]
    return order + sorted((row for row in rows if row.bleu is None), key=hours)
