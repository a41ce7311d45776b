"""`minitx score`, of a model that knows nothing."""

import gzip
import json
from pathlib import Path

import pytest

import minitx
from minitx.cli import main as cli
from minitx.decoding.scoring import score_pairs
from minitx.utils.errors import Exit


@pytest.fixture
def argv(run_dir: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "s").write_text("the dog\n\nthe cat sees the dog\n")
    (tmp_path / "r").write_text("der Hund\n\ndie Katze\n")
    return ["score", str(run_dir), "--src", str(tmp_path / "s"), "--ref", str(tmp_path / "r")]


def test_one_line_a_pair_in_order_and_a_summary_beside(argv: list[str], run_dir: Path,
                                                       capfd: pytest.CaptureFixture[str]) -> None:
    wanted = score_pairs(minitx.load(run_dir), ["the dog", "", "the cat sees the dog"], ["der Hund", "", "die Katze"])
    assert cli.main(argv) == Exit.OK
    out, err = capfd.readouterr()
    rows = [line.split("\t") for line in out.splitlines()]
    assert [float(row[0]) for row in rows] == pytest.approx([found.log_prob for found in wanted], abs=1e-6)
    assert [int(row[1]) for row in rows] == [found.n_tokens for found in wanted]
    assert [float(row[2]) for row in rows] == pytest.approx([found.perplexity for found in wanted], rel=1e-5)
    assert rows[1][1] == "1"
    assert err.endswith(f"; 3 pairs, {sum(found.n_tokens for found in wanted)} target tokens\n")
    assert err.count("\n") == 1


def test_files_are_read_as_training_reads_them(argv: list[str], tmp_path: Path,
                                               capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == Exit.OK
    wanted = capfd.readouterr().out
    source = tmp_path / "s"
    source.write_bytes(gzip.compress(b"\xef\xbb\xbf" + source.read_bytes().replace(b"\n\n", "\n\u200b\n".encode())))
    assert cli.main(argv) == Exit.OK
    assert capfd.readouterr().out == wanted
    source.write_bytes("the dog\n\n\n".encode("utf-16"))
    assert cli.main(argv) == Exit.DATA
    assert "s: is UTF-16; convert the file, e.g. with iconv" in capfd.readouterr().err


def test_json_holds_summary_and_pairs_and_goes_to_a_file(argv: list[str], tmp_path: Path,
                                                         capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*argv, "--json", "-o", str(tmp_path / "out")]) == Exit.OK
    assert capfd.readouterr().out == ""
    found = json.loads((tmp_path / "out").read_text())
    assert found["log_prob"] == pytest.approx(sum(pair["log_prob"] for pair in found["pairs"]))
    assert found["tokens"] == sum(pair["tokens"] for pair in found["pairs"])
    assert len(found["pairs"]) == 3
    assert found["perplexity"] > 1


def test_a_source_too_long_is_warned_of_with_file_and_line(argv: list[str], tmp_path: Path,
                                                           capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s").write_text("the dog\n\n" + "x" * 99 + "\n")
    assert cli.main(argv) == Exit.OK
    assert f"minitx: warning: {tmp_path / 's'}: line 3: 101 tokens, cut to 30\n" in capfd.readouterr().err
