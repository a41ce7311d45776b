"""notebooks/first_steps.ipynb: committed without outputs, and every cell runs, though on fewer updates than it says."""

import json
from pathlib import Path
from typing import Any

import pytest
from toys import ROOT

NOTEBOOK = ROOT / "notebooks/first_steps.ipynb"
SAYS, DOES = "UPDATES = 1000", "UPDATES = 4"
SMALL = '"data.train_size=2000", "decode.max_length_ratio=0.3", '  # an untrained model never ends a sentence by itself


def cells(kind: str) -> list[dict[str, Any]]:
    content: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == kind]


def test_it_is_committed_without_outputs() -> None:
    assert cells("code")
    assert not [cell["id"] for cell in cells("code") if cell["outputs"] or cell["execution_count"] is not None]


def test_it_opens_with_what_will_be_seen() -> None:
    assert "".join(cells("markdown")[0]["source"]).count("\n1. ") == 1
    assert len(cells("markdown")) >= 8, "each step says what to look for"


@pytest.mark.slow
def test_every_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("MINITX_CACHE", str(tmp_path / "cache"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    settings = next(cell for cell in notebook.cells if cell.id == "settings")
    assert SAYS in settings.source
    settings.source = settings.source.replace(SAYS, DOES).replace("WORDS = [", f"WORDS = [{SMALL}")
    settings.source = settings.source.replace("n_steps=100", "n_steps=2")
    NotebookClient(notebook, timeout=300, kernel_name="python3",
                   resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = {cell.id: json.dumps(cell.outputs) for cell in notebook.cells if cell.cell_type == "code"}
    pictures = {name for name, output in shown.items() if "image/png" in output}
    assert pictures == {"curve-plot", "heads-plot", "both-curves"}
    assert "roles right" in shown["roles-table"]
    assert "interval" in shown["compare-runs"]
