"""docs/add-a-model.md, done in a copy of the tree: its family has all that ours have, its change trains beside ours."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from toys import ROOT, write_digits
from zygote import Done, Zygote

PAGE = (ROOT / "docs/add-a-model.md").read_text(encoding="utf-8")  # † = no commit holds its code
NEW = dict(re.findall(r"^`([^`\n]+)`\n\n```(?!diff)\w+\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE))
ADDED = dict(re.findall(r"^`([^`\n]+)`: [^\n]+\n\n```\w+\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE))
CHANGED = re.findall(r"^`([^`\n]+)`\n\n((?:```diff\n.*?^```\n\n?)+)", PAGE, flags=re.DOTALL | re.MULTILINE)
QUICK = ("model.size=toy", "trainer.tokens_per_update=256", "data.max_tokens=256", "trainer.valid_sentences=10",
         "checkpoint.every_n_steps=5", "trainer.max_steps=12", "trainer.valid_every_n_steps=5",
         "trainer.precision=32-true", "decode.beam_size=2")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the page's family and its change in it."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("src", "conf", "docs", "train.py", "tests", "README.md", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tree / name)
    for name, text in NEW.items():
        assert not (tree / name).exists()
        (tree / name).write_text(text, encoding="utf-8")
    schema, registry = tree / "src/minitx/config/schema.py", tree / "src/minitx/models/registry.py"
    toys, learners = tree / "tests/toys.py", tree / "tests/system/test_learning.py"
    assert ADDED.keys() == {str(path.relative_to(tree)) for path in (schema, registry, toys, learners)}
    for path in (schema, toys, learners):
        path.write_text(path.read_text() + "\n\n" + ADDED[str(path.relative_to(tree))])
    line = '    "lstm": "lstm.LSTMSeq2Seq",\n'
    registry.write_text(registry.read_text().replace(line, line + ADDED["src/minitx/models/registry.py"]))
    for name, blocks in CHANGED:
        change(tree / name, re.findall(r"```diff\n(.*?)^```$", blocks, flags=re.DOTALL | re.MULTILINE))
    write_digits(tree / "digits")
    shutil.copytree(ROOT / "results" / "selection", tree / "results" / "selection")
    return tree


def change(path: Path, diffs: list[str]) -> None:
    """Put the lines with + in the place of those with -."""
    text = path.read_text(encoding="utf-8")
    for diff in diffs:
        before, after = ("".join(line[1:] or "\n" for line in diff.splitlines(keepends=True) if line[0] in kept)
                         for kept in (" -\n", " +\n"))
        assert text.count(before) == 1, f"{path.name}: {before}"
        text = text.replace(before, after)
    path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def zygote(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """One that runs the copy."""
    process = Zygote(tmp_path_factory.mktemp("zygote"), root=tree)
    yield process
    process.close()


def run(zygote: Zygote, command: str, **options: Any) -> Done:
    program, *words = shlex.split(command)
    done = zygote.run(words, program=program, cwd=zygote.root, **options)
    assert done.returncode == 0, done.stderr
    return done


def train(zygote: Zygote, run_dir: str, *overrides: str, model: str = "bag") -> None:
    run(zygote, shlex.join(["train.py", "data=files", "data.dir=digits", f"model={model}", f"run_dir={run_dir}", *QUICK,
                            *overrides]))


def newest(run_dir: Path) -> Path:
    """Its name holds the digest of weights, moments and counters."""
    return max((run_dir / "checkpoints").glob("step-*"))


def test_the_page_adds_one_file_one_dataclass_one_yaml_and_one_line() -> None:
    assert NEW.keys() == {"src/minitx/models/bag.py", "conf/model/bag.yaml", "conf/experiment/synthetic_bag.yaml"}
    assert ADDED["src/minitx/config/schema.py"].count("@dataclass") == 1
    assert len(ADDED["src/minitx/models/registry.py"].splitlines()) == 1


@pytest.mark.slow
def test_the_new_family_trains_resumes_and_serves(zygote: Zygote, tree: Path) -> None:
    train(zygote, "whole")
    train(zygote, "killed")
    (tree / "killed/result.json").unlink()
    newest(tree / "killed").unlink()  # as if killed after the checkpoint before
    train(zygote, "killed", "resume=auto")
    one, other = (load_file(newest(tree / name)) for name in ("whole", "killed"))
    assert one.keys() == other.keys()
    assert all(bool((one[name] == other[name]).all()) for name in one)
    lines = run(zygote, "minitx translate whole", stdin="1 2 3\n\n4 5\n").stdout.split("\n")
    assert len(lines) == 4
    assert lines[1] == ""


@pytest.mark.slow
def test_the_new_family_gets_its_row(zygote: Zygote, tree: Path) -> None:
    run(zygote, "train.py experiment=synthetic_bag run_dir=runs/bag data.train_size=2000 model.size=toy "
        "trainer.max_steps=2 trainer.valid_sentences=2 decode.max_length_ratio=0.1 decode.max_length_extra=1")
    run(zygote, "minitx report runs/bag")
    page = (tree / "docs/results.md").read_text(encoding="utf-8")
    assert re.search(r"\| bag†‡? \| ", page)  # † = no commit holds its code, ‡ = something else was running


PYTEST = """
import sys, pytest
sys.exit(pytest.main([*"{files}".split(), "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "", "-k", "{names}"]))
"""
FILES = ("models/test_families.py", "models/test_flops.py", "evaluation/test_attention.py", "system/test_learning.py",
         "training/test_build.py", "config/test_conf.py", "config/test_schema.py")


@pytest.mark.slow
def test_the_new_family_and_the_changed_model_pass_the_tests_of_all(zygote: Zygote) -> None:
    files = " ".join(f"tests/{name}" for name in FILES)
    done = run(zygote, shlex.join(["python", "-c", PYTEST.format(files=files, names="bag or gelu or every_family")]))
    assert "passed" in done.stdout or "100%" in done.stdout


# --- the change


def test_the_change_adds_a_key_an_option_and_a_row_of_tests() -> None:
    assert [name for name, _ in CHANGED] == ["src/minitx/config/schema.py", "conf/model/transformer.yaml",
                                             "src/minitx/models/layers.py", "src/minitx/models/transformer.py",
                                             "tests/toys.py"]


@pytest.mark.slow
def test_the_changed_model_trains_beside_the_one_that_it_was(zygote: Zygote, tree: Path) -> None:
    for name in ("null", "gelu"):
        train(zygote, f"activation={name}", f"model.activation={name}", model="transformer")
    relu, gelu = (load_file(tree / f"activation={name}/model.safetensors") for name in ("null", "gelu"))
    assert {name: weight.shape for name, weight in relu.items()} == {
        name: weight.shape for name, weight in gelu.items()}
    assert any(bool((relu[name] != gelu[name]).any()) for name in relu)
    assert "difference" in run(zygote, "minitx compare activation=null activation=gelu").stdout


@pytest.mark.slow
def test_pages_that_the_change_makes_old_are_written_anew(tree: Path) -> None:
    done = subprocess.run([sys.executable, "docs/reference.py"], cwd=tree, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(tree / "src")})
    assert done.returncode == 0, done.stderr
    assert "docs/config.md: written from the code" in done.stdout
    page = (tree / "docs/config.md").read_text(encoding="utf-8")
    assert "| `model.activation` | `null` | `gelu`; or null | of the feed-forward layer" in page
    assert "| `model=bag` | The mean of the source's embeddings, and a GRU. |" in page
