"""The command line as a whole: help without heavy imports, errors of one line, exit codes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from served import ENVIRON
from toys import ROOT

import minitx
from minitx.cli import main as cli
from minitx.utils.errors import Exit

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")


def test_no_help_imports_anything_heavy() -> None:
    program = ("import sys; from minitx.cli import main as cli\n"
               "for command in ([], *([name] for name in cli.COMMANDS)):\n"
               "    try: cli.main([*command, '--help'])\n    except SystemExit: pass\n"
               "heavy = {'torch', 'lightning', 'hydra', 'datasets', 'sacrebleu', 'numpy'} & sys.modules.keys()\n"
               "assert not heavy, heavy")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=ENVIRON, check=True)
    assert done.stdout.count("usage: minitx") == 1 + len(cli.COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"minitx {minitx.__version__}\n"


@pytest.mark.usefixtures("shouter")
@pytest.mark.parametrize(("argv", "code", "line"), [
    ("translate", 2, "the following arguments are required: RUN (minitx translate --help shows the usage)"),
    ("translate RUN --beam-size 0", 2, "argument --beam-size: 0: must be a whole number, at least 1 "
                                       "(minitx translate --help shows the usage)"),
    ("translate RUN --length-penalty nan", 2, "argument --length-penalty: nan: must be a number, at least 0 "
                                              "(minitx translate --help shows the usage)"),
    ("translate RUN --n-best 3", 2, "--n-best=3 is more than the beam holds: add --beam-size=3"),
    ("translate RUN -i no/such", 2, "no/such: cannot be read (No such file or directory)"),
    ("translate RUN -i .", 2, ".: cannot be read (Is a directory)"),
    ("translate RUN -i one -o one", 2, "--output=one is the input: write to another file"),
    ("translate RUN -i one -o no/such", 2, "no/such: cannot be written: No such file or directory"),
    ("translate RUN -i one -o .", 2, ".: cannot be written: Is a directory"),
    ("translate RUN -i one -o one/such", 2, "one/such: cannot be written: Not a directory"),
    pytest.param("translate RUN -i one -o /dev/full", 5, "/dev/full: cannot be written: No space left on device",
                 marks=needs_full),
    pytest.param("evaluate RUN --src one --ref one -o /dev/full", 5, "/dev/full: cannot be written: No space left on "
                 "device", marks=needs_full),
    ("evaluate RUN --src one --ref two", 3, "one has 1 lines, two has 2: they must pair line by line"),
    ("evaluate RUN --src none --ref none", 3, "none: no lines to score"),
    ("evaluate RUN --src one --ref one -o one", 2, "--output=one is the input: write to another file"),
    ("evaluate RUN --src no/such --ref one", 2, "no/such: cannot be read (No such file or directory)"),
    ("evaluate RUN --src one --ref one -o no/such", 2, "no/such: cannot be written: No such file or directory"),
    ("score RUN --src one --ref two", 3, "one has 1 lines, two has 2: they must pair line by line"),
    ("score RUN --src one --ref no/such", 2, "no/such: cannot be read (No such file or directory)"),
    ("score RUN --src two --ref two -o two", 2, "--output=two is the input: write to another file"),
    ("score no/such --src one --ref one", 2, "no/such: not a run directory (it has no config.yaml)"),
    ("score RUN --src one", 2, "the following arguments are required: --ref (minitx score --help shows the usage)"),
    ("average RUN -o OUT", 2, "the following arguments are required: --last (minitx average --help shows the usage)"),
    ("average RUN -o OUT --last 0", 2, "argument --last: 0: must be a whole number, at least 1 "
                                       "(minitx average --help shows the usage)"),
    ("average no/such -o OUT --last 2", 2, "no/such: not a run directory (it has no config.yaml)"),
    ("report", 2, "results: no such folder of published rows"),
    ("doctor model.dropuot=0.1", 2, "unknown key model.dropuot=0.1; did you mean model.dropout?"),
    ("doctor data=files data.dir=no/such", 2, "data.dir=no/such: no such folder"),
    ("doctor --fast", 2, "unrecognized arguments: --fast (minitx --help shows the usage)"),
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


def test_an_unknown_command_is_told_the_known_ones(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["translat"]) == Exit.USAGE
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert all(name in err for name in cli.COMMANDS)
    assert "; did you mean translate? (" in err


@pytest.mark.parametrize(("argv", "meant"), [
    ("comapre", "compare"), ("bench stpe", "step"), ("translate RUN --precision bf16", "bf16-mixed")])
def test_of_several_choices_the_nearest_is_suggested(argv: str, meant: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv.split()) == Exit.USAGE
    assert f"; did you mean {meant}? (" in capfd.readouterr().err


def test_report_tells_how_a_row_is_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    ledger = str(ROOT / "results")
    assert cli.main(["report", "--repeat", "multi30k_30min_transformer", "--ledger", ledger]) == Exit.OK
    words = capsys.readouterr().out.split()
    assert words[:3] == ["python", "train.py", "experiment=multi30k_30min_transformer"]
    assert {"trainer.max_minutes=null", "trainer.precision=bf16-mixed", "trainer.threads=2"} < set(words)


def test_report_hands_over_ledger_readme_and_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[tuple[Any, ...]] = []
    monkeypatch.setattr("minitx.experiments.reports.markdown.report", lambda *args: handed.append(args))
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


@pytest.mark.usefixtures("shouter")
def test_a_tilde_in_a_path_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bash and zsh leave it in words like --output=~/x."""
    home, here = tmp_path / "home", tmp_path / "here"
    for folder in (home, here):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    (home / "in").write_text("a\n")
    assert cli.main(["translate", "RUN", "--input=~/in", "--output=~/out"]) == Exit.OK
    assert (home / "out").read_text() == "A\n"
    assert os.listdir(here) == []


# --- minitx train


def test_train_takes_the_words_of_train_py(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "modle=transformer"]) == Exit.USAGE
    assert capfd.readouterr() == ("", "minitx: error: unknown key modle=transformer; did you mean model?\n")
    assert cli.main(["train", "-c", "job", "-p", "optim.lr", "optim.lr=0.5"]) == Exit.OK
    assert capfd.readouterr().out == "0.5\n"


def test_train_shows_what_can_be_typed(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "model=lstm", "--help"]) == Exit.OK
    out = capfd.readouterr().out
    assert "\n    minitx train [group=option ...] [key=value ...] [flags]\n" in out
    assert "\n    minitx train model=transformer_nope " in out
    assert "python train.py" not in out
    assert cli.main(["train", "-sc", "install=bash"]) == Exit.USAGE
    assert capfd.readouterr().err == ("minitx: error: --shell-completion: completes `python train.py`; `minitx train` "
                                      "has no completion\n")


def test_the_package_is_the_command() -> None:
    command = [sys.executable, "-P", "-m", "minitx"]
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, env=ENVIRON, check=True)
    assert done.stdout == f"minitx {minitx.__version__}\n"
    done = subprocess.run([*command, "train", "modle=x"], capture_output=True, text=True, env=ENVIRON, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (Exit.USAGE, 1)
