"""`minitx attention`, of a model that knows nothing."""

import sys
from pathlib import Path

import pytest
from served import write_run

import minitx
from minitx.cli import main as cli
from minitx.config.saved import read_config
from minitx.evaluation.attention import attention_maps
from minitx.evaluation.attention_maps import read
from minitx.experiments.reports.figures import attention_map
from minitx.utils.errors import Exit


def test_a_line_a_token_says_where_it_looked(run_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["attention", str(run_dir), "the dog", "--target", "der Hund"]) == Exit.OK
    out, err = capfd.readouterr()
    found = attention_maps(minitx.load(run_dir), read_config(run_dir), "the dog", "der Hund")
    assert found is not None
    assert [line.split() for line in out.splitlines()] == [
        [token, source, f"{weight:.2f}"] for token, source, weight in found.alignment()]
    assert len({len(line) for line in out.splitlines()}) == 1
    assert err == ""


def test_all_weights_go_to_a_file_and_into_a_figure(run_dir: Path, tmp_path: Path,
                                                    capfd: pytest.CaptureFixture[str]) -> None:
    argv = ["attention", str(run_dir), "the dog", "--target", "der Hund", "-o", str(tmp_path / "maps.json")]
    contents = []
    for form in ("svg", "png"):
        assert cli.main([*argv, "--plot", str(tmp_path / f"maps.{form}")]) == Exit.OK
        contents.append((tmp_path / "maps.json").read_bytes())
        maps = read(tmp_path / "maps.json")
        assert (tmp_path / f"maps.{form}").read_bytes() == attention_map(maps, form=form)
    assert contents[0] == contents[1]
    assert list(maps.weights) == ["encoder", "decoder", "cross"]
    assert maps.config_sha256 not in ("", None)
    assert capfd.readouterr() == ("", "")


def test_a_long_sentence_is_warned_of_once(run_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["attention", str(run_dir), "x" * 40]) == Exit.OK
    assert capfd.readouterr().err == "minitx: warning: the sentence has 42 tokens, cut to 30\n"


def test_a_model_without_attention_is_told_of_in_a_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_dir = write_run(tmp_path / "run", "model=lstm")
    assert cli.main(["attention", str(run_dir), "the dog", "-o", str(tmp_path / "maps.json")]) == Exit.USAGE
    assert capfd.readouterr() == (
        "", f"minitx: error: {run_dir}: model=lstm has no attention, so there are no weights to show\n")
    assert not (tmp_path / "maps.json").exists()


@pytest.mark.parametrize(("slip", "told", "code"), [
    (["the dog", "--plot", "maps.pdf"], "--plot maps.pdf: draws SVG and PNG", Exit.USAGE),
    (["the dog", "-o", "no/such/maps.json"], "no/such/maps.json", Exit.USAGE),
    ([" ", "-o", "maps.json"], "the sentence is blank", Exit.DATA), ([], "SENTENCE", Exit.USAGE)])
def test_a_slip_is_one_line_and_leaves_nothing(slip: list[str], told: str, code: Exit, run_dir: Path, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch,
                                               capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["attention", str(run_dir), *slip]) == code
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert told in err
    assert not list(tmp_path.iterdir())


def test_a_figure_without_matplotlib_is_refused_at_once(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                        capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr("minitx.cli.attention.load", lambda *asked: pytest.fail("loaded"))
    assert cli.main(["attention", str(run_dir), "the dog", "--plot", str(tmp_path / "maps.svg")]) == Exit.USAGE
    assert ".[report]" in capfd.readouterr().err
