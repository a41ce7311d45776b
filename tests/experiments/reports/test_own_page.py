"""The page of one's own runs: whatever state they are in, of any experiment or none."""

import json
from pathlib import Path

import pytest
from experiments.reports.test_page import Reader
from published import write_run
from runs.test_overview import VALID, begin, learn

from minitx.cli import main as cli
from minitx.experiments.reports import page
from minitx.experiments.reports.own_page import finished_rows, of_rows
from minitx.runs.overview import find_runs
from minitx.utils.console import Console
from minitx.utils.errors import Exit


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs of no experiment, one that is not, and one whose scores are lost."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (1, 2):
        write_run(folder / f"a{seed}", "quick", ["model=lstm", f"seed={seed}"], sentences=130, test_sets=["test"],
                  experiment=None, git_dirty=seed == 2)
    learn(begin(folder / "b", model="transformer"), json.dumps(VALID))
    (write_run(folder / "c", "quick", ["model=lstm", "seed=3"]) / "sentence_statistics.json").unlink()
    return folder


def test_a_page_shows_runs_their_curves_and_what_they_share(folder: Path, tmp_path: Path,
                                                            capsys: pytest.CaptureFixture[str]) -> None:
    words = ["report", "--page", str(tmp_path / "page.html"), "--figures", str(tmp_path / "figures"), str(folder)]
    assert cli.main(words) == Exit.OK
    out, err = capsys.readouterr()
    assert out.count(": written\n") == 1 + 3
    assert "c/sentence_statistics.json: missing or damaged" in err
    assert "it appears only in the table" in err
    read = Reader((tmp_path / "page.html").read_bytes())
    assert read.texts["h2"] == ["Runs"]
    assert read.texts["th"][:3] == ["run", "valid BLEU", "test BLEU"], "scores need no scrolling"
    assert [text for text in read.texts["th"] if text.startswith(str(folder))] == [
        str(folder / name) for name in ("a1", "a2", "b", "c")]
    assert len(read.all("img")) == len(read.all("figcaption")) == 3
    assert any(text.startswith("Valid BLEU: the best while it trained") for text in read.texts["p"])
    assert any(text.startswith("Hardware: A Processor") for text in read.texts["li"])
    assert "Finished runs that were trained with code that is in no commit: 1 of 2." in read.texts["li"]
    assert read.texts["pre"] == ["python train.py experiment=quick model=lstm\n"
                                 "python train.py experiment=quick model=lstm seed=2"]
    pictures = {path.name for path in (tmp_path / "figures").iterdir()}
    assert pictures == {f"runs-{name}.png" for name in ("learning-curves", "bleu-over-length", "time-split")}


def test_bleu_by_length_is_of_the_same_sentences_or_not_drawn(folder: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", "quick", sentences=60, test_sets=["test"])
    console = Console()
    runs, _ = find_runs([folder / "a1", other], console)
    rows, notes = finished_rows(runs, console)
    assert (len(rows), notes) == (2, [])
    assert [picture.name for picture in of_rows(rows)] == ["runs-time-split"]
    assert [picture.name for picture in of_rows(rows[:1])] == ["runs-bleu-over-length", "runs-time-split"]
    assert of_rows([]) == []


def test_a_page_of_nothing_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page.Picture, "data_uri", "data:,")
    assert cli.main(["report", "--page", str(tmp_path / "page.html"), str(tmp_path)]) == Exit.USAGE
    assert f"minitx: error: {tmp_path}: no run there\n" == capsys.readouterr().err
    assert not list(tmp_path.iterdir())
