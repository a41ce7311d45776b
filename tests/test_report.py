"""README's tables are those of the ledger, and each number in them has its row."""

from pathlib import Path

import pytest
from toys import ROOT

from minitx.errors import UserError
from minitx.result import Result
from minitx.suites import report

LEDGER = ROOT / "results"


def test_readme_is_what_the_ledger_makes_of_it() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert report.fill(text, report.read(LEDGER)) == text, "run: minitx report"


@pytest.mark.parametrize("path", sorted(LEDGER.glob("*")), ids=lambda path: path.name)
def test_each_row_is_small_and_finished(path: Path) -> None:
    assert path.stat().st_size <= 100_000
    row = report.read(LEDGER)[[p.name for p in sorted(LEDGER.glob("*.json"))].index(path.name)]
    assert row["status"] == "finished"
    assert row.keys() - {"curve", "row"} == set(Result.__dataclass_fields__)


def test_a_lost_marker_is_an_error() -> None:
    with pytest.raises(UserError, match="markers"):
        report.fill("no table here", [])


def test_an_unfinished_run_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no result.json"):
        report.add(tmp_path, tmp_path / "ledger")
