"""What the pages say of keys, commands and results is all that the code has; the site builds, and needs no network."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import reference
from toys import ROOT

import minitx
from minitx.cli.main import COMMANDS
from minitx.config.compose import compose
from minitx.config.fields import flatten, keys, show
from minitx.config.schema import Config, as_dict
from minitx.experiments.studies.scan import PREDICTIONS
from minitx.runs import result
from minitx.utils.errors import MEANINGS, Exit

PAGES = sorted(ROOT.glob("docs/*.md"))
# Numbers without a unit: counts of what their name says, shares, rates and exponents.
PURE = {"seed", "data.seed", "data.clean.max_ratio", "data.recommends.lr", "data.recommends.dropout", "model.d_model",
        "model.dropout", "model.num_layers", "model.d_ff", "model.n_heads", "model.d_hidden", "optim.lr", "optim.beta1",
        "optim.beta2", "optim.eps", "optim.weight_decay", "optim.momentum", "optim.label_smoothing", "optim.clip_norm",
        "optim.decay_fraction", "optim.ema_decay", "decode.length_penalty", "decode.max_length_ratio"}


def cells(table: str) -> dict[str, list[str]]:
    """Return a table's rows by the name in their first cell."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines() if line.startswith("| `")]
    return {row[0].strip(" `"): [cell.strip() for cell in row[1:]] for row in rows}


def test_every_key_of_a_config_is_listed_with_its_default() -> None:
    text, specs = reference.config_keys(), keys(Config)
    listed = cells(text)
    assert listed.keys() == {name for name in specs if not name.startswith("choices.")}
    now = flatten(as_dict(compose([])))
    for name, (default, values, meaning) in listed.items():
        assert values
        assert meaning
        if name in now and not default.startswith("as `"):
            written = default.strip("`")
            assert written == show(now[name]) or float(written) == now[name], name
    assert listed["model.attention"][0] == "`none`", "of the family that has it"
    assert listed["optim.lr"] == ["as `data.recommends.lr`", "number > 0", "peak learning rate of AdamW"]
    assert listed["trainer.max_minutes"][1] == "number > 0, minutes; or null"


def test_every_number_has_its_unit_or_needs_none() -> None:
    numbers = {name for name, spec in keys(Config).items() if spec["type"] in (int, float) and not spec["unit"]}
    assert numbers == PURE


def test_every_command_and_argument_is_listed() -> None:
    text = reference.commands()
    assert re.findall(r"^## minitx (.*)$", text, flags=re.MULTILINE) == list(COMMANDS)
    for words in ("`--beam-size K`", "`--src FILE`", "### bench step", "`--json`", "`RUN`"):
        assert words in text
    assert "--help" not in text
    assert "%(" not in text


def test_every_key_of_a_result_has_a_type_and_a_meaning() -> None:
    for record in (result.Result, result.TestScore):
        listed = cells(reference.record(record))
        assert list(listed) == list(record.__annotations__)
        assert all(kind and meaning for kind, meaning in listed.values())
    listed = cells(reference.record(result.Result))
    assert (listed["steps"][0], listed["valid_loss"][0], listed["test"][0], listed["averaged_steps"][0]) == (
        "whole number", "number or null", "mapping", "list or null")


def test_every_exit_code_has_a_meaning() -> None:
    assert MEANINGS.keys() == set(Exit)
    assert re.findall(r"^\| (\d+) \|", reference.exit_codes(), flags=re.MULTILINE) == [str(int(code)) for code in Exit]


def test_every_option_is_listed_and_what_a_data_set_recommends() -> None:
    text = reference.groups()
    options = [path for path in reference.CONF.glob("*/*.yaml") if path.parent.name != "suite"]
    assert all(f"`{path.parent.name}={path.stem}`" in text for path in options)
    assert "`data=synthetic` (default)" in text
    recommended = cells(reference.recommended())
    assert recommended["multi30k"][0] == compose(["data=multi30k"]).data.recommends.model_size
    assert "1,024" in reference.model_sizes()


def test_the_scan_that_is_worked_out_ends_with_the_states_of_its_recurrence() -> None:
    _, _, given, *rounds, last = ([cell.strip() for cell in line.strip("|").split("|")] for line in
                                  reference.scan_rounds().splitlines())
    assert given[1:] == [f"h/2 + {x}" for x in reference.INPUTS]
    h, states = 0.0, list[float]()
    for x in reference.INPUTS:
        h = 0.5 * h + x
        states.append(h)
    assert len(rounds) == 3
    assert rounds[-1][1:] == [f"h/{2**t} + {state:g}" for t, state in enumerate(states, 1)]
    assert last[1:] == [f"{state:g}" for state in states]


def test_what_is_predicted_of_a_gpu_is_what_a_gpu_will_be_held_against() -> None:
    listed = reference.scan_on_gpu().splitlines()[2:]
    assert [line.split(" | ")[0].removeprefix("| ") for line in listed] == [
        each.figure for each in PREDICTIONS["cuda"]]


def test_links_are_those_that_hold_in_docs() -> None:
    readme = "[a](docs/story.md#x) [b](ARCHITECTURE.md) [c](conf/train.yaml) [d](https://e.org/f) [g](#h)"
    assert reference.relink(readme, ROOT) == (
        "[a](story.md#x) [b](architecture.md) [c](../conf/train.yaml) [d](https://e.org/f) [g](#h)")
    assert reference.relink("[a](../README.md) [b](ranks.md)", ROOT / "docs") == "[a](index.md) [b](ranks.md)"
    assert reference.relink('<source srcset="docs/figures/a.png"><img alt="b" src="docs/figures/c.png">', ROOT) == (
        '<source srcset="_static/a.png"><img alt="b" src="_static/c.png">')


def test_an_argument_that_holds_a_bar_stays_in_its_cell() -> None:
    assert "| `FOLDER \\| KEY=VALUE` | where to look" in reference.commands()


def test_a_usage_is_wrapped_between_its_options() -> None:
    lines = [line for block in re.findall(r"```text\n(.*?)```", reference.commands(), flags=re.DOTALL)
             for line in block.splitlines()]
    assert max(map(len, lines)) <= reference.WIDTH
    assert all(line.count("[") == line.count("]") for line in lines)
    assert any(line.startswith("    [") for line in lines), "one at least is long"


def test_all_that_an_import_brings_is_described_with_its_errors_and_examples() -> None:
    text = reference.api()
    for name in set(minitx.__all__) - {"__version__"}:
        assert f"### minitx.{name}\n" in text
    for method in ("minitx.Run.read", "minitx.Run.records", "Translator.translate", "Translator.n_best"):
        assert f"#### {method}\n\n```text\n{method}(" in text
    assert "\nErrors: `UserError`" in text
    assert text.count("```pycon\n>>> ") == 4
    assert "\nminitx.compose(overrides: Sequence[str] = ()) -> Config\n" in text
    assert "\n    *,\n    beam_size: int | None = None,\n" in text, "by name alone"
    assert not re.search(r"\bself\b|_checked|_search", text)


# --- on the pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_what_the_code_makes_of_it(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert reference.renew(text) == text, "run: python docs/reference.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_part_that_a_page_asks_for_is_made(page: Path) -> None:
    assert not reference.MARKER.search(reference.fill(page.read_text(encoding="utf-8")))


def test_a_part_is_renewed_and_what_is_for_readers_without_the_site_is_not() -> None:
    page = ("a\n<!-- make: exit-codes -->\nold\n<!-- /make -->\nb\n<!-- site: page CHANGELOG.md -->\n"
            "see there\n<!-- /site -->\n")
    renewed = reference.renew(page)
    assert renewed == page.replace("old", reference.exit_codes())
    assert reference.renew(renewed) == renewed
    assert reference.fill(page) == f"a\n{reference.exit_codes()}\nb\n{reference.adopt('CHANGELOG.md')}\n"


@pytest.mark.parametrize("page", [
    "a\n<!-- make: exit-codes -->\n", "a\n<!-- /make -->\n", "a\n<!-- make: exit-codes -->\n<!-- /site -->\n"])
def test_a_marker_without_its_other_half_is_refused(page: str) -> None:
    for use in (reference.renew, reference.fill):
        with pytest.raises(ValueError, match=r"line 2: <!-- .*: this marker has no other half"):
            use(page)


def test_pages_that_are_out_of_date_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(reference, "ROOT", tmp_path)
    monkeypatch.setattr(reference, "DOCS", tmp_path)
    (tmp_path / "page.md").write_text("<!-- make: exit-codes -->\n<!-- /make -->\n", encoding="utf-8")
    (tmp_path / "other.md").write_text("no part here\n", encoding="utf-8")
    reference.write()
    assert capsys.readouterr().out == "page.md: written from the code\n"
    assert "| 130 | Ctrl-C" in (tmp_path / "page.md").read_text(encoding="utf-8")
    reference.write()
    assert not capsys.readouterr().out


# --- the site


class Requests(HTMLParser):
    """Collect what a browser would fetch to show a page, and the links that lead elsewhere."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.images_without_words: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source"):
            self.fetched += [str(given[name]) for name in ("src", "srcset") if given.get(name)]
        if tag == "link" and given.get("href"):
            self.fetched.append(str(given["href"]))
        if tag == "img" and not given.get("alt"):
            self.images_without_words.append(str(given.get("src")))


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", str(ROOT / "docs"),
                           str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = {path.stem for path in tmp_path.glob("*.html")}
    assert built >= {page.stem for page in PAGES}
    for page in tmp_path.glob("*.html"):
        read = Requests(page)
        assert not [link for link in read.fetched if re.match(r"(https?:)?//", link)], page.name
        assert not [link for link in read.fetched if not (page.parent / link.partition("?")[0]).is_file()
                    and not link.startswith(("#", "data:"))], page.name
        assert not read.images_without_words, page.name
    for sheet in tmp_path.rglob("*.css"):
        assert not re.findall(r"url\([\"']?(?:https?:)?//|@import", sheet.read_text(encoding="utf-8")), sheet.name
    assert "<math" in (tmp_path / "studies.html").read_text(encoding="utf-8")
