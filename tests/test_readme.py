"""Every command in README runs, as written plus at most two updates."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from toys import ROOT, write_digits

from minitx.utils.errors import Exit

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE = re.sub(r"<!-- report: .*?<!-- /report -->", "", README, flags=re.DOTALL)  # test_report composes what is in these
BLOCKS = re.findall(r"^```\w*\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
LINES = [line.split("  #")[0].strip() for block in BLOCKS for line in block.splitlines()]
INLINE = re.findall(r"`(python train\.py [^`]*)`", PAGE)
COMMANDS = [line for line in [*LINES, *INLINE] if line.startswith(("python train.py", "minitx ", "echo "))]
# Not run here: set-up (`make`, `pip`) is what a person did to get here.
SLIPS = [line.removeprefix("$ ") for line in LINES if line.startswith("$ ")]


def shortened(command: str) -> str:
    """Let a training end after 2 updates, and the outputs of a model that knows no end; all else is as written."""
    if not command.startswith("python train.py") or any(word in command for word in ("--help", " -c ")):
        return command
    return f"{command} trainer.max_steps=2 decode.max_length_ratio=0.3"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to run in, with the ledger, a trained run, and a file pair of the names that README uses."""
    folder = tmp_path_factory.mktemp("readme")
    done = run("python train.py experiment=quick run_dir=runs/RUN trainer.max_steps=2 checkpoint.every_n_steps=1",
               folder)
    assert done.returncode == 0, done.stderr
    (folder / "test.en").write_text("The dog sees the cat.\n")
    (folder / "test.de").write_text("Der Hund sieht die Katze.\n")
    shutil.copytree(ROOT / "results", folder / "results")
    shutil.copytree(ROOT / "docs", folder / "docs")
    write_digits(folder / "FOLDER", train=100, other=10, languages=("en", "fr"))
    (folder / "README.md").write_text(README, encoding="utf-8")
    return folder


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    words = command.replace("python train.py", f"python {shlex.quote(str(ROOT / 'train.py'))}")
    return subprocess.run(words, shell=True, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True,
                          text=True, timeout=300, stdin=subprocess.DEVNULL)


def test_there_are_commands_to_test() -> None:
    assert len(COMMANDS) >= 12


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command: str, place: Path) -> None:
    if "multi30k" in command and "MINITX_DATA" not in os.environ:
        pytest.skip("needs MINITX_DATA: a folder with multi30k/")
    done = run(shortened(command), place)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", SLIPS)
def test_a_slip_gets_the_line_that_is_shown(command: str, place: Path) -> None:
    done = run(command, place)
    assert done.returncode == Exit.USAGE
    assert done.stderr.strip() in LINES


def test_python(place: Path) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_exit_codes_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| (\d+) \|", README, flags=re.MULTILINE)
    assert [int(code) for code in rows] == sorted(int(code) for code in Exit)
