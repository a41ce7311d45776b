"""What predictions rest on, in tables: every stored number where it belongs, and what does not compare left out."""

from pathlib import Path
from typing import Any

import pytest
from toys import ROOT

from minitx.experiments.prediction import cpu
from minitx.experiments.prediction.published import LSTMRun
from minitx.experiments.reports.constants import BLOCKS, SYSTEMS, Evidence, read_evidence, render
from minitx.utils.errors import UserError

KNOWN: dict[str, Any] = {"hardware": {"cpu": "A Processor"}, "versions": {"torch": "2.13.0"}, "threads": 2, "layers": 3,
                         "sentences": 2, "length": 8, "updates": 500, "other_cpu_pct": 0.5, "took_s": 61.0,
                         "precision": "32-true"}
HOST = {"conditions": KNOWN, "rows": [
    {"system": system, "operators": 1400, "views": 400, "update_us": 12_345.0, "operator_us": [8.04, 8.23]}
    for system in ("lstm", "lstm_cell_loop", "transformer")]}
CPU = {"conditions": KNOWN, "errors": {"median": 0.08, "worst": 0.44}, "rows": [
    {"system": "lstm", "size": size, "sentences": 16, "length": length, "measured_ms": 1326.4, "error": error}
    for size, length, error in (("tiny", 8, 0.31), ("small", 64, -0.04))]
    + [{"system": "gnmt", "size": "tiny", "sentences": 16, "length": 8, "measured_ms": 10.0, "error": 0.0}]}
RUNS = [LSTMRun(dtype, 1000, sentences, 64, width, layers, ms, 2 * ms, ms / 10, ms / 5)
        for dtype in ("half", "float") for sentences, width, layers, ms in (
            (4, 40, 1, 7.0), (16, 168, 1, 9.0), (8, 96, 1, 8.0), (64, 192, 4, 100.0))]
FULL = Evidence([HOST], [CPU], RUNS, "someone, somewhere")


def cells(text: str, first: str) -> list[str]:
    """Return the other cells of the row that begins with this one."""
    found, = (line.strip("| ").split(" | ")[1:] for line in text.splitlines() if line.startswith(f"| {first} |"))
    return found


def test_an_operator_of_a_host_has_two_bounds_and_layers_of_onednn_are_left_out() -> None:
    text = render("gpu_hosts", FULL)
    assert cells(text, "Transformer") == ["1,400", "400", "12.3", "8.0 to 8.2"]
    assert "| LSTM |" not in text
    assert "A Processor, one thread, torch 2.13.0: 3 layers of toys" in text
    assert "Predictions take 4 to 24 µs, usually 8." in text


def test_a_step_is_of_one_layer_and_told_with_its_spread() -> None:
    text = render("gpu_steps", FULL)
    assert "| half, forwards | step by step | 8.0 | 7.0 to 9.0 |" in text
    assert "| half, backwards | step by step | 16.0 | 14.0 to 18.0 |" in text
    assert "| fp32, forwards | for narrow states | 0.8 | 0.7 to 0.9 |" in text
    assert "3 LSTMs of one layer, 40 to 168 wide, 4 to 16 sentences" in text
    assert "someone, somewhere" in text


def test_updates_of_a_cpu_stand_in_the_column_of_their_shape() -> None:
    text = render("gpu_cpus", FULL)
    assert cells(text, "LSTM") == ["1,326 (+31 %)", "1,326 (-4 %)"]
    assert cells(text, "GNMT") == ["10 (+0 %)", "-"]
    assert "| tiny, 16 x 8 | small, 16 x 64 |" in text
    assert "A Processor, 2 threads, 32-true, torch 2.13.0; 1m01s." in text
    assert "Median error 8 %, largest 44 %." in text


def test_a_disturbed_measurement_says_so() -> None:
    disturbed = HOST | {"conditions": KNOWN | {"other_cpu_pct": 40.0}}
    assert "Disturbed: other processes took 40 % of the cores." in render("gpu_hosts", Evidence([disturbed]))


@pytest.mark.parametrize("name", ["gpu_cpus", "gpu_hosts"])
def test_without_measurements_a_table_says_how_to_make_it(name: str) -> None:
    text = render(name, Evidence())
    assert text.startswith("Not measured yet: `python scripts/")
    script = text.split()[4]
    assert (ROOT / script).exists()


def test_the_ledgers_own_files_fill_every_table() -> None:
    evidence = read_evidence(ROOT / "results")
    for name in sorted(BLOCKS):
        assert "|---|" in render(name, evidence)


def test_whatever_is_measured_in_full_has_a_name() -> None:
    assert SYSTEMS.keys() >= cpu.SYSTEMS.keys()


@pytest.mark.parametrize("content", ["{", "[]", '{"rows": [1]}', '{"conditions": {"hardware": {}}, "rows": []}'])
@pytest.mark.parametrize("folder", ["cpu", "host"])
def test_a_file_of_another_kind_is_named(folder: str, content: str, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "x.json").write_text(content)
    with pytest.raises(UserError, match=rf"{folder}/x\.json: not what `scripts/{folder}_model\.py` writes"):
        read_evidence(tmp_path)


def test_a_ledger_without_such_files_is_empty(tmp_path: Path) -> None:
    assert read_evidence(tmp_path) == Evidence([], [])
