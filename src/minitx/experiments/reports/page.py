"""The report as one HTML page: tables, figures, conditions and commands, of the ledger and of nothing else.

The page holds all that it shows (figures as SVG), asks no network and runs no script; the same ledger gives the same
bytes. Attention maps are the files of the ledger's folder `attention`, what studies found those of `studies`.
"""

import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import NamedTuple

from minitx.evaluation.attention_maps import AttentionMaps, read_all
from minitx.experiments.reports import findings
from minitx.experiments.reports import results as ledgers
from minitx.experiments.reports.figures import attention_map, bleu_over_length, bleu_over_time, systems, time_split
from minitx.experiments.reports.findings import Found
from minitx.experiments.reports.results import Row
from minitx.experiments.reports.study_plots import FIGURES
from minitx.experiments.reports.tables import TABLES, Table, conditions, grid, neighbours, render
from minitx.utils.errors import Exit, UserError
from minitx.utils.files import write_atomically

TITLE = "minitx: what was measured"
LOOKS = {"encoder": "the source's tokens look at each other", "cross": "the translation's tokens look at the source",
         "decoder": "the translation's tokens look at those before them"}
STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --faint: #ddd; --link: #0058a3 }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --paper: #16181c; --faint: #444; --link: #7cb8f0 } }
body { max-width: 60rem; margin: 0 auto; padding: 1rem; color: var(--ink); background: var(--paper);
       font: 1rem/1.5 system-ui, sans-serif }
a { color: var(--link) }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1rem; padding: 0; list-style: none }
section { margin-top: 2.5rem; border-top: 1px solid var(--faint) }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--faint); text-align: right }
th:first-child { text-align: left }
thead th { white-space: normal; vertical-align: bottom }
figure { margin: 1.5rem 0 }
img { max-width: 100%; height: auto; background: #fff }
figcaption { font-size: .9rem }
pre { overflow-x: auto; padding: .7rem; border: 1px solid var(--faint) }
code { overflow-wrap: anywhere }
"""


class Picture(NamedTuple):
    """Say what a figure shows, and how it is drawn."""

    name: str  # of its file, without .png
    caption: str
    seen: str  # what it says, to those who do not see it
    draw: Callable[..., bytes]  # form="svg" or "png"


def main(ledger: Path, page: Path | None, figures: Path | None = None) -> None:
    """Write the page, and each of its figures as PNG into a folder; all is drawn before anything is written.

    Errors: `UserError` for a ledger that is missing or empty, a file that cannot be read or written, and where
    something is drawn without matplotlib.
    """
    shown = ledgers.read(ledger), read_all(ledger / "attention"), findings.read_all(ledger / "studies")
    files = {} if page is None else {page: html(*shown)}
    if figures is not None:
        files |= {figures / f"{picture.name}.png": picture.draw(form="png") for picture in pictures(*shown)}
    for path, content in files.items():
        _put(path, content)


def html(rows: Sequence[Row], maps: Mapping[str, AttentionMaps], studies: Mapping[str, Found]) -> bytes:
    """Make the page of these rows, whatever their order, of these attention maps and what was found, by name."""
    sections = {name: _table(name, table, rows) for name, table in TABLES.items()}
    sections["attention"] = _attention(rows, maps)
    sections |= {f"study_{name}": _study(name, studies.get(name)) for name in FIGURES}
    links = "".join(f'<li><a href="#{name}">{_heading(name)}</a></li>\n' for name in sections)
    parts = [f'<section id="{name}" aria-labelledby="{name}-heading">\n<h2 id="{name}-heading">{_heading(name)}</h2>\n'
             f"{content}</section>\n" for name, content in sections.items()]
    return "".join([
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
        f'<title>{TITLE}</title>\n<link rel="icon" href="data:,">\n<style>{STYLE}</style>\n</head>\n<body>\n',
        f"<header>\n<h1>{TITLE}</h1>\n<p>Made by <code>minitx report</code> of {len(rows):,} published "
        f'{"run" if len(rows) == 1 else "runs"}, each of them a file of the ledger.</p>\n</header>\n',
        f'<nav aria-label="Contents">\n<ul>\n{links}</ul>\n</nav>\n<main>\n', *parts, "</main>\n</body>\n</html>\n",
    ]).encode()


# --- what is shown


def pictures(rows: Sequence[Row], maps: Mapping[str, AttentionMaps], studies: Mapping[str, Found]) -> Iterator[Picture]:
    """Yield every figure of the page."""
    for name, table in TABLES.items():
        yield from of_table(name, table, rows)
    for name, found in maps.items():
        yield from of_maps(name, found)
    for study, measured in studies.items():
        yield of_study(study, measured)


def of_table(name: str, table: Table, rows: Sequence[Row]) -> Iterator[Picture]:
    """Yield a table's figures, unless a table before it shows the same rows."""
    chosen = [row for line in table.lines(rows) for row in line]
    first = next(known for known, other in TABLES.items() if other.experiments == table.experiments)
    if not chosen or name != first:
        return
    last = [f"{system} {max(bleu for row in seeds for *_, bleu in row.curve[-1:]):.1f}"
            for system, seeds in systems(chosen).items() if any(row.curve for row in seeds)]
    yield Picture(f"{name}-bleu-over-time", "BLEU on the validation set while training went on.",
                  f"A line for each system. BLEU at its end, of the best seed: {'; '.join(last)}.",
                  partial(bleu_over_time, chosen))
    scored = [score.test_set for score in table.scores.values() if score.key == "bleu"]
    sets = [test_set for test_set in scored if test_set.startswith("length_")] or scored[:1]
    having = [row for row in chosen if all(row.sentences.get(test_set) for test_set in sets)]
    if sets and having:
        yield Picture(f"{name}-bleu-over-length", f"BLEU of short and of long sentences ({', '.join(sets)}).",
                      f"A line for each of {', '.join(systems(having))}: BLEU by length, with 95 % intervals.",
                      partial(bleu_over_length, having, sets))
    spent = [f"{system} {sum(seeds[0].result.time_split.values()):,.0f} s"
             for system, seeds in systems(chosen).items()]
    yield Picture(f"{name}-time-split", "What the time of a run went to.",
                  f"A bar for each system, in parts. Whole length, of its first seed: {'; '.join(spent)}.",
                  partial(time_split, chosen))


def of_maps(name: str, maps: AttentionMaps) -> Iterator[Picture]:
    """Yield a figure for each kind of attention."""
    for kind, parts in maps.weights.items():
        layers, heads, looking, seen = parts.shape
        yield Picture(f"attention-{name}-{kind}", f"{maps.model}, {kind}: {LOOKS[kind]}.",
                      f"Heat maps of {layers} layers by {heads} heads, {looking} by {seen} tokens each: {LOOKS[kind]}.",
                      partial(attention_map, maps, [kind]))


def of_study(name: str, found: Found) -> Picture:
    """Return a study's figure."""
    return Picture(f"study-{name}", f"What minitx study {name} measured. docs/studies.md says how to read it.",
                   f"Curves of what minitx study {name} measured. Its claims: {findings.tally(found)}.",
                   partial(FIGURES[name], found))


# --- as HTML


def _table(name: str, table: Table, rows: Sequence[Row]) -> str:
    """Write a table, what is to be said of it, its figures and the commands that repeat it."""
    lines = table.lines(rows)
    if not lines:
        return f"<p>{_inline(render(table, rows))}</p>\n"
    chosen = [row for line in lines for row in line]
    head, cells = grid(table, lines)
    notes = "".join(f"<li>{_inline(text)}</li>\n" for text in (*neighbours(table, lines), *conditions(table, chosen)))
    figures = "".join(map(_figure, of_table(name, table, rows)))
    commands = escape("\n".join(dict.fromkeys(row.command for row in chosen)))
    return f"{_grid(name, head, cells)}<ul>\n{notes}</ul>\n{figures}<p>Again:</p>\n<pre>{commands}</pre>\n"


def _study(name: str, found: Found | None) -> str:
    """Write a study's claims, on what it was measured, its figure and the command that repeats it."""
    if found is None:
        return f"<p>{_inline(findings.render(name, None))}</p>\n"
    head, *cells = findings.claims(found)
    table = _grid(f"study_{name}", head, cells)
    return (f"{table}<p>{escape(findings.conditions(found))}</p>\n"
            f"{_figure(of_study(name, found))}<p>Again:</p>\n<pre>{escape(findings.command(name, found))}</pre>\n")


def _grid(name: str, head: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Write a table that may be wider than the page."""
    return (f'<div class="wide" role="region" tabindex="0" aria-label="{_heading(name)}: table">\n<table>\n<thead>\n'
            f"{_row(head, 'col')}</thead>\n<tbody>\n{''.join(_row(line, 'row') for line in cells)}</tbody>\n</table>\n"
            "</div>\n")


def _row(cells: Sequence[str], scope: str) -> str:
    """Write a line of cells: all are headers of columns, or the first is the header of its row."""
    heads = len(cells) if scope == "col" else 1
    marked = [f'<th scope="{scope}">{escape(text)}</th>' for text in cells[:heads]]
    return f"<tr>{''.join([*marked, *(f'<td>{escape(text)}</td>' for text in cells[heads:])])}</tr>\n"


def _attention(rows: Sequence[Row], maps: Mapping[str, AttentionMaps]) -> str:
    """Write each sentence pair, whose it is, and what was looked at."""
    if not maps:
        return ("<p>No attention maps yet: <code>minitx attention RUN &quot;A sentence.&quot; "
                "-o results/attention/NAME.json</code> puts one here.</p>\n")
    known = {row.result.config_sha256: row.name for row in rows}
    written = []
    for name, found in maps.items():
        source, target = ("".join(side[:-1]) for side in (found.source, found.target))
        run = known.get(found.config_sha256)
        whose = f"row {escape(run)} of the ledger" if run else "a run that is not in the ledger"
        written.append(f"<h3>{escape(found.system)}, seed {found.seed}: {escape(source)}</h3>\n"
                       f"<p>Read with the translation “{escape(target)}” by {whose}. Each row adds up to 1.</p>\n"
                       f"{''.join(map(_figure, of_maps(name, found)))}")
    return "".join(written)


def _figure(picture: Picture) -> str:
    """Embed a figure as a document of its own: nothing in it can clash with the page or with another figure."""
    data = b64encode(picture.draw(form="svg")).decode()
    return (f'<figure>\n<img alt="{escape(picture.seen)}" src="data:image/svg+xml;base64,{data}">\n'
            f"<figcaption>{escape(picture.caption)}</figcaption>\n</figure>\n")


def _heading(name: str) -> str:
    return escape(name.replace("_", " ").capitalize())


def _inline(text: str) -> str:
    """Write text in which `this` is code."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(text))


def _put(path: Path, content: bytes) -> None:
    """Write a file where it is not there already, and say so."""
    try:
        same = path.is_file() and path.read_bytes() == content
        if not same:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}", Exit.STORAGE) from error
    print(f"{path}: {'is up to date' if same else 'written'}")
