"""The ledger as one HTML page: tables, figures, conditions and commands.

The page embeds its figures as SVG, needs no network and runs no script; the same ledger gives the same bytes. Attention
maps are read from the ledger's folder `attention`, and the results of studies from `studies`.
"""

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from minitx.evaluation.attention_maps import AttentionMaps, read_all
from minitx.experiments.reports import findings, front, results
from minitx.experiments.reports.evidence import gather
from minitx.experiments.reports.figures import (
    attention_map,
    bleu_over_length,
    bleu_over_time,
    group_systems,
    time_split,
)
from minitx.experiments.reports.findings import StudyResult
from minitx.experiments.reports.results import Row
from minitx.experiments.reports.study_plots import FIGURES
from minitx.experiments.reports.tables import TABLES, Table, comparisons, conditions, grid, render
from minitx.utils.errors import Exit, UserError
from minitx.utils.files import write_atomically

TITLE = "minitx: what was measured"
LOOKS = {"encoder": "the source's tokens look at each other", "cross": "the translation's tokens look at the source",
         "decoder": "the translation's tokens look at those before them"}
ENVIRONMENT = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
                          trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)


class Picture(NamedTuple):
    """A figure that is not drawn yet."""

    name: str  # of its file, without .png
    caption: str
    alt: str  # for those who do not see it
    draw: Callable[..., bytes]  # form="svg" or "png"

    @property
    def data_uri(self) -> str:
        """Draw it as a document of its own: nothing in it can clash with the page or with another figure."""
        return f"data:image/svg+xml;base64,{b64encode(self.draw(form='svg')).decode()}"


def write_page(ledger: Path, page: Path | None, figures: Path | None = None) -> None:
    """Write the page, and each of its figures as PNG into a folder; all is drawn before anything is written.

    Errors: `UserError` for a ledger that is missing or empty, a file that cannot be read or written, and where
    something is drawn without matplotlib.
    """
    shown = results.read_rows(ledger), read_all(ledger / "attention"), findings.read_studies(ledger / "studies")
    files = {} if page is None else {page: html(*shown)}
    if figures is not None:
        files |= {figures / f"{picture.name}.png": picture.draw(form="png") for picture in pictures(*shown)}
    for path, content in files.items():
        _write(path, content)


def html(rows: Sequence[Row], maps: Mapping[str, AttentionMaps], studies: Mapping[str, StudyResult]) -> bytes:
    """Make the page of these rows, whatever their order, and of attention maps and studies by name."""
    tables = [_table(name, table, rows) for name, table in TABLES.items()]
    claims = [_study(name, studies.get(name)) for name in FIGURES]
    runs = {row.result.config_sha256: row.name for row in rows}
    return ENVIRONMENT.get_template("page.html").render(
        title=TITLE, rows=len(rows), tables=tables, studies=claims,
        names=[*(table.name for table in tables), "attention", *(study.name for study in claims)],
        maps=[_map(name, of_name, runs) for name, of_name in maps.items()]).encode()


# --- what is shown


def pictures(rows: Sequence[Row], maps: Mapping[str, AttentionMaps],
             studies: Mapping[str, StudyResult]) -> Iterator[Picture]:
    """Yield README's picture, if all that it shows was measured, and every figure of the page."""
    if (evidence := gather(rows, studies)) is not None:
        yield Picture("front", front.CAPTION, front.describe(evidence), partial(front.draw, evidence))
    for name, table in TABLES.items():
        yield from of_table(name, table, rows)
    for name, of_name in maps.items():
        yield from of_maps(name, of_name)
    for name, study in studies.items():
        yield of_study(name, study)


def of_table(name: str, table: Table, rows: Sequence[Row]) -> Iterator[Picture]:
    """Yield a table's figures, unless a table before it shows the same rows."""
    chosen = [row for line in table.lines(rows) for row in line]
    first = next(known for known, other in TABLES.items() if other.experiments == table.experiments)
    if not chosen or name != first:
        return
    last = [f"{system} {max(bleu for row in seeds for *_, bleu in row.curve[-1:]):.1f}"
            for system, seeds in group_systems(chosen).items() if any(row.curve for row in seeds)]
    yield Picture(f"{name}-bleu-over-time", "BLEU on the validation set while training went on.",
                  f"A line for each system. BLEU at its end, of the best seed: {'; '.join(last)}.",
                  partial(bleu_over_time, chosen))
    scored = [score.test_set for score in table.scores.values() if score.key == "bleu"]
    sets = [test_set for test_set in scored if test_set.startswith("length_")] or scored[:1]
    complete = [row for row in chosen if all(row.sentences.get(test_set) for test_set in sets)]
    if sets and complete:
        yield Picture(f"{name}-bleu-over-length", f"BLEU of short and of long sentences ({', '.join(sets)}).",
                      f"A line for each of {', '.join(group_systems(complete))}: BLEU by length, with 95 % intervals.",
                      partial(bleu_over_length, complete, sets))
    spent = [f"{system} {sum(seeds[0].result.time_split.values()):,.0f} s"
             for system, seeds in group_systems(chosen).items()]
    yield Picture(f"{name}-time-split", "What the time of a run went to.",
                  f"A bar for each system, in parts. Whole length, of its first seed: {'; '.join(spent)}.",
                  partial(time_split, chosen))


def of_maps(name: str, maps: AttentionMaps) -> Iterator[Picture]:
    """Yield a figure for each kind of attention."""
    for kind, parts in maps.weights.items():
        layers, heads, L, S = parts.shape
        yield Picture(f"attention-{name}-{kind}", f"{maps.model}, {kind}: {LOOKS[kind]}.",
                      f"Heat maps of {layers} layers by {heads} heads, {L} by {S} tokens each: {LOOKS[kind]}.",
                      partial(attention_map, maps, [kind]))


def of_study(name: str, study: StudyResult) -> Picture:
    """Return a study's figure."""
    return Picture(f"study-{name}", f"What minitx study {name} measured. docs/studies.md says how to read it.",
                   f"Curves of what minitx study {name} measured. Its claims: {findings.tally(study)}.",
                   partial(FIGURES[name], study))


# --- as HTML


@dataclass(frozen=True)
class Section:
    """What a section of the page shows, or how to make it where it is missing; `this` in a text is code."""

    name: str
    missing: str = ""
    head: Sequence[str] = ()
    cells: Sequence[Sequence[str]] = ()
    notes: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    commands: str = ""


def _table(name: str, table: Table, rows: Sequence[Row]) -> Section:
    """Return a table with its notes, its figures and the commands that repeat it."""
    lines = table.lines(rows)
    if not lines:
        return Section(name, missing=render(table, rows))
    chosen = [row for line in lines for row in line]
    return Section(name, "", *grid(table, lines), notes=[*comparisons(table, lines), *conditions(table, chosen)],
                   pictures=list(of_table(name, table, rows)),
                   commands="\n".join(dict.fromkeys(row.command for row in chosen)))


def _study(name: str, study: StudyResult | None) -> Section:
    """Return a study's claims with their conditions, its figure and the command that repeats it."""
    if study is None:
        return Section(f"study_{name}", missing=findings.render(name, None))
    head, *cells = findings.claims(study)
    return Section(f"study_{name}", "", head, cells, notes=[findings.conditions(study)],
                   pictures=[of_study(name, study)], commands=findings.command(name, study))


def _map(name: str, maps: AttentionMaps, runs: Mapping[str, str]) -> dict[str, Any]:
    """Return a sentence pair, the run that translated it, and its attention. runs: names of rows by config hash"""
    source, target = ("".join(side[:-1]) for side in (maps.source, maps.target))
    run = runs.get(maps.config_sha256)
    return {"title": f"{maps.system}, seed {maps.seed}: {source}", "translation": target,
            "run": f"row {run} of the ledger" if run else "a run that is not in the ledger",
            "pictures": list(of_maps(name, maps))}


def _write(path: Path, content: bytes) -> None:
    """Write a file unless it is there with this content, and say which."""
    try:
        same = path.is_file() and path.read_bytes() == content
        if not same:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}", Exit.STORAGE) from error
    print(f"{path}: {'is up to date' if same else 'written'}")
