"""A decision for a person, in a table and sentences, and for programs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from minitx.evaluation.significance import MATTERS
from minitx.experiments.selection.candidates import command, recipe_of, words
from minitx.experiments.selection.changes import LIMITS, Change
from minitx.experiments.selection.decision import PURE_LIMIT, Decision, Figure, Refused, Row
from minitx.experiments.selection.demands import Demands, option
from minitx.experiments.selection.quality import FAR, Text, nearest_text
from minitx.utils.console import duration
from minitx.utils.tables import aligned

HEAD = ("candidate", "parameters", "BLEU", "training", "cost", "GiB to train", "ms a token", "MiB to serve",
        "bytes a token", "")
LEGEND = "~ = predicted; without it: measured, or counted"
FIGURES = {"tokens_per_s": "target tokens a second", "train_gib": "GiB to train", "token_ms": "ms a token",
           "serve_gib": "GiB to serve"}
UNITS = {"latency_ms": "ms a token", "memory_gib": "GiB", "serve_gib": "GiB", "budget_minutes": "minutes",
         "tokens": "training tokens", "length": "tokens a sentence"}


def lines(decision: Decision, found: Sequence[Change], texts: Mapping[str, Text]) -> Iterator[str]:
    """Yield the answer with its trade-off, what goes beyond what was measured, the table, and what would change it."""
    demands, answer = decision.demands, decision.answer
    yield headline(decision)
    if (price := trade_off(decision)) is not None:
        yield price
    for text in beyond(decision, texts):
        yield f"beyond what was measured: {text}"
    yield ""
    yield from table(decision)
    yield ""
    if answer is not None:
        yield from why(decision)
        yield f"command: {command(answer.candidate, demands, answer.tokens, answer.figures.precision)}"
        yield ""
    for shown in decision.rows[:1]:
        yield f"where the figures of {shown.candidate} are from"
        yield from aligned([(f"  {name}", source) for name, source in sources(shown, demands)], "<")
        yield ""
    yield "what would change the answer"
    told = [f"  {text}" for text in (change_text(change) for change in found)]
    yield from told or ["  nothing that was tried"]


def headline(decision: Decision) -> str:
    """Say what is chosen, or that nothing is."""
    answer, runner_up = decision.answer, decision.runner_up
    if answer is None:
        return f"none: no candidate meets all demands{nearest_miss(decision)}"
    second = "nothing else meets all demands" if runner_up is None else f"then {runner_up.candidate}"
    return f"{answer.candidate}: {' '.join(words(answer.candidate, decision.demands))}; {second}"


def nearest_miss(decision: Decision) -> str:
    """Say what comes nearest to a limit that no candidate meets, or nothing where there is no such limit."""
    told = []
    for name, figure in LIMITS.items():
        if decision.rows and all(any(failure.demand == name for failure in row.failures) for row in decision.rows):
            best = min(decision.rows, key=figure)
            told.append(f"{option(name)}: the least is {figure(best):.3g} {UNITS[name]}, of {best.candidate}")
    return f": {'; '.join(told)}" if told else "; the table says which each one fails"


def trade_off(decision: Decision) -> str | None:
    """Say what a recurrence alone costs where it is chosen for more than `PURE_LIMIT` training tokens, or None."""
    answer = decision.answer
    if answer is None or not answer.is_pure or answer.tokens <= PURE_LIMIT:
        return None
    everyone: list[Row | Refused] = [*decision.rows, *decision.refused]
    best = max(everyone, key=lambda row: row.bleu or 0.0)
    own = "this was not measured" if answer.bleu is None else f"this {answer.bleu:.1f}"
    gap = "" if best is answer or best.bleu is None else (
        f"; {best.candidate.architecture} gets {best.bleu:.1f} BLEU as measured, {own}")
    alone = all(row.is_pure for row in decision.meeting)
    because = ("it is answered only because the demands exclude all that attends" if alone else
               "what attends meets the demands, too, and comes after it by BLEU or by hours")
    return (f"trade-off: a recurrence alone on {answer.tokens:.3g} training tokens, above {PURE_LIMIT:.0e}: all it "
            f"keeps of the source is a state of fixed size, which more text does not widen{gap}; {because}")


def beyond(decision: Decision, texts: Mapping[str, Text]) -> Iterator[str]:
    """Yield in which respect the answer is more than `FAR` times beyond what was measured of quality."""
    answer, demands = decision.answer, decision.demands
    if answer is None:
        return
    text = nearest_text(demands.length, texts)
    if demands.length > FAR * text.length:
        yield (f"sentences of {demands.length:,} tokens; those of {text.name}, the longest that BLEU was measured on, "
               f"have {text.length:.0f}, so nothing here says how well any candidate translates such")
    measured, params = answer.quality.tokens, answer.quality.params
    if measured is not None and answer.tokens > FAR * measured:
        yield f"{answer.tokens:.3g} training tokens; BLEU was measured up to {measured:.3g}, and stands for them"
    if params is not None and answer.figures.params > FAR * params:
        yield f"{answer.figures.params:,} parameters; BLEU was measured with {params:,}"
    if answer.bleu is None:
        yield f"the BLEU of {answer.candidate.architecture}: no published row has it"
    yield from answer.figures.notes


def table(decision: Decision) -> Iterator[str]:
    """Yield a line a candidate, and what the marks mean."""
    refused = [(str(row.candidate), "-", bleu_text(row), *["-"] * (len(HEAD) - 4), f"no: {reasons(row)}")
               for row in decision.refused]
    yield from aligned([HEAD, *(cells(row, decision) for row in decision.rows), *refused], "<>>>>>>>><")
    yield LEGEND


def cells(row: Row, decision: Decision) -> tuple[str, ...]:
    """Return what the table has of a candidate."""
    verdict = f"no: {reasons(row)}" if row.failures else "answer" if row is decision.answer else ""
    cost, figures, speed = row.cost(decision.demands), row.figures, row.figures.tokens_per_s
    return (str(row.candidate), f"{figures.params:,}", bleu_text(row),
            f"{'' if speed.measured else '~'}{duration(60 * row.minutes)}",
            "-" if cost is None else f"{'' if speed.measured else '~'}{cost:,.2f}", marked(figures.train_gib),
            marked(figures.token_ms), marked(figures.serve_gib, 1024), f"{figures.growth:,}", verdict)


def reasons(row: Row | Refused) -> str:
    """Return why a candidate is excluded."""
    return "; ".join(failure.why for failure in row.failures)


def marked(figure: Figure, times: float = 1.0) -> str:
    """Write a figure, marked if it is predicted."""
    return f"{'' if figure.measured else '~'}{short(figure.value * times)}"


def bleu_text(row: Row | Refused) -> str:
    """Write the BLEU that is expected, marked if it is predicted."""
    if row.bleu is None or row.quality is None:
        return "unknown"
    return f"{'' if row.quality.measured else '~'}{row.bleu:.1f}"


def why(decision: Decision) -> Iterator[str]:
    """Yield why the answer comes before the others."""
    answer, second = decision.answer, decision.runner_up
    assert answer is not None
    excluded = len(decision.rows) + len(decision.refused) - len(decision.meeting)
    yield f"why: {excluded} of {len(decision.rows) + len(decision.refused)} architectures fail a demand" + (
        f", and {answer.candidate} is what is left" if second is None else "")
    if second is not None:
        yield f"  before {second.candidate}: {before(answer, second)}"
    yield (f"  trained as data={recipe_of(answer.candidate, decision.demands).data}, the text whose recommended "
           "training is nearest in tokens; no size is larger than the one recommended there")
    for row in decision.tried:
        if row.candidate.architecture == answer.candidate.architecture:
            yield f"  not {row.candidate}: {reasons(row)}"
    if decision.demands.tokens is None and answer.bleu is not None:
        yield ("  its size is the largest of those that read enough in the time to learn as much as any, by curves of "
               f"models of {answer.quality.params:,} parameters; what another size learns of a token was not measured")


def before(answer: Row, second: Row) -> str:
    """Say why one row comes before another."""
    if answer.bleu is None:
        return "the quality of neither was measured, and it trains sooner"
    if second.bleu is None:
        return f"{answer.bleu:.1f} BLEU, and that of the other was not measured"
    if answer.bleu - second.bleu >= MATTERS:
        return f"{answer.bleu:.1f} BLEU against {second.bleu:.1f}"
    return (f"{answer.bleu:.1f} BLEU against {second.bleu:.1f}, less than {MATTERS:g} apart, and "
            f"{duration(60 * answer.minutes)} of training against {duration(60 * second.minutes)}")


def sources(row: Row, demands: Demands) -> Iterator[tuple[str, str]]:
    """Yield each figure's name and what it stands on."""
    known = ", ".join(row.quality.rows)
    yield "BLEU", f"{row.quality.why}{': ' * bool(known)}{known}"
    for key, name in FIGURES.items():
        figure: Figure = getattr(row.figures, key)
        yield name, f"{'measured' if figure.measured else 'predicted'}: {figure.stands_on}"
    if demands.price is not None:
        yield "cost", f"hours times {demands.gpus} at --price {demands.price:g} an hour"


def change_text(change: Change) -> str:
    """Say at which value of which demand the answer becomes which."""
    becomes = "nothing meets the demands" if change.chosen is None else str(change.chosen)
    if change.value is None:
        return f"{change.side} {option(change.demand)}: {becomes}"
    return f"{change.side} {option(change.demand)} {short(change.value)} ({UNITS[change.demand]}): {becomes}"


def short(value: float) -> str:
    """Write a number with three digits, or all of those before the point; millions as a power of ten."""
    return f"{value:,.0f}" if 100 <= value < 1e6 else f"{value:.3g}"


# --- for programs


def as_json(decision: Decision, found: Sequence[Change], texts: Mapping[str, Text]) -> dict[str, Any]:
    """Return all of it, ready for JSON."""
    answer, runner_up, demands = decision.answer, decision.runner_up, decision.demands
    told = answer and command(answer.candidate, demands, answer.tokens, answer.figures.precision)
    return {"demands": asdict(demands), "answer": named(answer), "runner_up": named(runner_up), "command": told,
            "trade_off": trade_off(decision), "beyond_measured": list(beyond(decision, texts)),
            "candidates": [row_json(row, demands) for row in decision.rows],
            "refused": [{**asdict(row.candidate), "failures": [asdict(failure) for failure in row.failures]}
                        for row in decision.refused],
            "changes": [{"demand": change.demand, "side": change.side, "value": change.value,
                         "answer": named(change.answer)} for change in found]}


def named(row: Row | None) -> dict[str, str] | None:
    """Return a candidate's name in its parts."""
    return None if row is None else {name: value for name, value in asdict(row.candidate).items() if value}


def row_json(row: Row, demands: Demands) -> dict[str, Any]:
    """Return what is known of a candidate."""
    figures, quality = row.figures, row.quality
    return {**asdict(row.candidate), "words": list(words(row.candidate, demands)), "tokens": row.tokens,
            "minutes": row.minutes, "cost": row.cost(demands),
            "figures": {**asdict(figures), "notes": list(figures.notes)},
            "quality": {**asdict(quality), "rows": list(quality.rows)},
            "failures": [asdict(failure) for failure in row.failures]}
