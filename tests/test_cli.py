"""The command line: real processes where processes matter, a stub in place of the model elsewhere."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

import pytest
import torch
import yaml

import minitx
from minitx import cli
from minitx.checkpoint import save_model
from minitx.config import Config, DecodeConfig, TransformerConfig
from minitx.schema import parse
from minitx.data.tokenizer import TokenizerPair
from minitx.decoding.translate import Translation
from minitx.errors import Exit
from minitx.models.registry import build_model

DECODE = {"beam_size": 2, "length_penalty": 1.0, "max_tokens": 400, "max_length_ratio": 0.5, "max_length_extra": 5,
          "max_source_length": 30}
MODEL = {"num_layers": 1, "d_model": 8, "d_ff": 8, "n_heads": 2, "max_positions": 64, "size": "tiny"}


def plainest(cls: type) -> dict[str, Any]:
    """Make a mapping that `cls` accepts: null, the first choice, the least number."""
    values: dict[str, Any] = {}
    for spec in fields(cls):
        kind, bounds = get_type_hints(cls)[spec.name], spec.metadata["bounds"]
        if is_dataclass(kind):
            values[spec.name] = plainest(kind)
        elif type(None) in get_args(kind):
            values[spec.name] = None
        else:
            number = bounds.get("ge", 0.5 if kind is float else 1)
            values[spec.name] = (spec.metadata["choices"] or [number if kind in (int, float) else kind()])[0]
    return values


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a run directory whose model knows nothing, as training would leave it."""
    folder = tmp_path_factory.mktemp("run")
    values = plainest(Config)
    values["decode"] |= DECODE
    values["model"] |= MODEL
    cfg = parse(Config, values)
    assert isinstance(cfg.model, TransformerConfig)
    pair = TokenizerPair.train([("the dog sees the cat", "der Hund sieht die Katze")] * 3, None, False)
    pair.save(folder)
    torch.manual_seed(0)
    model = build_model(cfg.model, src_vocab_size=pair.src.vocab_size, tgt_vocab_size=pair.tgt.vocab_size)
    save_model(folder, model)
    (folder / "config.yaml").write_text(yaml.safe_dump(asdict(cfg)))
    return folder


class Shouter:
    """Translate into upper case."""

    decode = DecodeConfig(**DECODE)  # type: ignore[arg-type]

    def translate(self, lines: list[str], *, beam_size: int | None, length_penalty: float | None, progress: Any,
                  warn: Any) -> list[str]:
        for row, line in enumerate(lines):
            if len(line) > 30:
                warn(row, f"{len(line)} tokens, cut to 30")
        progress(len(lines), len(lines))
        return [line[:30].upper() for line in lines]

    def n_best(self, lines: list[str], n: int, **options: Any) -> list[list[Translation]]:
        return [[Translation(line.upper() + "!" * i, -float(i), -i / 2 - 1) for i in range(n)] for line in lines]


@pytest.fixture
def shouter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "load", lambda run_dir, device: Shouter())


ENVIRON = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
COMMAND = [sys.executable, "-m", "minitx.cli"]


def start(*argv: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*COMMAND, *argv], bufsize=0, env=ENVIRON, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


def test_help_is_quick_and_imports_no_torch() -> None:
    program = ("import sys, time; from minitx import cli\ntry: cli.main(sys.argv[1:])\nexcept SystemExit: pass\n"
               "heavy = {'torch', 'lightning', 'hydra', 'datasets', 'sacrebleu', 'numpy'} & sys.modules.keys()\n"
               "assert not heavy, heavy\nprint(time.process_time())")
    for command in ([], ["translate"], ["evaluate"], ["report"]):
        done = subprocess.run([sys.executable, "-c", program, *command, "--help"], capture_output=True, text=True,
                              env=ENVIRON, check=True)
        assert "usage: minitx" in done.stdout
        assert float(done.stdout.splitlines()[-1]) < 1


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"minitx {minitx.__version__}\n"


def test_a_real_run_translates_from_python_and_from_a_file(run_dir: Path, tmp_path: Path,
                                                           capfd: pytest.CaptureFixture[str]) -> None:
    lines = ["the dog", "", "the cat sees the dog", "the dog"]
    (tmp_path / "in").write_text("\n".join(lines))
    wanted = minitx.load(run_dir).translate(lines)
    assert wanted[0] == wanted[3]
    assert wanted[1] == ""
    assert cli.main(["translate", str(run_dir), "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == Exit.OK
    assert (tmp_path / "out").read_text().split("\n") == [*(line.replace("\n", " ") for line in wanted), ""]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    assert capfd.readouterr() == ("", "")


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
        ("a\u2028b\x85c\x0bd\re\n".encode(), "A\u2028B\x85C\x0bD\rE\n".encode()),
    ])
    def test_lines_end_at_newline_alone(self, given: bytes, wanted: bytes, tmp_path: Path,
                                        capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        (tmp_path / "in").write_bytes(given)
        assert cli.main(["translate", "RUN", "-i", str(tmp_path / "in")]) == Exit.OK
        assert capfdbinary.readouterr() == (wanted, b"")

    def test_many_chunks_keep_order_and_line_numbers(self, tmp_path: Path, capfd: pytest.CaptureFixture[str],
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cli, "CHUNK_BYTES", 7)
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


def test_progress_shows_only_on_a_terminal_and_only_when_it_takes_long(capsys: pytest.CaptureFixture[str],
                                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(cli, "monotonic", lambda: now)
    shown: list[str] = []
    console = SimpleNamespace(terminal=True, live=shown.append, line=shown.append)
    meter = cli._Meter(console, n_bytes=1000)  # type: ignore[arg-type]
    meter.next_block(0, 500)
    now = 1.0
    meter(10, 20)
    assert shown == []
    now = 5.0
    meter(20, 20)
    meter.next_block(20, 1000)
    now = 8.0
    meter(12, 20)
    meter.close()
    assert shown == ["20 lines  4.0 lines/s  50 %  eta 5s", "32 lines  4.0 lines/s  80 %  eta 2s", "32 lines in 8s"]
    console.terminal = False
    silent = cli._Meter(console, quiet=True)  # type: ignore[arg-type]
    now = 20.0
    silent(1, 1)
    silent.close()
    assert len(shown) == 3


@pytest.mark.usefixtures("shouter")
class TestEvaluate:
    def test_scores_with_signatures(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "s").write_text("the dog sees the cat\n\n")
        (tmp_path / "r").write_text("THE DOG SEES THE CAT\n\n")
        argv = ["evaluate", "RUN", "--src", str(tmp_path / "s"), "--ref", str(tmp_path / "r")]
        assert cli.main(argv) == Exit.OK
        bleu, chrf, counted = capfd.readouterr().out.splitlines()
        assert bleu.startswith("BLEU 100.00  nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
        assert chrf.startswith("chrF 100.00  nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
        assert counted == "2 sentences, beam 2, length penalty 1.0"
        assert cli.main([*argv, "--json", "--beam-size", "4", "-o", str(tmp_path / "h")]) == Exit.OK
        found = json.loads(capfd.readouterr().out)
        assert found["bleu"] == pytest.approx(100)
        assert found["sentences"] == 2
        assert found["beam_size"] == 4
        assert (tmp_path / "h").read_text() == "THE DOG SEES THE CAT\n\n"


@pytest.mark.usefixtures("shouter")
@pytest.mark.parametrize(("argv", "code", "line"), [
    ("translate", 2, "the following arguments are required: RUN (minitx translate --help shows the usage)"),
    ("translate RUN --beam-size 0", 2, "argument --beam-size: 0: must be a whole number, at least 1 "
                                       "(minitx translate --help shows the usage)"),
    ("translate RUN --length-penalty nan", 2, "argument --length-penalty: nan: must be a number, at least 0 "
                                              "(minitx translate --help shows the usage)"),
    ("translate RUN --n-best 3", 2, "--n-best=3 is more than the beam holds: add --beam-size=3"),
    ("translate RUN -i no/such", 2, "no/such: No such file or directory"),
    ("translate RUN -i .", 2, ".: Is a directory"),
    ("translate RUN -i one -o one", 2, "--output=one is the input: write to another file"),
    ("translate RUN -i one -o no/such", 5, "no/such: cannot be written: No such file or directory"),
    ("evaluate RUN --src one --ref two", 3, "one has 1 lines, two has 2: they must pair line by line"),
    ("evaluate RUN --src none --ref none", 3, "none: no lines to score"),
    ("evaluate RUN --src one --ref one -o one", 2, "--output=one is the input: write to another file"),
])
def test_slips_get_one_line(argv: str, code: int, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                            capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in (("none", ""), ("one", "a\n"), ("two", "a\nb\n")):
        Path(name).write_text(text)
    assert cli.main(argv.split()) == code
    assert capfd.readouterr() == ("", f"minitx: error: {line}\n")
    assert sorted(os.listdir()) == ["none", "one", "two"]
    assert Path("one").read_text() == "a\n"


def test_report_hands_over_ledger_readme_and_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[tuple[Any, ...]] = []
    monkeypatch.setattr("minitx.suites.report.main", lambda *args: handed.append(args))
    assert cli.main(["report"]) == cli.main(["report", "runs/a", "runs/b", "--ledger", "l"]) == Exit.OK
    assert handed == [(Path("results"), Path("README.md"), []),
                      (Path("l"), Path("README.md"), [Path("runs/a"), Path("runs/b")])]


def test_what_is_no_run_gets_one_line(run_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.yaml").write_bytes((run_dir / "config.yaml").read_bytes())
    for argv, words in (([tmp_path], "not a run directory"), ([tmp_path / "no"], "not a run directory"),
                        ([unfinished], "no model.safetensors yet"), ([run_dir, "--device", "cud"], "device=cud: ")):
        assert cli.main(["translate", *map(str, argv)]) == Exit.USAGE
        out, err = capfd.readouterr()
        assert out == ""
        assert err.startswith("minitx: error: ")
        assert words in err
        assert err.count("\n") == 1
