"""A virtual environment for each peer, made if it is missing."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from minitx.utils.console import Console

PEERS = ("hf", "eole", "joeynmt", "plain", "pymarian", "ctranslate2")
TORCH = "torch==2.13.0"
ROOT = Path(__file__).parents[1]


class NotInstalled(Exception):
    """A peer is missing; the message says why."""


def module(system: str) -> Any:
    """Import a system's adapter; those of peers need only Python until they work."""
    return import_module(f"benchmarks.peers.{system}")


def in_ours(system: str) -> Sequence[str]:
    """Return the packages of a peer that needs no environment but minitx's, with the extra `export`; else none."""
    return getattr(module(system), "IN_OURS", ())


def python(system: str, peers: Path) -> Path:
    """Return the interpreter that runs a system. Errors: `NotInstalled`"""
    if system == "minitx" or in_ours(system):
        return Path(sys.executable)
    if not (peers / system / "installed.json").exists():
        raise NotInstalled(f"not installed: python -m benchmarks setup {system}")
    return peers / system / "bin" / "python"


def install(system: str, peers: Path, console: Console) -> None:
    """Make a peer's environment with its pinned packages, if that was not done before. Errors: `NotInstalled`"""
    if in_ours(system):
        return
    peer, venv = module(system), peers / system
    wanted = {"torch": TORCH if system != "pymarian" else None, "packages": peer.PACKAGES,
              "no_deps": getattr(peer, "NO_DEPS", ())}
    done = venv / "installed.json"
    if done.exists() and json.loads(done.read_text())["wanted"] == json.loads(json.dumps(wanted)):
        return
    console.line(f"{system}: installing into {venv}: minutes")
    shutil.rmtree(venv, ignore_errors=True)
    venv.mkdir(parents=True)
    (venv / "constraints.txt").write_text(f"{TORCH}\n")  # so that no package brings another torch, gigabytes of it
    _run([sys.executable, "-m", "venv", str(venv)], venv)
    pip = [str(venv / "bin" / "pip"), "install", "-q", "-c", str(venv / "constraints.txt")]
    if wanted["torch"]:
        _run([*pip, TORCH], venv)
    _run([*pip, *wanted["packages"]], venv)
    if wanted["no_deps"]:
        _run([*pip, "--no-deps", *wanted["no_deps"]], venv)
    freeze = subprocess.run([pip[0], "freeze"], capture_output=True, text=True, check=True).stdout.split()
    done.write_text(json.dumps({"wanted": wanted, "versions": freeze}, indent=1) + "\n")


def versions(system: str, peers: Path) -> list[str]:
    """List what is installed for a peer, as `pip freeze` writes it."""
    if ours := in_ours(system):
        return [f"{name}=={version(name)}" for name in ours]
    path = peers / system / "installed.json"
    return list(json.loads(path.read_text())["versions"]) if path.exists() else []


def _run(command: list[str], venv: Path) -> None:
    with (venv / "install.log").open("a") as log:
        if subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode:
            raise NotInstalled(f"could not be installed: see {venv / 'install.log'}")
