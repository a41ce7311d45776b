"""The report page: one file that needs no other, the same for the same ledger, safe whatever a row says."""

import json
import re
import sys
import tomllib
from base64 import b64decode
from collections import Counter
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import numpy as np
import pytest
from evaluation.test_attention import made
from experiments.reports.test_findings import found
from experiments.reports.test_study_plots import FOUND
from published import write_run
from toys import ROOT

from minitx.evaluation.attention_maps import EOS, SCALE
from minitx.experiments.reports import headings, page
from minitx.experiments.reports.plots import FORMS
from minitx.experiments.reports.results import Row, make_row, write_row
from minitx.experiments.reports.study_plots import FIGURES
from minitx.experiments.reports.tables import TABLES, conditions, grid, scores_first
from minitx.utils.errors import Exit, UserError

VOID = {"meta", "link", "img"}
STUDIES = {"gradients": found("gradients", True, False) | FOUND["gradients"]}


class Reader(HTMLParser):
    """Read a page as a browser would, and see that each element is closed where it should be."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(content.decode())
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.texts.setdefault(tag, []).append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[self.open[-1]][-1] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Rows of two tables."""
    folder = tmp_path_factory.mktemp("runs")
    return [make_row(write_run(folder / "a", "synthetic_lstm")),
            make_row(write_run(folder / "b", "synthetic_transformer")),
            make_row(write_run(folder / "c", "multi30k_30min_transformer", git_dirty=True))]


@pytest.fixture(scope="module")
def content(rows: list[Row]) -> bytes:
    return page.html(rows, {"pair": made()}, STUDIES)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a page be made without drawing: for tests of its text."""
    monkeypatch.setattr(page.Picture, "data_uri", "data:,")


def test_it_is_one_well_made_page_that_needs_nothing_else(content: bytes) -> None:
    read = Reader(content)
    assert content.startswith(b"<!doctype html>\n")
    assert read.all("html") == [{"lang": "en"}]
    assert read.texts["title"] == read.texts["h1"] == [page.TITLE]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in read.all("meta")
    assert not {tag for tag, _ in read.elements} & {"script", "iframe", "object", "embed", "form", "video"}
    for tag, attributes in read.elements:
        assert not any(name.startswith("on") for name in attributes), tag
        for link in (attributes.get("href", "#"), attributes.get("src", "#")):
            assert link.startswith(("#", "data:")), tag
    assert "url(" not in read.texts["style"][0]
    assert "@import" not in read.texts["style"][0]


def test_who_does_not_see_can_read_it(content: bytes) -> None:
    read = Reader(content)
    ids = Counter(attributes["id"] for _, attributes in read.elements if "id" in attributes)
    assert set(ids.values()) == {1}
    assert [attributes["href"] for attributes in read.all("a")] == [f"#{name}" for name in (
        *TABLES, "attention", *(f"study_{name}" for name in FIGURES))]
    assert all(attributes["aria-labelledby"] in ids and attributes["id"] in ids for attributes in read.all("section"))
    assert {attributes["scope"] for attributes in read.all("th")} == {"row", "col"}
    assert len(read.all("img")) == 3 + 3 + 3 + 1
    assert all(len(attributes["alt"]) > 20 for attributes in read.all("img"))
    assert len(read.all("figcaption")) == len(read.all("img"))


def test_each_picture_is_a_document_of_its_own(content: bytes) -> None:
    for attributes in Reader(content).all("img"):
        kind, _, data = attributes["src"].partition(",")
        assert kind == "data:image/svg+xml;base64"
        picture = ElementTree.fromstring(b64decode(data))
        links = [value for part in picture.iter() for name, value in part.attrib.items() if name.endswith("href")]
        assert all(link.startswith(("#", "data:")) for link in links)


def test_tables_have_the_cells_conditions_and_commands_of_readme_s(content: bytes, rows: list[Row]) -> None:
    read = Reader(content)
    for name in ("embedded", "multi30k"):
        table = TABLES[name]
        head, cells = grid(table, table.lines(rows))
        for line in (head, *cells):
            assert set(line) <= {*read.texts["th"], *read.texts["td"]}
    assert "transformer†" in read.texts["td"]
    said = re.sub("</?code>", "`", content.decode())
    for condition in conditions(TABLES["embedded"], rows[:2]):
        assert f"<li>{escape(condition)}</li>" in said
    assert read.texts["pre"] == [
        "python train.py experiment=synthetic_lstm\npython train.py experiment=synthetic_transformer",
        "python train.py experiment=multi30k_30min_transformer",
        "minitx study gradients --seed 3 -o results/studies/gradients.json"]
    assert {"holds", "does not hold"} <= {*read.texts["td"]}


@pytest.mark.usefixtures("undrawn")
def test_any_order_of_rows_gives_the_same_page(rows: list[Row]) -> None:
    expected = page.html(rows, {"pair": made()}, STUDIES)
    for seed in range(3):
        assert page.html(Random(seed).sample(rows, len(rows)), {"pair": made()}, STUDIES) == expected


def test_the_page_of_a_ledger_is_that_of_its_rows_figures_and_all(content: bytes, rows: list[Row],
                                                                 tmp_path: Path) -> None:
    assert [row.name for row in rows] != sorted(row.name for row in rows), "the ledger has them in another order"
    for row in rows:
        write_row(row, tmp_path / "ledger")
    (tmp_path / "ledger/attention").mkdir()
    (tmp_path / "ledger/attention/pair.json").write_text(made().json(), encoding="utf-8")
    (tmp_path / "ledger/studies").mkdir()
    (tmp_path / "ledger/studies/gradients.json").write_text(json.dumps(STUDIES["gradients"]), encoding="utf-8")
    page.write_page(tmp_path / "ledger", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == content


def test_what_the_package_reads_is_shipped_with_it() -> None:
    """Such as the page's template: whoever installs a wheel has it."""
    globs = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["minitx"]
    package = ROOT / "src/minitx"
    shipped = {path for pattern in globs for path in package.glob(pattern)}
    assert {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")} == shipped


def test_what_a_row_says_is_text(rows: list[Row]) -> None:
    evil = "<script>alert('&')</script>"
    row = rows[0]
    written = replace(row, command=f"{row.command} '{evil}'", result=replace(
        row.result, model=evil, hardware={"cpu": evil, "cores": 2}))
    maps = made(model=f"{evil}\"", source=[evil, EOS], weights={"cross": np.full((1, 1, 5, 2), SCALE // 2)})
    assert maps.fault() is None
    content = page.html([written], {"pair": maps}, {})
    read = Reader(content)
    assert b"<script" not in content
    assert evil in read.texts["th"]
    assert any(evil in text for text in read.texts["li"])
    assert any(evil in attributes["alt"] for attributes in read.all("img"))
    assert evil in read.texts["pre"][0]


def test_a_page_without_rows_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # nothing to draw: nothing is missing
    content = page.html([], {}, {})
    read = Reader(content)
    assert not read.all("img")
    assert content.decode().count("No rows yet: <code>") == len(TABLES)
    assert "minitx attention RUN \"A sentence.\" -o results/attention/NAME.json" in read.texts["code"]


@pytest.mark.usefixtures("undrawn")
def test_maps_say_whose_they_are(rows: list[Row]) -> None:
    maps = made(config_sha256=rows[1].result.config_sha256)
    assert f"by row {rows[1].name} of the ledger" in page.html(rows, {"a": maps}, {}).decode()
    content = page.html([], {"a": maps}, {}).decode()
    assert "The dog sleeps." in content
    assert "“Der Hund schläft.” by a run that is not in the ledger" in content


def test_the_same_rows_are_drawn_once(rows: list[Row]) -> None:
    twice = replace(rows[0], result=replace(rows[0].result, experiment="positions_short"))
    assert [picture.name for picture in page.pictures([twice], {}, {})] == [
        f"positions_short-{what}" for what in ("bleu-over-time", "time-split")]


@pytest.mark.usefixtures("undrawn")
def test_files_are_written_once(rows: list[Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_row(rows[0], tmp_path / "ledger")
    where = tmp_path / "ledger", tmp_path / "out/report.html", tmp_path / "out/figures"
    page.write_page(*where)
    assert capsys.readouterr().out.count(": written\n") == 4
    pictures = sorted(path.name for path in where[2].iterdir())
    assert pictures == [f"embedded-{what}.png" for what in ("bleu-over-length", "bleu-over-time", "time-split")]
    assert where[1].read_bytes() == page.html([rows[0]], {}, {})
    page.write_page(*where)
    assert capsys.readouterr().out.count(": is up to date\n") == 4
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/report\.html: cannot be written: File exists") as slip:
        page.write_page(where[0], tmp_path / "file/report.html")
    assert slip.value.code == Exit.STORAGE


@pytest.mark.usefixtures("undrawn")
def test_where_one_figure_cannot_be_drawn_nothing_is_written(rows: list[Row], tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(figure: object) -> bytes:
        raise UserError("no PNG today")

    write_row(rows[0], tmp_path / "ledger")
    monkeypatch.setitem(FORMS, "png", fail)
    with pytest.raises(UserError, match="no PNG today"):
        page.write_page(tmp_path / "ledger", tmp_path / "page.html", tmp_path / "figures")
    assert [path.name for path in tmp_path.iterdir()] == ["ledger"]


def test_without_matplotlib_one_line_says_how_to_install_it(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"pip install -c constraints.txt -e '\.\[report\]'$"):
        page.html(rows, {}, {})


def test_each_section_has_a_heading_and_a_sentence_in_words(content: bytes) -> None:
    assert headings.TABLES.keys() == TABLES.keys()
    assert headings.STUDIES.keys() == FIGURES.keys()
    read = Reader(content)
    shown = [*(heading.title for heading in headings.TABLES.values()), "Attention",
             *(heading.title for heading in headings.STUDIES.values())]
    assert read.texts["h2"] == shown
    assert len(set(shown)) == len(shown)
    said = [text.strip() for text in read.texts["p"]]
    for name in ("embedded", "multi30k"):
        assert headings.TABLES[name].about in said
    assert headings.STUDIES["gradients"].about in said


def test_scores_stand_behind_the_model_where_a_narrow_screen_shows_them(rows: list[Row]) -> None:
    head, cells = grid(TABLES["embedded"], TABLES["embedded"].lines(rows))
    first, lines = scores_first(head, cells)
    assert first == ["model", "test BLEU", "roles right", "dictionary BLEU", "parameters", "steps", "training",
                     "target tokens/s"]
    assert [sorted(line) for line in lines] == [sorted(line) for line in cells]
    assert lines[0][first.index("steps")] == cells[0][head.index("steps")]
