"""A laptop whose system is not Linux: all that only Linux has is hidden, and a run trains, is scored and translates.

That is no proof that it works there: it shows that nothing of ours asks for what is not there.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toys import ROOT

HIDE = """
import builtins, io, os, runpy, sys, time

for module, name in ((os, "sched_getaffinity"), (os, "confstr"), (os, "confstr_names"), (time, "CLOCK_BOOTTIME")):
    delattr(module, name)
opened, scanned, imported = io.open, os.scandir, builtins.__import__

def is_hidden(path):
    return str(path).startswith(("/proc", "/sys/"))

def open_elsewhere(path, *args, **options):
    if is_hidden(path):
        raise FileNotFoundError(2, "No such file or directory", str(path))
    return opened(path, *args, **options)

def scan_elsewhere(path="."):
    if is_hidden(path):
        raise FileNotFoundError(2, "No such file or directory", str(path))
    return scanned(path)

def import_elsewhere(name, globals=None, *args, **options):
    if name == "fcntl" and (globals or {}).get("__name__", "").startswith("minitx"):
        raise ImportError("no fcntl here")
    return imported(name, globals, *args, **options)

builtins.open = io.open = open_elsewhere
os.scandir, builtins.__import__ = scan_elsewhere, import_elsewhere
sys.argv = sys.argv[1:]
if sys.argv[0] == "minitx":
    runpy.run_module("minitx.cli.main", run_name="__main__", alter_sys=True)
else:
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def elsewhere(folder: Path, *words: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "MINITX_CACHE": str(folder / "cache")}
    command = [sys.executable, "-c", HIDE, *map(str, words)]
    return subprocess.run(command, cwd=folder, env=env, input=text, capture_output=True, text=True, timeout=300,
                          check=False)


@pytest.mark.slow
def test_a_run_needs_nothing_that_only_linux_has(tmp_path: Path) -> None:
    trained = elsewhere(tmp_path, ROOT / "train.py", "experiment=quick", "run_dir=run", "trainer.threads=1")
    assert trained.returncode == 0, trained.stderr
    assert "its file system has no locks (this system has no flock)" in trained.stderr
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["status"] == "finished"
    assert result["not_measured"]["other_cpu_pct"] == "/proc/stat cannot be read here"
    assert result["hardware"]["cpu"]
    assert 0 < result["train_s"] < result["wall_s"]
    translated = elsewhere(tmp_path, "minitx", "translate", "run", text="The dog sees the cat.\n")
    assert (translated.returncode, translated.stdout.count("\n")) == (0, 1), translated.stderr
    examined = elsewhere(tmp_path, "minitx", "doctor", "experiment=quick", "trainer.threads=1")
    assert examined.returncode == 0, examined.stderr
    assert "no problem found" in examined.stdout
