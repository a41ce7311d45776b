"""The tables of README and docs/ are those of the ledger: each number has its row, each row its run and its command."""

import random
import re
import shlex
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from published import write_run
from toys import ROOT

from minitx.cli import main as cli
from minitx.config.compose import CONF, compose
from minitx.evaluation.attention_maps import read_all
from minitx.evaluation.metrics import bleu_from_sentences
from minitx.experiments.reports import constants, findings, markdown, predictions
from minitx.experiments.reports.markdown import make_blocks
from minitx.experiments.reports.page import pictures
from minitx.experiments.reports.results import MAX_BYTES, Row, make_row, read_rows, write_row
from minitx.experiments.reports.tables import COLUMNS, TABLES, render
from minitx.utils.errors import Exit, UserError

LEDGER = ROOT / "results"
PATH = ROOT / "README.md"
PAGES = [PATH, *sorted(ROOT.glob("docs/*.md"))]
BLOCKS = re.findall(r"<!-- report: .*?<!-- /report -->", "".join(page.read_text(encoding="utf-8") for page in PAGES),
                    flags=re.DOTALL)
COMMANDS = sorted(set(re.findall(r"^python train\.py (.*)$", "\n".join(BLOCKS), flags=re.MULTILINE)))
EXPERIMENTS = [path.stem for path in CONF.glob("experiment/*.yaml")]
PAGE = "".join(f"# {name}\n<!-- report: {name} -->\nold\n<!-- /report -->\nkept\n" for name in make_blocks([], {}))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Two families on Multi30k, one of them with two seeds and then with code that is in no commit."""
    folder = tmp_path_factory.mktemp("runs")
    one = make_row(write_run(folder / "lstm", "multi30k_30min_lstm"))
    two = make_row(write_run(folder / "transformer", "multi30k_30min_transformer", ["seed=10"]))
    return [two, replace(two, result=replace(two.result, seed=2, git_dirty=True)), one]


def test_a_run_that_others_disturbed_is_marked_and_warned_of(tmp_path: Path,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = write_run(tmp_path / "run", other_cpu_pct=7.4)
    markdown.publish([run_dir], tmp_path / "results")
    told = capsys.readouterr().out
    assert "warning: marked as disturbed, other processes took 7 % of the cores; train it again" in told
    page = render(TABLES["embedded"], read_rows(tmp_path / "results"))
    assert "| lstm‡ |" in page
    assert "‡ Other processes took more than 5 % of the cores: it would be faster alone.\n" in page
    assert "‡" not in render(TABLES["embedded"], [make_row(write_run(tmp_path / "quiet", other_cpu_pct=4.9))])


# --- this repository's pages and ledger


@pytest.fixture(scope="module")
def published() -> list[Row]:
    return read_rows(LEDGER)


@pytest.fixture(scope="module")
def known(published: list[Row]) -> markdown.Blocks:
    return make_blocks(published, findings.read_studies(LEDGER / "studies"), predictions.read_others(LEDGER),
                       constants.read_evidence(LEDGER))


@pytest.mark.parametrize("page", [
    pytest.param(page, id=page.name, marks=[pytest.mark.slow] * (page.name in ("positions.md", "story.md")))
    for page in PAGES])
def test_a_page_is_what_the_ledger_makes_of_it(page: Path, known: markdown.Blocks) -> None:
    text = page.read_text(encoding="utf-8")
    assert markdown.fill(text, known, page) == text, "run: minitx report"


@pytest.mark.parametrize("path", sorted(LEDGER.glob("*.json*")), ids=lambda path: path.name)
def test_each_row_is_small_and_of_an_experiment_that_is_there(path: Path, published: list[Row]) -> None:
    assert path.stat().st_size <= MAX_BYTES
    (row,) = [row for row in published if path.name in (f"{row.name}.json", f"{row.name}.json.gz")]
    assert row.result.experiment in EXPERIMENTS
    assert any(table.shows(row) for table in TABLES.values())


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_below_a_table_composes(command: str) -> None:
    compose(shlex.split(command))


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_each_table_has_experiments(table: object) -> None:
    assert [name for name in EXPERIMENTS if fnmatchcase(name, table.experiments)]  # type: ignore[attr-defined]


def test_each_figure_that_the_report_draws_is_there_and_each_that_is_linked(published: list[Row]) -> None:
    drawn = pictures(published, read_all(LEDGER / "attention"), findings.read_studies(LEDGER / "studies"))
    folder = ROOT / "docs/figures"
    assert {path.name for path in folder.glob("*")} == {f"{picture.name}.png" for picture in drawn}, (
        "run: minitx report --figures docs/figures")
    for page in PAGES:
        for text, link in re.findall(r"!\[(.*?)\]\((.*?)\)", page.read_text(encoding="utf-8"), flags=re.DOTALL):
            assert text
            assert (page.parent / link).is_file(), f"{page.name}: {link}"
        for link in re.findall(r'<(?:img|source) [^>]*src(?:set)?="(.*?)">', page.read_text(encoding="utf-8")):
            assert (page.parent / link).is_file(), f"{page.name}: {link}"


# --- any


def test_a_table_shows_its_rows_their_conditions_and_their_commands(rows: list[Row]) -> None:
    bleu = rows[0].result.test["test_2016_flickr"]["bleu"]
    chrf = rows[0].result.test["test_2016_flickr"]["chrf"]
    end = f"{bleu:.1f} | {chrf:.1f} | 1,234,567 | 800 | 2.5 | 3m05s | 10,397 | 12.5 % | 1.250 | 2.5 GiB |"
    assert render(TABLES["multi30k"], rows).splitlines() == [
        "| direction | model | test_2016_flickr BLEU | chrF | parameters | steps | epochs | training | target tokens/s "
        "| MFU | valid loss | peak memory |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
        f"| en-de | lstm | {end}",
        f"| en-de | transformer† | {end}",
        f"| en-de | transformer | {end}",
        "",
        "Conditions:",
        "",
        "- Hardware: A Processor, 2 cores, 2 threads, 32-true.",
        "- Seed: 1; 2; 10.",
        "- Search: beam 5, length penalty 1.0.",
        f"- BLEU: `{rows[0].result.test['test_2016_flickr']['bleu_signature']}`.",
        "- Versions: torch 2.13.0, lightning 2.6.6.",
        "- † Trained with code that is in no commit.",
        "",
        "```",
        "python train.py experiment=multi30k_30min_lstm",
        "python train.py experiment=multi30k_30min_transformer seed=10",
        "```",
    ]


def test_a_missing_number_is_a_dash(rows: list[Row]) -> None:
    bare = replace(rows[0].result, valid_loss=None, tgt_tokens_per_s=None, mfu_pct=None, test={})
    line = render(TABLES["multi30k"], [replace(rows[0], result=bare)]).splitlines()[2]
    cells = [cell.strip() for cell in line.split("|")]
    assert [*cells[3:5], *cells[9:12]] == ["-"] * 5, "scores, speed, share of the peak, loss"


def of_seed(row: Row, seed: int, **changes: Any) -> Row:
    """Return the row as another seed's, which differs in these fields of its result."""
    return replace(row, command=f"{row.command} seed={seed}", result=replace(row.result, seed=seed, **changes))


def test_a_table_by_system_shows_means_and_how_seeds_scatter(tmp_path: Path) -> None:
    goal = {"target_bleu": 30.0, "valid_loss": 1.5, "at_target": {"energy_wh": 2.0, "cost": None}}
    runs = {"transformer": ({"steps": 100, "time_to_target_s": 60.0}, {"steps": 110, "time_to_target_s": 70.0}),
            "lstm": ({"steps": 90, "time_to_target_s": None, "train_s": 900.0},
                     {"steps": 90, "time_to_target_s": None, "train_s": 901.0}),
            "lstm_attention": ({"steps": 95, "time_to_target_s": 80.0}, {"steps": 95, "time_to_target_s": None})}
    of_models = {model: make_row(write_run(tmp_path / model, "headline_small", [f"model={model}"], **goal))
                 for model in runs}
    rows = [of_seed(of_models[model], seed, **changes)
            for model, seeds in runs.items() for seed, changes in enumerate(seeds, 1)]
    text = render(TABLES["headline"], rows)
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    told = [dict(zip(table[0], line, strict=True)) for line in table[2:]]
    assert [line["model"] for line in told] == ["lstm", "lstm_attention", "transformer"], "as the story goes"
    assert [line["seeds"] for line in told] == ["2"] * 3
    assert [line["steps"] for line in told] == ["90", "95", "105 ± 7"]
    assert [line["to target"] for line in told] == ["> 15m00s", "> 2m13s (1 of 2 reached it)", "1m05s ± 7s"]
    assert [line["energy to target"] for line in told] == ["2.0 Wh"] * 3
    assert "cost to target" not in table[0], "of none of them it is known"
    assert "Target: BLEU 30 on the whole validation set" in text
    assert "cost (no trainer.price_per_hour was given)" in text
    assert ("- lstm to lstm_attention: +0.0 BLEU, 95 % interval +0.0 to +0.0, p 1.000 and 1.000: not significant"
            in text)
    other = replace(rows[0], command=f"{rows[0].command} trainer.max_minutes=1")
    assert len(TABLES["headline"].lines([*rows, other])) == 4, "another recipe is another system"
    assert "| transformer (trainer.max_minutes=1) |" in render(TABLES["headline"], [*rows, other])
    newer = replace(rows[0], result=replace(rows[0].result, config_sha256="0" * 64))
    with pytest.raises(UserError, match="rows of one command and seed; delete the older"):
        TABLES["headline"].lines([*rows, newer])


def test_runs_of_a_machine_share_the_highest_peak_that_one_measured(tmp_path: Path) -> None:
    measured = [(1.0, 30.0, "measured"), (2.0, 16.0, "measured"), (989.4, 40.0, "data sheet"), (None, None, None)]
    row = make_row(write_run(tmp_path / "run", "headline_small", ["model=lstm"]))
    rows = [of_seed(row, seed, peak_tflops=tflops, mfu_pct=mfu, peak_source=source)
            for seed, (tflops, mfu, source) in enumerate(measured)]
    other = replace(rows[2], result=replace(rows[2].result, hardware={"gpu": "A GPU", "cores": 16, "cpu": "A CPU"}))
    text = render(TABLES["headline"], rows[:2])
    assert "| 15.5 ± 0.7 % |" in text
    assert "\n- MFU: of 2 TFLOP/s, the most that one of these runs measured.\n" in text
    assert "| 40.0 % |" in render(TABLES["headline"], [other])
    assert "MFU" not in render(TABLES["headline"], [rows[3]])
    assert "MFU: " not in render(TABLES["positions_bible"], rows)


def test_bleu_by_length_counts_the_sources_words(tmp_path: Path) -> None:
    row = make_row(write_run(tmp_path / "run", "positions_bible", test_sets=["test"], sentences=60))
    words = [10] * 50 + [41] * 10
    cell, longer = COLUMNS["up to 40 words"], COLUMNS["over 40 words"]
    assert cell([replace(row, source_words={})]) is None, "a row without that set"
    known = replace(row, source_words={"test": words})
    part = bleu_from_sentences(row.sentences["test"][:50])
    assert str(cell([known])).startswith(f"{part:.1f} (")
    assert str(cell([known])).endswith("; 50)")
    assert str(longer([known])).endswith("; 10)")
    assert longer([replace(row, source_words={"test": [10] * 60})]) is None
    assert cell([known, replace(known, source_words={"test": words[::-1]})]) is None, "of other sentences"


def test_bleu_of_a_length_has_its_interval(tmp_path: Path) -> None:
    row = make_row(write_run(tmp_path / "run", "positions_short", test_sets=["test", "length_10"]))
    text = str(COLUMNS["BLEU, 10 words"]([row]))
    assert re.fullmatch(r"\d+\.\d \(\d+\.\d to \d+\.\d\)", text)
    bleu, low, high = map(float, re.findall(r"\d+\.\d", text))
    assert low < bleu < high
    assert COLUMNS["BLEU, 20 words"]([row]) is None, "a row without that set"


def test_tables_are_the_same_whatever_the_order_and_however_often(rows: list[Row]) -> None:
    filled = markdown.fill(PAGE, make_blocks(rows, {}), PATH)
    assert markdown.fill(filled, make_blocks(rows, {}), PATH) == filled
    for seed in range(5):
        assert markdown.fill(filled, make_blocks(random.Random(seed).sample(rows, len(rows)), {}), PATH) == filled
    assert filled.count("kept\n") == len(make_blocks([], {}))
    assert "old" not in filled
    assert filled.count("No rows yet: `") == len(TABLES) - 1


def test_a_number_edited_by_hand_does_not_last(rows: list[Row]) -> None:
    filled = markdown.fill(PAGE, make_blocks(rows, {}), PATH)
    edited = filled.replace("10,397", "20,397")
    assert markdown.fill(edited, make_blocks(rows, {}), PATH) == filled != edited


@pytest.mark.parametrize("text", [
    PAGE.replace("<!-- report: multi30k -->", ""), PAGE.replace("<!-- /report -->", "", 1),
    PAGE[:PAGE.rindex("<!-- /report")], PAGE.replace("multi30k -->", "multi30k --> "),
    PAGE.replace("multi30k -->", "multi31k -->"),
])  # fmt: skip
def test_a_lost_marker_is_an_error(text: str) -> None:
    with pytest.raises(UserError, match=r"^docs/page\.md: <!-- report: .* one of these lines is lost, or no table has"):
        markdown.fill(text, make_blocks([], {}), Path("docs/page.md"))


def test_each_table_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(PAGE.replace("report: embedded", "report: headline"), encoding="utf-8")
    write_row(make_row(write_run(tmp_path / "run")), tmp_path / "results")
    with pytest.raises(UserError, match="neither here nor in docs/ are the markers <!-- report: embedded -->"):
        markdown.report(tmp_path / "results", tmp_path / "README.md")
    (tmp_path / "docs/page.md").write_text("<!-- report: embedded -->\nold\n<!-- /report -->\n", encoding="utf-8")
    (tmp_path / "docs/other.md").write_text("no table here\n", encoding="utf-8")
    markdown.report(tmp_path / "results", tmp_path / "README.md")
    assert "| lstm |" in (tmp_path / "docs/page.md").read_text(encoding="utf-8")
    assert "No rows yet" in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert (tmp_path / "docs/other.md").read_text(encoding="utf-8") == "no table here\n"


def test_a_run_goes_into_the_ledger_and_onto_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, ledger = tmp_path / "README.md", tmp_path / "results"
    page.write_text(PAGE, encoding="utf-8")
    ledger.mkdir()
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", git_dirty=None, params=7)]
    other = write_run(tmp_path / "c", overrides=["trainer.max_steps=9"])
    markdown.report(ledger, page, runs[:1])
    assert "published" in capsys.readouterr().out
    markdown.report(ledger, page, runs[1:])  # the same config and seed
    said = capsys.readouterr().out
    assert "replaced: there was a row of this config and seed" in said
    assert "marked: its code is in no commit" in said
    assert [row.result.params for row in read_rows(ledger)] == [7]
    assert re.search(r"^\| lstm† \|.*\| 7 \|", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    markdown.report(ledger, page, [other])
    assert "of the same experiment and seed, with another config: synthetic_lstm.1." in capsys.readouterr().out
    assert len(read_rows(ledger)) == 2
    assert "\npython train.py experiment=synthetic_lstm trainer.max_steps=9\n" in page.read_text(encoding="utf-8")
    before = page.read_bytes()
    markdown.report(ledger, page)
    assert "up to date" in capsys.readouterr().out
    assert page.read_bytes() == before


@pytest.mark.parametrize(("experiment", "why"), [
    ("quick", "no table shows experiment=quick"), (None, "names no experiment")])
def test_a_smoke_run_and_an_unnamed_one_are_not_published(experiment: str | None, why: str, tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", "quick", experiment=experiment)
    with pytest.raises(UserError, match=why):
        markdown.publish([run_dir], tmp_path / "ledger")
    assert not (tmp_path / "ledger").exists()


@pytest.mark.parametrize(("experiment", "test_sets", "why"), [
    ("multi30k_30min_lstm", ["test"], "has no test_2016_flickr BLEU, chrF for its table, which shows scores of "
                                      "test_2016_flickr; this run scored test"),
    ("synthetic_lstm", ["test"], "has no roles right for its table, which shows scores of test, minimal_pairs; this "
                                 "run scored test"),
    ("synthetic_lstm", [], "has no test BLEU, roles right, dictionary BLEU for its table, which shows scores of test, "
                           "minimal_pairs; this run scored no test set"),
])  # fmt: skip
def test_a_run_without_the_scores_of_its_table_is_not_published(experiment: str, test_sets: list[str], why: str,
                                                                tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", experiment, test_sets=test_sets)
    with pytest.raises(UserError) as slip:
        markdown.publish([run_dir], tmp_path / "ledger")
    assert str(slip.value) == f"{run_dir}: {why}"
    assert not (tmp_path / "ledger").exists()


def test_one_run_that_is_not_published_keeps_the_others_out(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "good"), write_run(tmp_path / "bad", status="diverged")]
    with pytest.raises(UserError, match="bad: the run is diverged"):
        markdown.publish(runs, tmp_path / "ledger")
    assert not (tmp_path / "ledger").exists()


def test_a_folder_without_a_result_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no result.json"):
        markdown.publish([tmp_path], tmp_path / "ledger")


def test_a_missing_page_is_one_line(rows: list[Row], tmp_path: Path) -> None:
    write_row(rows[0], tmp_path / "results")
    with pytest.raises(UserError, match=r"README\.md: No such file"):
        markdown.report(tmp_path / "results", tmp_path / "README.md")


# --- a ledger that is not there


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two pages whose tables are filled, an empty folder `results`, and a run that could be published."""
    monkeypatch.chdir(tmp_path)
    write_run(Path("run"))
    for name in ("results", "docs"):
        Path(name).mkdir()
    head, marker, rest = PAGE.partition("<!-- report: multi30k -->")
    Path("README.md").write_text(head, encoding="utf-8")
    Path("docs/page.md").write_text(marker + rest, encoding="utf-8")
    return tmp_path


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


ASKED = [[], ["--page", "page.html"], ["--figures", "figures"], ["--repeat", "synthetic_lstm.1"]]


@pytest.mark.parametrize("asked", [*ASKED, ["run"]], ids=" ".join)
def test_a_misspelt_ledger_is_refused_and_nothing_is_written(asked: list[str], folder: Path,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    before = files(folder)
    assert cli.main(["report", *asked, "--ledger", "resluts"]) == Exit.USAGE
    assert capsys.readouterr() == (
        "", "minitx: error: resluts: no such folder of published rows; did you mean results?\n")
    assert files(folder) == before
    assert not Path("resluts").exists()


@pytest.mark.parametrize("asked", ASKED, ids=" ".join)
def test_an_empty_ledger_is_refused_and_nothing_is_written(asked: list[str], folder: Path,
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    before = files(folder)
    assert cli.main(["report", *asked]) == Exit.USAGE
    assert capsys.readouterr() == ("", "minitx: error: results: has no published rows; "
                                       "`minitx report RUN --ledger results` puts the first there\n")
    assert files(folder) == before


@pytest.mark.parametrize(("page", "old", "new", "why"), [
    ("README.md", "report: embedded", "report: headline", "neither here nor in docs/ are the markers"),
    ("docs/page.md", "<!-- /report -->", "", "one of these lines is lost"),
])
def test_where_one_page_cannot_be_made_no_row_and_no_page_is_written(page: str, old: str, new: str, why: str,
                                                                     folder: Path) -> None:
    Path(page).write_text(Path(page).read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    before = files(folder)
    with pytest.raises(UserError, match=why):
        markdown.report(Path("results"), Path("README.md"), [Path("run")])
    assert files(folder) == before
