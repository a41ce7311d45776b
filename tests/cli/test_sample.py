"""`minitx sample`: pairs of a text with their tokens, and how long they are."""

from pathlib import Path

import pytest

from minitx.cli import main as cli
from minitx.utils.errors import Exit

EMBEDDED = ("data.train_size=300", "data.test_sets=[test]")


def test_pairs_are_shown_with_their_tokens_and_lengths(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sample", *EMBEDDED, "-n", "3"]) == Exit.OK
    out = capsys.readouterr().out
    head, lengths, pairs = out.split("\n\n")
    assert "train, 300 pairs" in head
    assert " joint, learned from the training text" in head
    assert [line.split()[0] for line in lengths.splitlines()[1:3]] == ["en", "de"]
    lines = pairs.splitlines()
    assert len(lines) == 3 * 2 * 2
    assert [line.split()[0] for line in lines[::4]] == ["1", "101", "201"]
    source, tokens = lines[0].split(" words  ")[1], lines[1].split(" tokens  ")[1]
    assert tokens.replace(" -", "").replace(" ", "") == source.replace(" ", "")
    assert int(lines[1].split()[0]) == len(tokens.split())


def test_the_vocabulary_may_be_a_run_s_and_so_may_the_text(run_dir: Path, small_text: Path,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", "--run", str(run_dir), "--set", "valid", "-n", "1"]
    assert cli.main([*words, "data=files", f"data.dir={small_text}"]) == Exit.OK
    out = capsys.readouterr().out
    assert f", of {run_dir}\n" in out
    assert "valid, 20 pairs" in out
    assert " + " in out.splitlines()[2], "two vocabularies"
    assert cli.main(words) == Exit.OK
    assert "synthetic (data.seed=1) en-de" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "why"), [
    ([*EMBEDDED, "--set", "tset"], "--set tset: this text has train, valid, test"),
    (["data=files", "data.dir=no/such"], "data.dir=no/such: no such folder"),
    (["--run", "no/such"], "no/such: not a run directory (it has no config.yaml)"),
    (["data=synthetc"], "data=synthetc: no such option; did you mean synthetic?"),
    (["-n", "0"], "argument -n: 0: must be a whole number, at least 1")])
def test_a_slip_is_one_line(words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sample", *words]) == Exit.USAGE
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"minitx: error: {why}")
