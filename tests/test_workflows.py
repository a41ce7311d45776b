"""What GitHub and pre-commit run is what the Makefile runs: valid, pinned, and with targets that exist."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from toys import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z][\w-]*):", MAKEFILE, flags=re.MULTILINE))
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
each = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def read(path: Path) -> dict[Any, Any]:
    workflow: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return workflow


def test_there_is_one_for_tests_and_one_for_docs() -> None:
    assert [path.stem for path in WORKFLOWS] == ["docs", "test"]


@each
def test_a_workflow_may_only_read_and_ends(path: Path) -> None:
    workflow = read(path)
    assert workflow["name"] == path.stem
    assert workflow[True] == ["push", "pull_request"]  # YAML 1.1 reads `on` as true
    assert workflow["permissions"] == {"contents": "read"}
    assert all(0 < job["timeout-minutes"] <= 60 and job["runs-on"] for job in workflow["jobs"].values())


@each
def test_a_step_is_a_pinned_action_or_a_target_of_the_makefile(path: Path) -> None:
    steps = [step for job in read(path)["jobs"].values() for step in job["steps"]]
    assert len(steps) >= 3
    for step in steps:
        assert ("uses" in step) != ("run" in step)
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"]), "a tag can be moved, a commit not"
        else:
            make, *targets = step["run"].split()
            assert make == "make"
            assert set(targets) <= TARGETS


def test_every_python_that_is_promised_is_tried() -> None:
    project = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert project
    tried = read(ROOT / ".github/workflows/test.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert tried == [f"3.{minor}" for minor in range(int(project[1]), int(project[2]))]


def test_pre_commit_runs_the_checks_of_the_makefile() -> None:
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repo["repo"] for repo in repos] == ["local"], "nothing is downloaded"
    entries = [hook["entry"].replace(" --force-exclude", "") for hook in repos[0]["hooks"]]
    recipe = re.search(r"^check: .*\n((?:\t.*\n)+)", MAKEFILE, flags=re.MULTILINE)
    assert recipe
    checks = [line.strip().replace("$(BIN)", ".venv/bin").removesuffix(" .") for line in recipe[1].splitlines()]
    assert entries == checks
