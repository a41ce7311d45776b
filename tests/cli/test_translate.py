"""`minitx translate`: real processes where processes matter, a stub in place of the model elsewhere."""

import gzip
import os
import shutil
import signal
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from served import COMMAND, ENVIRON, Shouter, start

import minitx
from minitx.cli import main as cli
from minitx.data import lines as reading
from minitx.data.source_text import SourceText
from minitx.utils.errors import Exit


def test_a_real_run_translates_from_python_and_from_a_file(run_dir: Path, tmp_path: Path,
                                                           capfd: pytest.CaptureFixture[str]) -> None:
    lines = ["the dog", "", "the cat sees the dog", "the dog", "\u200b", "\ufeff\u00ad\u2060"]
    (tmp_path / "in").write_text("\n".join(lines))
    wanted = minitx.load(run_dir).translate(lines)
    assert wanted[0] == wanted[3]
    assert wanted[1] == wanted[4] == wanted[5] == "", "blank lines stay empty, invisible characters or not"
    assert cli.main(["translate", str(run_dir), "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == Exit.OK
    assert (tmp_path / "out").read_text().split("\n") == [*(line.replace("\n", " ") for line in wanted), ""]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    assert capfd.readouterr() == ("", "")


def test_a_hint_is_given_once_at_a_line_of_another_text(run_dir: Path, tmp_path: Path,
                                                        capfd: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_dir, run)
    tokenizer = minitx.load(run).tokenizers.src
    read = set(chain.from_iterable(tokenizer.encode_batch(["the dog sees the cat"])))
    SourceText(frozenset(range(tokenizer.vocab_size)) - read, 9.0).save(run)
    (tmp_path / "in").write_text("the dog\n\nthe quantum dog\nquarks\n")
    argv = ["translate", str(run), "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    assert cli.main(argv) == Exit.OK
    assert capfd.readouterr().err == ("minitx: hint: line 3: its words are unlike those of the text that this run "
                                      "learned from (quantum), so its translation may be nonsense; said once\n")
    (tmp_path / "in").write_text("the dog\nthe cat sees the dog\n")
    assert cli.main(argv) == Exit.OK
    assert capfd.readouterr().err == ""


def test_it_can_be_talked_to_through_a_pipe(run_dir: Path) -> None:
    with start("translate", run_dir) as process:
        for line in (b"the dog\n", b"\n", b"the cat\n"):
            process.stdin.write(line)
            answer = process.stdout.readline()  # would wait for ever if lines were held back
            assert answer.endswith(b"\n")
            assert (answer == b"\n") == (line == b"\n")
        out, err = process.communicate(b"no newline at the end", timeout=30)
    assert out.count(b"\n") == 1
    assert (process.returncode, err) == (Exit.OK, b"")


@pytest.mark.slow
def test_a_reader_that_leaves_early_and_ctrl_c_give_no_traceback(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("the dog\n" * 30_000)
    with start("translate", run_dir, "-i", tmp_path / "in", "--beam-size", "1") as leaving, \
            start("translate", run_dir) as stopped:
        stopped.stdin.write(b"the dog\n")
        stopped.stdout.readline()  # it is up and waits
        stopped.send_signal(signal.SIGINT)
        assert stopped.wait(30) == Exit.INTERRUPTED
        leaving.stdout.readline()
        leaving.stdout.close()
        assert leaving.wait(30) == Exit.OK
        assert stopped.stderr.read() == leaving.stderr.read() == b""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_one_line(run_dir: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*COMMAND, "translate", run_dir], input=b"the dog\n", stdout=full, stderr=subprocess.PIPE,
                              env=ENVIRON, check=False)
    assert done.returncode == Exit.STORAGE
    assert done.stderr == b"minitx: error: standard output: cannot be written: No space left on device\n"


@pytest.mark.usefixtures("shouter")
class TestTranslate:
    @pytest.mark.parametrize(("given", "wanted"), [
        (b"", b""),
        (b"\n", b"\n"),
        (b"a\n\nb\n", b"A\n\nB\n"),
        (b"a\nb", b"A\nB\n"),
        (b"a\r\nb\r\n", b"A\nB\n"),
        (b"\xef\xbb\xbfa\n", b"A\n"),
        (gzip.compress(b"\xef\xbb\xbfa\n") + gzip.compress(b"\xef\xbb\xbfb\n"), b"A\nB\n"),
        ("a\u2028b\x85c\x0bd\re\n".encode(), "A\u2028B\x85C\x0bD\rE\n".encode()),
    ])
    def test_lines_end_at_newline_alone(self, given: bytes, wanted: bytes, tmp_path: Path,
                                        capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        (tmp_path / "in").write_bytes(given)
        assert cli.main(["translate", "RUN", "-i", str(tmp_path / "in")]) == Exit.OK
        assert capfdbinary.readouterr() == (wanted, b"")

    def test_many_chunks_keep_order_and_line_numbers(self, tmp_path: Path, capfd: pytest.CaptureFixture[str],
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reading, "CHUNK_BYTES", 7)
        lines = [f"line {i}" for i in range(50)]
        lines[33] = "a" * 40
        (tmp_path / "in").write_text("\n".join(lines))
        assert cli.main(["translate", "RUN", "-i", str(tmp_path / "in")]) == Exit.OK
        out, err = capfd.readouterr()
        assert out.splitlines() == [line[:30].upper() for line in lines]
        assert err == "minitx: warning: line 34: 40 tokens, cut to 30\n"

    def test_invalid_utf8_shifts_no_line(self, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        (tmp_path / "in").write_bytes(b"a\nb\xff\xfec\nd\n")
        assert cli.main(["translate", "RUN", "-i", str(tmp_path / "in")]) == Exit.OK
        out, err = capfdbinary.readouterr()
        assert out == "A\nB\ufffd\ufffdC\nD\n".encode()
        assert err == b"minitx: warning: line 2: byte 0xff at offset 1 is not UTF-8; replaced by U+FFFD\n"

    @pytest.mark.parametrize(("given", "line"), [
        ("a\n".encode("utf-16"), "is UTF-16; convert the file, e.g. with iconv -f UTF-16 -t UTF-8"),
        (gzip.compress(b"a\n" * 99)[:-9], "a damaged gzip file (it ends too early)"),
    ])
    def test_what_training_refuses_is_refused(self, given: bytes, line: str, tmp_path: Path,
                                              capfd: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "in").write_bytes(given)
        assert cli.main(["translate", "RUN", "-i", str(tmp_path / "in")]) == Exit.DATA
        assert capfd.readouterr().err == f"minitx: error: {tmp_path / 'in'}: {line}\n"

    @pytest.mark.parametrize(("stream", "code", "line"), [
        ("stdin", Exit.USAGE, "standard input is closed: name a file to read, or leave it open"),
        ("stdout", Exit.STORAGE, "standard output: cannot be written: it is closed"),
    ])
    def test_a_closed_stream_is_one_line(self, stream: str, code: Exit, line: str, tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "in").write_text("a\n")
        monkeypatch.setattr(sys, stream, None)  # as Python has it where the shell says <&- or >&-
        assert cli.main(["translate", "RUN", *(["-i", str(tmp_path / "in")] if stream == "stdout" else [])]) == code
        assert capfd.readouterr().err == f"minitx: error: {line}\n"
        argv = ["translate", "RUN", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
        assert cli.main(argv) == Exit.OK, "nor is it needed with both -i and -o"

    def test_n_best_says_line_and_score(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "in").write_text("a\nb\n")
        assert cli.main(["translate", "RUN", "-i", str(tmp_path / "in"), "--n-best", "2"]) == Exit.OK
        assert capfd.readouterr().out == "1\t-1.0000\tA\n1\t-1.5000\tA!\n2\t-1.0000\tB\n2\t-1.5000\tB!\n"

    def test_output_is_all_or_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "in").write_text("a\n")
        (tmp_path / "out").write_text("as it was")

        def fail(*args: Any, **options: Any) -> list[str]:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Shouter, "translate", fail)
            argv = ["translate", "RUN", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
            assert cli.main(argv) == Exit.INTERRUPTED
        assert (tmp_path / "out").read_text() == "as it was"
        assert len(list(tmp_path.iterdir())) == 2
        (tmp_path / "link").symlink_to("out")
        assert cli.main([*argv[:-1], str(tmp_path / "link")]) == Exit.OK
        assert (tmp_path / "out").read_text() == "A\n"
        assert (tmp_path / "link").is_symlink()
        assert cli.main([*argv[:-1], os.devnull]) == Exit.OK
        assert not Path(os.devnull).is_file()


class TestHow:
    """How a real, untrained run is searched: what the command passes on, and what it refuses before it loads."""

    LINES = ("the dog", "", "the cat sees", "the dog")

    def translated(self, run_dir: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes],
                   *words: str) -> list[str]:
        (tmp_path / "in").write_text("".join(f"{line}\n" for line in self.LINES))
        assert cli.main(["translate", str(run_dir), "-i", str(tmp_path / "in"), "--device", "cpu", *words]) == Exit.OK
        return capfdbinary.readouterr().out.decode(errors="replace").split("\n")[:-1]

    def test_prefixes_repeats_and_draws_are_those_of_the_translator(
            self, run_dir: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        translator, prefixes = minitx.load(run_dir), ["der", "Hund", "", "die Katze"]
        (tmp_path / "prefixes").write_text("".join(f"{prefix}\n" for prefix in prefixes))

        def shown(texts: list[str]) -> list[str]:
            return [text.replace("\n", " ") for text in texts]

        found = self.translated(run_dir, tmp_path, capfdbinary, "--prefix-file", str(tmp_path / "prefixes"))
        assert found == shown(translator.translate(self.LINES, prefixes=prefixes))
        begin = [text.startswith(prefix) for text, prefix in zip(found, prefixes, strict=True)]
        assert begin == [True, False, True, True], "a blank line stays empty"
        found = self.translated(run_dir, tmp_path, capfdbinary, "--no-repeat-ngram", "1")
        assert found == shown(translator.translate(self.LINES, no_repeat_ngram=1))
        words = ["--sample", "--temperature", "0.5", "--top-k", "9", "--seed", "3"]
        wanted = translator.sample(self.LINES, temperature=0.5, top_k=9, seed=3)
        assert self.translated(run_dir, tmp_path, capfdbinary, *words) == shown(wanted)
        assert self.translated(run_dir, tmp_path, capfdbinary, *words, "--split", "always") == shown(
            translator.sample(self.LINES, temperature=0.5, top_k=9, seed=3, split="always"))

    @pytest.mark.parametrize(("prefixes", "message"), [
        ("a\nb\n", "prefixes: has 2 lines, and line 3 of the input has no prefix; a blank line means none"),
        ("a\n" * 5, "prefixes: has 5 lines, {input} has 4; it needs one for each")])
    def test_a_prefix_is_needed_for_each_line(self, prefixes: str, message: str, run_dir: Path, tmp_path: Path,
                                              capfd: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "in").write_text("a\n" * 4)
        (tmp_path / "prefixes").write_text(prefixes)
        argv = ["translate", str(run_dir), "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--device", "cpu",
                "--prefix-file", str(tmp_path / "prefixes")]
        assert cli.main(argv) == Exit.DATA
        assert message.format(input=tmp_path / "in") in capfd.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_prefixes_are_not_written_over(self, run_dir: Path, tmp_path: Path,
                                           capfd: pytest.CaptureFixture[str]) -> None:
        text = tmp_path / "prefixes"
        text.write_text("a\n")
        argv = ["translate", str(run_dir), "-i", "/dev/null", "--prefix-file", str(text), "-o", str(text)]
        assert cli.main(argv) == Exit.USAGE
        assert "is the input: write to another file" in capfd.readouterr().err
        assert text.read_text() == "a\n"

    @pytest.mark.parametrize(("words", "message"), [
        (["--seed", "1"], "--seed: says how tokens are drawn; add --sample"),
        (["--top-k", "1"], "--top-k: says how tokens are drawn; add --sample"),
        (["--sample", "--n-best", "2"], "--sample: draws one translation a line; leave --n-best out"),
        (["--sample", "--beam-size", "2"], "--sample: draws one translation a line; leave --beam-size out"),
        (["--align", "--n-best", "2"], "--align: aligns one translation a line; leave --n-best out"),
        (["--sample", "--seed", "-1"], "-1: must be a whole number, at least 0")], ids=str)
    def test_what_contradicts_itself_is_refused(self, words: list[str], message: str,
                                                capfd: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["translate", "nowhere", *words]) == Exit.USAGE
        assert message in capfd.readouterr().err
