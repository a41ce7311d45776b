"""What the tests of several commands stand on."""

import os
from pathlib import Path

import pytest
from toys import write_digits


@pytest.fixture
def small_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small text; meanwhile the working directory is empty, one thread is set, and no process begins again."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # so that it is put back afterwards
    monkeypatch.setenv("MINITX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("this process is not the command's own"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return write_digits(tmp_path / "text", train=200, other=20)
