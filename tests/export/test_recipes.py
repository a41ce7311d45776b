"""What the page on exports says is done as it stands, in programs that cannot import minitx."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from exportable import TIED, write_drawn_run
from toys import ROOT

from minitx import load
from minitx.cli import main as cli
from minitx.utils.errors import Exit

PAGE = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
LINES = ["The dog sees the cat.", "A man rides a bicycle."]
WITHOUT_MINITX = "import sys; sys.modules['minitx'] = None\n"


def recipe(library: str) -> str:
    """Return the one block of Python that imports a library first."""
    block, = re.findall(rf"^```python\n(import {library}\b.*?)^```$|^```python\n(from {library} .*?)^```$", PAGE,
                        flags=re.DOTALL | re.MULTILINE)
    return "".join(block)


def export(folder: Path, to: str, *overrides: str) -> Path:
    """Write the run of the page, and do what its command for a format says."""
    command = next(line for line in PAGE.splitlines() if line.startswith(f"minitx export runs/RUN --to {to} "))
    (folder / "runs").mkdir()
    run_dir = write_drawn_run(folder / "runs" / "RUN", *TIED, *overrides)
    assert cli.main(command.split()[1:]) == Exit.OK
    return run_dir


def run(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-I", "-c", WITHOUT_MINITX + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_ctranslate2(tmp_path: Path) -> None:
    own = load(export(tmp_path, "ctranslate2", "decode.max_length_ratio=1e-9", "decode.max_length_extra=20"))
    expected = own.translate(LINES, beam_size=5, length_penalty=0)
    assert run(recipe("ctranslate2").replace("=200", "=20")) == expected


def test_huggingface(tmp_path: Path) -> None:
    own = load(export(tmp_path, "huggingface", "decode.max_length_ratio=1e-9", "decode.max_length_extra=20"))
    code = recipe("transformers").replace("num_beams=1", "num_beams=1, max_length=21")
    assert run("import os; os.environ['HF_HUB_OFFLINE'] = '1'\n" + code) == own.translate(LINES, beam_size=1)


def test_onnx(tmp_path: Path) -> None:
    own = load(export(tmp_path, "onnx", "decode.max_length_ratio=1e-9", "decode.max_length_extra=20"))
    assert run(recipe("numpy").replace("=200", "=20")) == own.translate(LINES, beam_size=1)
