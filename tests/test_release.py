"""The version is one, wherever it is written."""

import re
import tomllib
from typing import Any

import yaml
from toys import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["title"], citation["version"], citation["license"]) == (
        PROJECT["name"], PROJECT["version"], PROJECT["license"])  # fmt: skip
    assert citation.keys() >= {"cff-version", "message", "authors"}  # what a reader of the format requires, with title


def test_the_changelog_begins_with_this_version_and_goes_back_in_time() -> None:
    heads = re.findall(r"^## \[(\d+)\.(\d+)\.(\d+)\] - (unreleased|\d{4}-\d\d-\d\d)$", CHANGELOG, flags=re.MULTILINE)
    assert len(heads) == CHANGELOG.count("\n## ")
    versions = [tuple(map(int, head[:3])) for head in heads]
    assert ".".join(map(str, versions[0])) == PROJECT["version"]
    assert versions == sorted(set(versions), reverse=True)
