"""One HTML page of what was measured: of the ledger, or of one's own runs. Tables, figures, conditions and commands.

The page embeds its figures as SVG, needs no network and runs no script; the same runs give the same bytes. Attention
maps are read from the ledger's folder `attention`, and the results of studies from `studies`.
"""

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from minitx.evaluation.attention_maps import AttentionMaps, read_all
from minitx.experiments.reports import findings, front, headings, results
from minitx.experiments.reports.evidence import gather
from minitx.experiments.reports.figures import (
    LOOKS,
    attention_map,
    bleu_over_length,
    bleu_over_time,
    group_systems,
    in_words,
    time_split,
)
from minitx.experiments.reports.findings import StudyResult
from minitx.experiments.reports.results import Row
from minitx.experiments.reports.study_plots import FIGURES, FURTHER
from minitx.experiments.reports.tables import TABLES, Table, comparisons, conditions, grid, render, scores_first
from minitx.utils.console import Console
from minitx.utils.errors import Exit, UserError
from minitx.utils.files import write_atomically
from minitx.utils.progress import Progress

TITLE = "minitx: what was measured"
NO_MAPS = "No attention maps yet: `minitx attention RUN \"A sentence.\" -o results/attention/NAME.json` puts one here."
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


@dataclass(frozen=True)
class Part:
    """Figures with a heading of their own, and a sentence below it."""

    heading: str
    about: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Section:
    """What a section of the page shows, or how to make it where it is missing; `this` in a text is code.

    about: the sentence below its table, or, where it has none, below its heading. notes: the conditions
    """

    name: str
    heading: str
    about: str = ""
    missing: str = ""
    head: Sequence[str] = ()
    cells: Sequence[Sequence[str]] = ()
    comparisons: Sequence[str] = ()
    notes: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    parts: Sequence[Part] = ()
    commands: str = ""

    @property
    def all_pictures(self) -> list[Picture]:
        """Return its figures, and those of its parts."""
        return [*self.pictures, *(picture for part in self.parts for picture in part.pictures)]


def write_page(ledger: Path, page: Path | None, figures: Path | None = None, console: Console | None = None) -> None:
    """Write a ledger's page, and each of its figures as PNG into a folder; all is drawn before anything is written.

    Errors: `UserError` for a ledger that is missing or empty, a file that cannot be read or written, and where
    something is drawn without matplotlib.
    """
    console = console or Console()
    shown = results.read_rows(ledger), read_all(ledger / "attention"), findings.read_studies(ledger / "studies")
    files = {} if page is None else {page: html(*shown, console=console)}
    if figures is not None:
        files |= drawn(list(pictures(*shown)), figures, console)
    write_files(files, console)


def drawn(figures: Sequence[Picture], folder: Path, console: Console) -> dict[Path, bytes]:
    """Draw figures as PNG. --> by the file that each is for"""
    progress, files = Progress(console, len(figures)), dict[Path, bytes]()
    for picture in figures:
        files[folder / f"{picture.name}.png"] = picture.draw(form="png")
        progress(f"drawn {picture.name}.png")
    return files


def write_files(files: Mapping[Path, bytes], console: Console) -> None:
    """Write files unless they are there with this content, and say which. Errors: `UserError` (`Exit.STORAGE`)"""
    console.clear()
    for path, content in files.items():
        _write(path, content)


# --- of the ledger


def html(rows: Sequence[Row], maps: Mapping[str, AttentionMaps], studies: Mapping[str, StudyResult],
         console: Console | None = None) -> bytes:
    """Make the page of these rows, whatever their order, and of attention maps and studies by name."""
    console = console or Console()
    sections = list[Section]()
    for name, table in TABLES.items():
        console.live(f"computing the table {name} ...")
        sections.append(_table(name, table, rows))
    runs = {row.result.config_sha256: row.name for row in rows}
    parts = [_map(name, of_name, runs) for name, of_name in maps.items()]
    sections.append(Section("attention", "Attention", missing="" if parts else NO_MAPS, parts=parts,
                            about="How much of each token a head takes in: each row adds up to 1."))
    sections += [_study(name, studies.get(name)) for name in FIGURES]
    about = (f"Made by `minitx report` of {len(rows):,} published {'run' if len(rows) == 1 else 'runs'}, each of them "
             "a file of the ledger.")
    return rendered(TITLE, about, sections, console)


def rendered(title: str, about: str, sections: Sequence[Section], console: Console) -> bytes:
    """Draw all figures, and make the page."""
    shown = [picture for section in sections for picture in section.all_pictures]
    uris, progress = dict[str, str](), Progress(console, len(shown))
    for picture in shown:
        uris[picture.name] = picture.data_uri
        progress(f"drawn {picture.name}")
    return ENVIRONMENT.get_template("page.html").render(
        title=title, about=about, sections=sections, uris=uris).encode()


def pictures(rows: Sequence[Row], maps: Mapping[str, AttentionMaps],
             studies: Mapping[str, StudyResult]) -> Iterator[Picture]:
    """Yield README's picture, wide and narrow, if all of it was measured, and every figure of a ledger's page."""
    if (evidence := gather(rows, studies)) is not None:
        for name, draw in (("front", front.draw), ("front-narrow", front.draw_narrow)):
            yield Picture(name, front.CAPTION, front.describe(evidence), partial(draw, evidence))
    for name, table in TABLES.items():
        yield from of_table(name, table, rows)
    for name, of_name in maps.items():
        yield from of_maps(name, of_name)
    for name, study in studies.items():
        yield from of_study(name, study)


def of_table(name: str, table: Table, rows: Sequence[Row]) -> Iterator[Picture]:
    """Yield a table's figures, unless a table before it shows the same rows; those of times without disturbed ones."""
    chosen = [row for line in table.lines(rows) for row in line]
    first = next(known for known, other in TABLES.items() if other.experiments == table.experiments)
    if not chosen or name != first:
        return
    timed = [row for row in chosen if not row.result.disturbed]
    if timed:
        yield over_time(name, timed)
    scored = [score.test_set for score in table.scores.values() if score.key == "bleu"]
    sets = [test_set for test_set in scored if test_set.startswith("length_")] or scored[:1]
    yield from over_length(name, chosen, sets)
    if timed:
        yield over_parts(name, timed)


def over_time(name: str, rows: Sequence[Row]) -> Picture:
    """Return the figure of validation BLEU while these rows' runs were trained."""
    last = [f"{system} {max(bleu for row in seeds for *_, bleu in row.curve[-1:]):.1f}"
            for system, seeds in group_systems(rows).items() if any(row.curve for row in seeds)]
    return Picture(f"{name}-bleu-over-time", "BLEU on the validation set while training went on.",
                   f"A line for each system. BLEU at its end, of the best seed: {'; '.join(last)}.",
                   partial(bleu_over_time, rows))


def over_length(name: str, rows: Sequence[Row], test_sets: Sequence[str]) -> Iterator[Picture]:
    """Yield the figure of BLEU by length of the rows that have these test sets, if any has."""
    complete = [row for row in rows if all(row.sentences.get(test_set) for test_set in test_sets)]
    if test_sets and complete:
        yield Picture(f"{name}-bleu-over-length", f"BLEU of short and of long sentences ({in_words(test_sets)}).",
                      f"A line for each of {', '.join(group_systems(complete))}: BLEU by length, with 95 % intervals.",
                      partial(bleu_over_length, complete, test_sets))


def over_parts(name: str, rows: Sequence[Row]) -> Picture:
    """Return the figure of where the time of these rows' runs went."""
    spent = [f"{system} {sum(seeds[0].result.time_split.values()):,.0f} s"
             for system, seeds in group_systems(rows).items()]
    return Picture(f"{name}-time-split", "What the time of a run went to.",
                   f"A bar for each system, in parts. Whole length, of its first seed: {'; '.join(spent)}.",
                   partial(time_split, rows))


def of_maps(name: str, maps: AttentionMaps) -> Iterator[Picture]:
    """Yield a figure for each kind of attention, the most telling first."""
    for kind in (kind for kind in LOOKS if kind in maps.weights):
        layers, heads, L, S = maps.weights[kind].shape
        yield Picture(f"attention-{name}-{kind}", f"{maps.model}, {kind}: {LOOKS[kind]}.",
                      f"Heat maps of {layers} layers by {heads} heads, {L} by {S} tokens each: {LOOKS[kind]}.",
                      partial(attention_map, maps, [kind]))


def of_study(name: str, study: StudyResult) -> Iterator[Picture]:
    """Yield a study's figures, its own first."""
    did = f"What minitx study {name} {findings.verb(name)}"
    yield Picture(f"study-{name}", f"{did}. docs/studies.md says how to read it.",
                  f"Curves of {did[0].lower()}{did[1:]}. Its claims: {findings.tally(study)}.",
                  partial(FIGURES[name], study))
    for further, draw in FURTHER.get(name, {}).items():
        yield Picture(f"study-{name}-{further}", f"{did}: {further}.", f"{did}: a figure of {further}.",
                      partial(draw, study))


def _table(name: str, table: Table, rows: Sequence[Row]) -> Section:
    """Return a table with its notes, its figures and the commands that repeat it; scores are its first columns."""
    heading, lines = headings.TABLES[name], table.lines(rows)
    if not lines:
        return Section(name, *heading, missing=render(table, rows))
    chosen = [row for line in lines for row in line]
    return Section(name, *heading, "", *scores_first(*grid(table, lines)),
                   comparisons=list(comparisons(table, lines)), notes=conditions(table, chosen),
                   pictures=list(of_table(name, table, rows)),
                   commands="\n".join(dict.fromkeys(row.command for row in chosen)))


def _study(name: str, study: StudyResult | None) -> Section:
    """Return a study's claims with their conditions, its figure and the command that repeats it."""
    if study is None:
        return Section(f"study_{name}", *headings.STUDIES[name], missing=findings.render(name, None))
    head, *cells = findings.claims(study)
    return Section(f"study_{name}", *headings.STUDIES[name], "", head, cells, notes=[findings.conditions(study)],
                   pictures=list(of_study(name, study)), commands=findings.command(name, study))


def _map(name: str, maps: AttentionMaps, runs: Mapping[str, str]) -> Part:
    """Return a sentence pair, the run that translated it, and its attention. runs: names of rows by config hash"""
    source, target = ("".join(side[:-1]) for side in (maps.source, maps.target))
    run = runs.get(maps.config_sha256)
    whose = f"row {run} of the ledger" if run else "a run that is not in the ledger"
    return Part(f"{maps.system}, seed {maps.seed}: {source}", f"Read with the translation “{target}” by {whose}.",
                list(of_maps(name, maps)))


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
