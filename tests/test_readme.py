"""Every command in README runs, as written plus at most two updates: in a forked child on a smaller text; as typed."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from toys import ROOT, write_digits
from zygote import Zygote

from minitx.utils.errors import Exit

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE = re.sub(r"<!-- report: .*?<!-- /report -->", "", README, flags=re.DOTALL)  # test_report composes what is in these
BLOCKS = re.findall(r"^```\w*\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
LINES = [line.split("  #")[0].strip() for block in BLOCKS for line in block.splitlines()]
INLINE = re.findall(r"`(python train\.py [^`]*)`", PAGE)
COMMANDS = [line for line in [*LINES, *INLINE] if line.startswith(("python train.py", "minitx ", "echo "))]
# Not run here: set-up (`make`, `pip`) is what a person did to get here.
MISTAKES = [line.removeprefix("$ ") for line in LINES if line.startswith("$ ")]
SHORT = " trainer.max_steps=2 decode.max_length_ratio=0.3"  # an untrained model never ends a sentence by itself
SMALL = " data.train_size=2000 data.test_sets=[length_10]"  # of the embedded text
# Run by `make test`; each other command costs seconds, and its part has a faster test of its own.
QUICK = ("model=transformer", "--help", "-c job", "translate", "evaluate", "minitx score", "average", "attention runs",
         "--repeat", "minitx suite")

Shell = Callable[[str], subprocess.CompletedProcess[str]]


def trains(command: str) -> bool:
    return command.startswith("python train.py") and not any(word in command for word in ("--help", " -c "))


@pytest.fixture(scope="module", params=["forked", pytest.param("typed", marks=pytest.mark.slow)])
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Run a line in a folder with the ledger, the docs, a trained run, and text of the names that README uses."""
    folder = tmp_path_factory.mktemp("readme")
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    env.pop("OMP_NUM_THREADS", None)  # a person uses all cores

    def typed(line: str) -> subprocess.CompletedProcess[str]:
        line = line.replace("python train.py", f"python {shlex.quote(str(ROOT / 'train.py'))}")
        return subprocess.run(line, shell=True, cwd=folder, env=env, capture_output=True, text=True, timeout=300,
                              stdin=subprocess.DEVNULL)

    def forked(line: str) -> subprocess.CompletedProcess[str]:
        zygote: Zygote = request.getfixturevalue("zygote")
        line += SMALL * (SHORT in line and "data=" not in line)
        echo, _, command = line.rpartition(" | ")
        program, *words = shlex.split(command.replace("python train.py", "train.py"))
        stdin = "".join(shlex.split(echo)[1:]) + "\n" * bool(echo)
        done = zygote.run(words, program=program, stdin=stdin, cwd=folder)
        return subprocess.CompletedProcess(line, done.returncode, done.stdout, done.stderr)

    run: Shell = {"forked": forked, "typed": typed}[request.param]
    done = run("python train.py experiment=quick run_dir=runs/RUN checkpoint.every_n_steps=1" + SHORT)
    assert done.returncode == 0, done.stderr
    (folder / "test.en").write_text("The dog sees the cat.\n")
    (folder / "test.de").write_text("Der Hund sieht die Katze.\n")
    shutil.copytree(ROOT / "results", folder / "results")
    shutil.copytree(ROOT / "docs", folder / "docs")
    write_digits(folder / "FOLDER", train=100, other=10, languages=("en", "fr"))
    (folder / "README.md").write_text(README, encoding="utf-8")
    return run


def test_there_are_commands_to_test() -> None:
    assert len(COMMANDS) >= 12


@pytest.mark.parametrize("command", [
    pytest.param(command, marks=[] if any(word in command for word in QUICK) else pytest.mark.slow)
    for command in COMMANDS])
def test_command(command: str, shell: Shell) -> None:
    done = shell(command + SHORT * trains(command))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_gets_the_line_that_is_shown(command: str, shell: Shell) -> None:
    done = shell(command)
    assert done.returncode == Exit.USAGE
    assert done.stderr.strip() in LINES


def test_python(shell: Shell) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
    done = shell(shlex.join(["python", "-c", code]))
    assert done.returncode == 0, done.stderr


def test_exit_codes_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| (\d+) \|", README, flags=re.MULTILINE)
    assert [int(code) for code in rows] == sorted(int(code) for code in Exit)
