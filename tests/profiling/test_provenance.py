"""What a result says of its origin: the units that make bf16 worth while, and the commit, if there is one."""

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from played_cuda import CUDA, NAME, played_gpu

from minitx.profiling import provenance
from minitx.profiling.provenance import bf16_units, code_sha256, git_state, hardware, peak_memory_gib


@pytest.mark.parametrize(("tiles", "vectors", "units"), [
    (True, True, "AMX"), (False, True, "AVX-512"), (False, False, None)])
def test_the_fastest_units_for_bf16_are_named(monkeypatch: pytest.MonkeyPatch, tiles: bool, vectors: bool,
                                              units: str | None) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: vectors)
    assert bf16_units() == units
    assert hardware(torch.device("cpu"))["bf16_units"] == units


@pytest.mark.parametrize(("system", "most"), [("linux", 3 * 2**20), ("darwin", 3 * 2**30)])
def test_the_most_memory_is_in_the_units_of_the_system(monkeypatch: pytest.MonkeyPatch, system: str, most: int) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=most))
    assert peak_memory_gib(torch.device("cpu")) == peak_memory_gib(torch.device("mps")) == 3.0


def test_a_gpu_is_named_and_its_own_memory_counted() -> None:
    with played_gpu():
        found = hardware(CUDA)
        assert peak_memory_gib(CUDA) == 3.0
    assert (found["gpu"], found["gpu_memory_gib"]) == (NAME, 80.0)
    assert found["cuda"] == torch.version.cuda
    assert found.keys() - hardware(torch.device("cpu")).keys() == {"gpu", "gpu_memory_gib", "cuda"}


def test_a_processor_is_named_as_its_system_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "CPUINFO", tmp_path / "no Linux")
    (sysctl := tmp_path / "sysctl").write_text("#!/bin/sh\necho Apple M0 $2\n")
    sysctl.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert hardware(torch.device("cpu"))["cpu"] == "Apple M0 machdep.cpu.brand_string"
    assert hardware(torch.device("mps"))["gpu"] == "Apple M0 machdep.cpu.brand_string (MPS)"
    sysctl.unlink()
    assert hardware(torch.device("cpu"))["cpu"] == (platform.processor() or platform.machine())


# --- whose code


def test_code_that_differs_in_a_byte_or_a_name_is_told_apart(tmp_path: Path) -> None:
    def package(name: str, **modules: str) -> str:
        for module, text in modules.items():
            path = tmp_path / name / "package" / f"{module}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return code_sha256(tmp_path / name)

    here = package("here", a="x = 1", b="")
    assert package("there", b="", a="x = 1") == here
    (tmp_path / "there/package/__pycache__").mkdir()
    (tmp_path / "there/package/__pycache__/a.pyc").write_bytes(b"made here")
    assert package("there") == here
    others = (package("byte", a="x = 2", b=""), package("name", c="x = 1", b=""), package("moved", a="x = ", b="1"),
              package("more", a="x = 1", b="", c=""))
    assert len({here, *others}) == 5
    assert code_sha256() == code_sha256(provenance.PACKAGE)


# --- whose commit


def git(folder: Path, *words: str) -> str:
    name = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True, text=True,
                          env=os.environ | name).stdout.strip()


def repository(folder: Path, tracks: str = ".") -> str:
    """Make a repository with one commit that tracks these files, and return the commit."""
    git(folder, "init", "-q")
    git(folder, "add", tracks)
    git(folder, "commit", "-q", "--allow-empty", "-m", "one")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source tree as it is unpacked, in a folder that may be a repository of its own."""
    package = tmp_path / "outer/minitx/src/minitx"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    return tmp_path / "outer/minitx"


def test_the_commit_is_that_of_our_own_repository(source: Path) -> None:
    assert git_state(source) == (None, None)
    commit = repository(source)
    assert git_state(source) == (commit, False)
    (source / "README.md").touch()  # no part of what trains
    assert git_state(source) == (commit, False)
    (source / "src/minitx/__init__.py").write_text("import antigravity\n")
    assert git_state(source) == (commit, True)


@pytest.mark.parametrize("tracks", [".", "minitx"])
def test_a_repository_that_our_source_was_unpacked_in_says_nothing_of_it(source: Path, tracks: str) -> None:
    repository(source.parent, tracks)
    assert git_state(source) == (None, None)


def test_a_repository_at_our_top_that_tracks_something_else_says_nothing_of_it(source: Path) -> None:
    (source / "dotfile").touch()
    repository(source, "dotfile")
    assert git_state(source) == (None, None)


def test_variables_that_name_another_repository_are_ignored(source: Path, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.mkdir()
    repository(other)
    commit = repository(source)
    for name, value in {"GIT_DIR": other / ".git", "GIT_WORK_TREE": source, "GIT_INDEX_FILE": other / "index"}.items():
        monkeypatch.setenv(name, str(value))
    assert git_state(source) == (commit, False)
