"""Every command on README and the site is valid, and those of the first pages run, as written plus two updates.

A command is checked without running it, in a fraction of a second: its words compose, or its arguments parse. Commands
of the pages in `RUN` also run: README's as they are typed, the others in a forked child, on a smaller text.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from toys import ROOT, write_digits
from zygote import Zygote

from minitx.cli import main as cli
from minitx.config.compose import compose
from minitx.utils.errors import Exit

PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))}
NEW_FAMILY = "add-a-model.md"  # `test_docs` follows it: its commands need the family that it adds
ELSEWHERE = "export.md"  # `test_recipes` runs its Python, which needs what its commands write, without minitx
RUN = ("README.md", "quick-start.md", "own-text.md", "your-runs.md", "sweeps.md", "run-folder.md", "config.md",
       "commands.md", "story.md")
# Checked, not run: what trains for minutes, needs a text that is not here, or writes into this repository.
LONG = ("make ", "pip ", "python3 -m", "trainer.max_steps=", "minitx report runs", "minitx study lengths",
        "model=lstm,transformer", "export ")
OURS = ("python ", "minitx ", "make ", "torchrun ", "sbatch ", "echo ")
HARMLESS = {"echo", "cd", "cat", "export", ".", "git", "split", "zcat", "head"}  # programs that are not ours
SHORT = " trainer.max_steps=2 decode.max_length_ratio=0.3"  # an untrained model never ends a sentence by itself
SMALL = " data.train_size=2000 data.test_sets=[length_10]"  # of the embedded text
# Run by `make test`; each other command costs seconds, and its part has a faster test of its own.
QUICK = ("experiment=quick optim.lr", "train.py --help", "-c job", "echo ", "evaluate", "--repeat",
         "attention runs", "minitx suite headline --size small --dry-run")

Done = subprocess.CompletedProcess[str]


def blocks(page: str, *languages: str) -> list[str]:
    """Return a page's code blocks of these languages ("" = none), but for those of tables: `test_markdown` has them."""
    text = re.sub(r"<!-- report: .*?<!-- /report -->", "", PAGES[page], flags=re.DOTALL)
    found = re.findall(r"^```([\w{}-]*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [block for language, block in found if language in languages]


def typed(page: str) -> Iterator[str]:
    """Yield the commands of a page's blocks: all lines of those in bash, and of others what looks like ours."""
    for line in "".join(blocks(page, "bash")).splitlines():
        yield re.split(r"\s+# ", line)[0].strip()
    for line in "".join(blocks(page, "")).splitlines():
        if line.startswith(OURS):
            yield re.split(r"\s+# ", line)[0].strip()


def commands(page: str) -> Iterator[str]:
    """Yield the commands of a page: those of its blocks, and those that stand in its text, if they are whole."""
    yield from typed(page)
    for span in re.findall(r"`((?:python train\.py|minitx \w+|make) [^`]*)`", PAGES[page]):
        if not re.search(r"\.\.\.|\b(?:A,B|NAME|ROW|RUN \w)|^minitx \w+ --[\w-]+$", span):  # the last names an option
            yield span.replace("\n", " ")


COMMANDS = sorted({(command, page) for page in PAGES if page != NEW_FAMILY for command in commands(page)
                   if command})
EVERY = sorted({command for command, _ in COMMANDS})
RUNNABLE = sorted({command for page in RUN for command in typed(page) if not any(word in command for word in LONG)
                   and command.startswith(("python train.py", "minitx ", "echo "))})


# --- checked


def check(command: str) -> None:
    """Refuse a command that could not be run. Errors: whatever shows what is wrong with it"""
    for part in re.split(r" (?:\||&&) ", command):
        words = [word for word in shlex.split(part) if not re.match(r"[A-Z_]+=", word)]
        if not words:
            continue
        program, *rest = words
        script = next((n for n, word in enumerate(words) if word.endswith(("train.py", "train.sbatch"))), None)
        if words[:2] == ["minitx", "train"]:
            check_train(words[2:])
        elif script is not None:
            check_train(words[script + 1:])
        elif program == "minitx":
            check_minitx(rest)
        elif program.startswith("scripts/"):
            assert os.access(ROOT / program, os.X_OK)
        elif program == "make":
            assert rest[0] in re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        elif program.endswith("pip"):
            check_pip(rest)
        elif program.startswith("python") and rest[0] == "-m":
            assert rest[1] in ("venv", "pytest") or (ROOT / rest[1]).is_dir()
        elif program.startswith("python"):
            assert (ROOT / rest[0]).is_file()
        else:
            assert program in HARMLESS, f"{program}: is it a program that a reader has?"


def check_train(words: list[str]) -> None:
    """Compose the words of a training; of a sweep, its first job. A folder of the reader's own holds what we lack."""
    if {"--help", "--config-dir", "-cd"} & set(words):
        return
    flags = {"-c", "job", "--resolve", "--multirun", "-m", "-i", "defaults-tree"}
    sweep = {"--multirun", "-m"} & set(words)
    chosen = [word for word in words if word not in flags]
    compose([re.sub(r"^([\w./]+=[^\[\]',]*),.*$", r"\1", word) if sweep else word for word in chosen
             if "glob(" not in word])


def check_minitx(words: list[str]) -> None:
    """Parse a command of minitx, and compose what it hands on to train.py."""
    if "--help" in words:
        words.remove("--help")
        assert not words or words[0] in cli.COMMANDS
        return
    args = cli._parse(words)
    if words[0] in ("doctor", "estimate", "bench") and not any("," in word for word in args.overrides):
        compose(args.overrides)


def check_pip(words: list[str]) -> None:
    """Check that an extra that is installed is there, and a version is that of constraints.txt."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words:
        if named := re.fullmatch(r"\.\[(.*)\]", word):
            assert set(named[1].split(",")) <= extras.keys()
        if "==" in word:
            assert word in (ROOT / "constraints.txt").read_text().split()


def test_there_are_commands_to_check() -> None:
    assert len(EVERY) >= 60
    assert len(RUNNABLE) >= 20


@pytest.mark.parametrize(("command", "page"), COMMANDS, ids=lambda value: str(value))
def test_a_command_is_valid(command: str, page: str) -> None:
    check(command)


@pytest.mark.parametrize("command", [
    "python train.py model.dropuot=1", "minitx translat RUN", "make trian", "minitx doctor model=gru", "frobnicate now",
    "scripts/gpu_rum.sh",
    "pip install -e '.[reprot]'", "sbatch --nodes=2 scripts/train.sbatch data=wmt41", "python -m benchmark table",
    "python train.py --multirun seed=x,2"])
def test_one_that_is_not_is_found(command: str) -> None:
    with pytest.raises((AssertionError, SystemExit, Exception)):
        check(command)


# --- run


class Place:
    """A folder with the ledger, the docs, a trained run, and text of the names that the pages use."""

    def __init__(self, folder: Path, zygote: Zygote) -> None:
        self.folder, self.zygote = folder, zygote
        self.env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self.env.pop("OMP_NUM_THREADS", None)  # a person uses all cores
        done = self.forked("python train.py experiment=quick run_dir=runs/RUN checkpoint.every_n_steps=1" + SHORT)
        assert done.returncode == 0, done.stderr
        (folder / "test.en").write_text("The dog sees the cat.\n")
        (folder / "test.de").write_text("Der Hund sieht die Katze.\n")
        for name in ("results", "docs"):
            shutil.copytree(ROOT / name, folder / name)
        write_digits(folder / "FOLDER", train=100, other=10, languages=("en", "fr"))
        (folder / "TRAINING").mkdir()
        for language in ("en", "fr"):
            shutil.copy(folder / f"FOLDER/train.{language}", folder / "TRAINING")
        shutil.copy(ROOT / "README.md", folder)

    def typed(self, line: str) -> Done:
        """Run a line as a person does."""
        line = line.replace("python train.py", f"python {shlex.quote(str(ROOT / 'train.py'))}")
        return subprocess.run(line, shell=True, cwd=self.folder, env=self.env, capture_output=True, text=True,
                              timeout=300, stdin=subprocess.DEVNULL)

    def forked(self, line: str) -> Done:
        """Run a line in a child of the zygote, what trains on the embedded text on less of it."""
        line += SMALL * (SHORT in line and "data=" not in line)
        echo, _, command = line.rpartition(" | ")
        program, *words = shlex.split(command.replace("python train.py", "train.py"))
        stdin = "".join(shlex.split(echo)[1:]) + "\n" * bool(echo)
        done = self.zygote.run(words, program=program, stdin=stdin, cwd=self.folder)
        return subprocess.CompletedProcess(line, done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def place(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("pages"), zygote)


def trains(command: str) -> bool:
    return command.startswith("python train.py") and not any(word in command for word in ("--help", " -c "))


def ways(what: str, *, is_quick: bool, is_readme: bool) -> list[Any]:
    """Return how this is run. As typed it shows more, and takes longer: it is forked, too, where that is quick."""
    forked = [pytest.param("forked", what, marks=[] if is_quick else pytest.mark.slow)]
    typed = [pytest.param("typed", what, marks=pytest.mark.slow)]
    return forked * (is_quick or not is_readme) + typed * is_readme


@pytest.mark.parametrize(("way", "command"), [
    way for command in RUNNABLE
    for way in ways(command, is_quick=any(word in command for word in QUICK),
                    is_readme=(command, "README.md") in COMMANDS)])
def test_a_command_runs(way: str, command: str, place: Place) -> None:
    done: Done = getattr(place, way)(command + SHORT * trains(command))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("page", [page for page in PAGES if "\n$ " in PAGES[page]])
def test_a_mistake_gets_the_line_that_is_shown(page: str, place: Place) -> None:
    lines = [line for block in blocks(page, "") for line in block.splitlines()]
    for command in [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]:
        done = place.typed(command)
        assert done.returncode == Exit.USAGE
        assert done.stderr.strip() in lines


@pytest.mark.parametrize(("way", "page"), [
    way for page in PAGES if blocks(page, "python") and page not in (NEW_FAMILY, ELSEWHERE)
    for way in ways(page, is_quick=page == "README.md", is_readme=page == "README.md")])
def test_python(way: str, page: str, place: Place) -> None:
    for code in blocks(page, "python"):
        done: Done = getattr(place, way)(shlex.join(["python", "-c", code]))
        assert done.returncode == 0, done.stderr


def test_the_two_recipes_of_the_embedded_text_are_those_of_conf() -> None:
    told = " ".join(PAGES["results.md"].split())
    for words, beginning in (([], "recipe than this table: "), (["experiment=synthetic_lstm"], "`: ")):
        trainer = compose(words).trainer
        assert f"{beginning}{trainer.max_steps:,} updates of about {trainer.tokens_per_update:,}" in told


# --- README


def test_readme_is_one_page() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 150


def test_readme_leads_to_every_page_that_is_written() -> None:
    """Not what the site alone has: its index, and pages of files that lie elsewhere."""
    written = {name for name, text in PAGES.items() if not text.startswith("<!-- site: page")} - {"README.md"}
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)", PAGES["README.md"]))
    assert written <= linked


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file(page: str) -> None:
    """Where in a page it leads, the site's build checks."""
    folder = ROOT if page == "README.md" else ROOT / "docs"
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.DOTALL | re.M))
    assert not [link for link in links if not (folder / link).is_file()]
