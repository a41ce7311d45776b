"""What studies found is shown as it was stored, verdict by verdict."""

import json
from pathlib import Path
from typing import Any

import pytest

from minitx.experiments.reports import findings
from minitx.experiments.reports.study_plots import FIGURES
from minitx.utils.errors import UserError


def claim(holds: bool | None, text: str = "it grows") -> dict[str, Any]:
    return {"claim": text, "expected": "at least 1", "measured": "2", "holds": holds, "why": "1.9 to 2.1 lies within"}


def found(name: str = "gradients", *holds: bool | None, **conditions: Any) -> dict[str, Any]:
    known = {"hardware": {"cpu": "a processor"}, "threads": 2, "precision": "32-true", "seed": 3, "took_s": 61.0,
             "versions": {"torch": "2.13.0"}, "other_cpu_pct": 0.5, "git_dirty": False}
    return {"study": name, "size": "smoke", "claims": [claim(verdict) for verdict in holds],
            "conditions": known | conditions}


def test_each_claim_has_a_line_and_the_conditions_stand_below() -> None:
    assert findings.render("gradients", found("gradients", True, None)).splitlines() == [
        "| claim | asked | measured | verdict |",
        "|---|---|---|---|",
        "| it grows | at least 1 | 2 (1.9 to 2.1 lies within) | holds |",
        "| it grows | at least 1 | 2 (1.9 to 2.1 lies within) | not decided |",
        "",
        "Size smoke, seed 3: a processor, 2 threads, 32-true, torch 2.13.0; 1m01s.",
        "",
        "```",
        "minitx study gradients --seed 3 -o results/studies/gradients.json",
        "```",
    ]


def test_what_casts_a_doubt_is_told_and_the_size() -> None:
    disturbed = found("gradients", True, other_cpu_pct=12.4, git_dirty=True, seed=1) | {"size": "full"}
    text = findings.render("gradients", disturbed)
    assert "Disturbed: other processes took 12 % of the cores. Measured with code that is in no commit." in text
    assert "minitx study gradients --size full -o " in text


def test_what_is_predicted_is_called_so_and_no_machine_is_named() -> None:
    lines = findings.render("gpu", found("gpu", True, other_cpu_pct=60.0, git_dirty=None)).splitlines()
    assert lines[0] == "| claim | asked | predicted | verdict |"
    assert lines[4] == ("Size smoke: computed with torch 2.13.0; 1m01s. No time of this machine is in it. "
                        "Predicted with code that is in no commit.")
    assert findings.render("gpu", None).startswith("Not predicted yet: `minitx study gpu -o ")


def test_verdicts_are_counted() -> None:
    assert findings.tally(found("gradients", True, False, True, None)) == (
        "holds: 2, does not hold: 1, not decided: 1")
    assert findings.tally(found("gradients", True)) == "holds: 1"


def test_what_was_not_measured_says_how() -> None:
    assert findings.render("lengths", None) == (
        "Not measured yet: `minitx study lengths -o results/studies/lengths.json`, and then `minitx report`, put it "
        "here.")


def test_all_are_read_in_one_order(tmp_path: Path) -> None:
    assert findings.read_studies(tmp_path / "none") == {}
    for name in reversed(FIGURES):
        (tmp_path / f"{name}.json").write_text(json.dumps(found(name, True)))
    assert list(findings.read_studies(tmp_path)) == list(FIGURES)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"study": "gradients"}', json.dumps(found("lengths", True))])
def test_a_file_of_another_kind_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "gradients.json").write_text(content)
    with pytest.raises(UserError, match=r"gradients\.json: not what `minitx study gradients -o` writes: "):
        findings.read_studies(tmp_path)
