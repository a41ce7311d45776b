"""The wheel, in an environment of its own and an empty folder: it can do what the checkout can.

It is built from the source distribution, so that one holds all that is needed too. Nothing is downloaded: the
environment sees the packages of this one, but not this checkout.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest
from toys import ROOT

from minitx.utils.errors import Exit

pytestmark = pytest.mark.slow
SOURCE = ("src", "conf", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "constraints.txt",
          "train.py")
SDIST = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
SHORT = ("experiment=quick", "trainer.max_steps=2")

Run = Callable[..., subprocess.CompletedProcess[str]]


def pip(*words: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *map(str, words)]
    subprocess.run(command, check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a source distribution of a copy of the tree: a build leaves files where it works."""
    folder = tmp_path_factory.mktemp("build")
    tree = folder / "tree"
    tree.mkdir()
    for name in SOURCE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, tree / name)
    subprocess.run([sys.executable, "-c", SDIST, str(folder)], cwd=tree, check=True, capture_output=True, text=True)
    [sdist] = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    [unpacked] = (folder / "unpacked").iterdir()
    pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder, unpacked)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `minitx` of an environment that the wheel was installed in."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    python = folder / "bin/python"
    pip("--python", python, "install", "--no-deps", "--no-index", wheel)
    purelib = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True,
                             capture_output=True, text=True).stdout.strip()
    Path(purelib, "others.pth").write_text(sysconfig.get_path("purelib") + "\n")  # a .pth file in there is not read
    return folder / "bin/minitx"


@pytest.fixture(scope="module")
def run(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a command in a folder that was empty at first; its first word names a file beside `minitx`."""
    folder = tmp_path_factory.mktemp("empty")
    names = ("PYTHON", "MINITX_", "MALLOC_", "GLIBC_", "OMP_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    env |= {"MINITX_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}

    def called(name: str, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run([program.with_name(name), *words], cwd=folder, env=env, input=stdin, capture_output=True,
                              text=True, timeout=300, check=False)

    return called


@pytest.fixture(scope="module")
def trained(run: Run) -> dict[str, object]:
    """The result of `minitx train`."""
    done = run("minitx", "train", *SHORT, "run_dir=mine", "logger=tensorboard")
    assert done.returncode == Exit.OK, done.stderr
    shown = run("python", "-c", "import sys; sys.stdout.write(open('mine/result.json').read())").stdout
    result: dict[str, object] = json.loads(shown)
    return result


def test_the_wheel_holds_conf_and_the_versions(wheel: Path) -> None:
    names = {name for name in ZipFile(wheel).namelist() if name.startswith("minitx/conf/")}
    assert names == {f"minitx/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    inside = ZipFile(wheel).namelist()
    assert {"minitx/constraints.txt", "minitx/py.typed", "minitx/__main__.py", "minitx/data/synthetic/lexicon.tsv",
            "minitx/experiments/reports/page.html"} <= set(inside)
    assert not [name for name in inside if not name.startswith(("minitx/", "minitx-"))]


def test_it_is_the_installed_package_that_runs(run: Run, program: Path) -> None:
    where = run("python", "-c", "import minitx; print(minitx.__file__, minitx.__version__)").stdout.split()
    assert Path(where[0]).is_relative_to(program.parents[1])
    assert run("minitx", "--version").stdout.split() == ["minitx", where[1]]


def test_it_trains_and_says_why_there_is_no_commit(trained: dict[str, object]) -> None:
    assert (trained["status"], trained["steps"], trained["git_sha"]) == ("finished", 2, None)
    assert trained["not_measured"]["git_sha"] == "minitx was installed without its repository"  # type: ignore[index]


@pytest.mark.usefixtures("trained")
def test_it_translates_and_compares(run: Run) -> None:
    done = run("minitx", "translate", "mine", stdin="The dog sees the cat.\n\n")
    assert (done.returncode, done.stdout.count("\n")) == (Exit.OK, 2), done.stderr
    assert run("minitx", "compare", "mine", "mine").returncode == Exit.OK


@pytest.mark.usefixtures("trained")
def test_a_python_program_trains_and_evaluates(run: Run) -> None:
    code = ("import minitx\nrun = minitx.train(['experiment=quick', 'trainer.max_steps=2'], 'other')\n"
            "print(run.result.status, minitx.evaluate(run, ['The dog.'], ['Der Hund.']).sentences)")
    done = run("python", "-c", code)
    assert done.stdout == "finished 1\n", done.stderr


def test_each_job_of_a_sweep_is_a_process_of_the_installed_program(run: Run) -> None:
    done = run("minitx", "train", "--multirun", *SHORT, "run_dir='sweep/${seed}'", "seed=1,2")
    assert done.returncode == Exit.OK, done.stderr
    assert done.stderr.count("finished") == 2


def test_ranks_are_processes_of_the_installed_program(run: Run) -> None:
    done = run("python", "-m", "minitx", "train", *SHORT, "run_dir=ranks", "trainer.devices=2")
    assert done.returncode == Exit.OK, done.stderr
    assert "2 on 1 host" in done.stderr


def test_doctor_knows_the_tested_versions(run: Run) -> None:
    done = run("minitx", "doctor", "--json", *SHORT)
    assert done.returncode == Exit.OK, done.stderr
    assert '"pinned": "2.13.0"' in done.stdout


def test_a_suite_is_planned_and_trained_in_words_that_work_here(run: Run) -> None:
    plan = run("minitx", "suite", "headline", "--size", "smoke", "--dry-run")
    assert "minitx train experiment=" in plan.stdout, plan.stderr
    assert "train.py" not in plan.stdout


def test_what_needs_a_checkout_says_so_in_one_line(run: Run) -> None:
    for words in (["report"], ["suite", "headline", "--publish"]):
        done = run("minitx", *words)
        assert done.returncode == Exit.USAGE
        assert done.stderr == ("minitx: error: results: no such folder of published rows; they come with a checkout of "
                               "minitx, not with the installed package: work in one, or name a folder of your own with "
                               "--ledger\n")


def test_help_shows_what_can_be_typed_here(run: Run) -> None:
    done = run("minitx", "train", "--help")
    assert "    minitx train model=transformer_nope" in done.stdout
    assert "train.py" not in done.stdout
