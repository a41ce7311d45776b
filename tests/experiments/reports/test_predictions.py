"""Tables of predictions: every stored number stands where it belongs, and what is measured stands beside it."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from predicted import CASES, gpu_study
from toys import ROOT

from minitx.experiments.reports import predictions
from minitx.experiments.reports.predictions import BLOCKS, Others, mfu_pct, read_others, render
from minitx.profiling import limits
from minitx.profiling.devices import by_name
from minitx.profiling.fleet import Fleet
from minitx.utils.errors import UserError

LEDGER = ROOT / "results"
OTHERS = read_others(LEDGER)


def cells(text: str, first: str) -> list[list[str]]:
    """Return the rows of Markdown tables that begin with this cell."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [row for row in rows if row[0] == first]


@pytest.mark.parametrize("name", BLOCKS)
def test_each_table_says_that_it_is_predicted_or_published(name: str) -> None:
    text = render(name, gpu_study(), OTHERS)
    heads = [line for line, below in zip(text.splitlines(), text.splitlines()[1:], strict=False)
             if re.fullmatch(r"[|-]+", below)]
    assert heads
    for head in heads:
        if name != "gpu_parts":  # whose errors are of predictions, as its head says
            assert "*predicted*" in head or "published" in head
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) <= len(heads)


@pytest.mark.parametrize("name", BLOCKS)
def test_without_the_study_a_table_says_how_to_make_it(name: str) -> None:
    assert render(name, None, Others()) == (
        "Not predicted yet: `minitx study gpu -o results/studies/gpu.json`, and then `minitx report`, put it here.")


@pytest.mark.parametrize("name", ["gpu_answer", "gpu_speed", "gpu_bounds", "gpu_quality", "gpu_published"])
def test_the_expected_error_stands_below(name: str) -> None:
    last = render(name, gpu_study(), OTHERS).splitlines()[-1]
    assert ("Expected error: of 8 published trainings on A100, predicted with constants of a V100, a median of 12 % "
            "and 16 % at most") in last


def test_an_update_has_its_range_and_busy_its_two_ends() -> None:
    (row,) = cells(render("gpu_answer", gpu_study(), OTHERS), "LSTM")
    assert row[1:7] == ["10.0 (5.0 to 20.0)", "10 to 99 %", "1 %", "80.0 (40.0 to 160.0)", "1 to 99 %", "0.12 %"]
    assert row[7:] == ["18 (6 to 54)", "-"], "seconds: 1,800 updates of 10 ms; it does not get to the higher BLEU"


def test_what_was_not_predicted_is_a_dash() -> None:
    (row,) = cells(render("gpu_answer", gpu_study(), OTHERS), "LSTM, cell by cell")
    assert row[1] == "20.0 (10.0 to 40.0)"
    assert row[4:7] == ["-", "-", "-"]


def test_every_size_and_gpu_has_its_row() -> None:
    text = render("gpu_speed", gpu_study(), OTHERS)
    rows = cells(text, "Transformer")
    assert [row[1] for row in rows] == 2 * ["V100", "A100", "H100"]
    assert rows[2][2:] == ["bf16", "5.0 (2.5 to 10.0)", "20 to 99 %", "40 %", "2 %", "409,600", "4.5"]
    assert "**Size big**, 8,192 target tokens an update:" in text
    assert "measured" not in text


def measured(tmp_path: Path, **changes: Any) -> Others:
    """Read a file of one measured update."""
    row = {"system": "lstm_cell_loop", "size": "small", "precision": "bf16-mixed", "compile": False,
           "update_ms": 21.5, "busy_pct": 73.4, "sentences": 128, "tgt_len": 16}
    (tmp_path / "gpu").mkdir(exist_ok=True)
    found = {"conditions": {"hardware": {"gpu": "NVIDIA H100 80GB HBM3"}}, "updates": [row | changes]}
    (tmp_path / "gpu/H100.json").write_text(json.dumps(found))
    return read_others(tmp_path)


def test_what_was_measured_stands_beside_what_was_predicted(tmp_path: Path) -> None:
    small, big = render("gpu_speed", gpu_study(), measured(tmp_path)).split("**Size big**")
    assert "| *measured*: ms | busy |" in small
    assert "measured" not in big
    assert [row[9:] for row in cells(small, "LSTM, cell by cell")] == [["-", "-"], ["-", "-"], ["21.5", "73 %"]]
    assert [row[9:] for row in cells(small, "LSTM")] == 3 * [["-", "-"]]
    unseen = measured(tmp_path, busy_pct=None)
    assert cells(render("gpu_speed", gpu_study(), unseen), "LSTM, cell by cell")[2][9:] == ["21.5", "-"]


@pytest.mark.parametrize("changes", [{"sentences": 64}, {"size": "base"}, {"precision": "32-true"}, {"compile": True}])
def test_another_update_is_not_compared(changes: dict[str, Any], tmp_path: Path) -> None:
    assert "measured" not in render("gpu_speed", gpu_study(), measured(tmp_path, **changes))


@pytest.mark.parametrize("content", ["{", "[]", '{"updates": [1]}', '{"conditions": {"hardware": {}}, "updates": []}'])
def test_a_file_of_another_kind_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "gpu").mkdir()
    (tmp_path / "gpu/H100.json").write_text(content)
    with pytest.raises(UserError, match=r"gpu/H100\.json: "):
        read_others(tmp_path)


def test_an_update_is_lost_to_what_bounds_it() -> None:
    small, big = cells(render("gpu_bounds", gpu_study(), OTHERS), "Transformer")
    assert small[1:] == ["700", "5.0", "1.0", "0.0", "0.5", "2.0", "1.5"]
    assert big[2:4] == ["40.0", "8.0"]
    assert predictions.LIMITS.keys() == limits.LIMITS.keys()


def test_errors_are_told_both_ways_with_their_source() -> None:
    text = render("gpu_errors", gpu_study(), OTHERS)
    assert "**Trainings on A100, predicted with constants of a V100**: median error 12 %, largest 16 %." in text
    assert "**Trainings on V100, predicted with constants of an A100**: median error 8 %, largest 10 %." in text
    assert cells(text, "GNMT (LSTM)")[0] == ["GNMT (LSTM)", "A100", "1", "half", "100,000", "108,000", "+8 %"]
    assert cells(text, "GNMT (LSTM)")[-1][-1] == "-10 %"
    assert "Published by: someone, somewhere." in text
    assert "minitx study gpu --size full -o results/studies/gpu.json" in text


def test_what_is_off_in_one_direction_is_told() -> None:
    text = render("gpu_errors", gpu_study(), OTHERS)
    assert "- Transformer big, half: +8 to +16 % on A100, -10 to -5 % on V100." in text


def test_seconds_to_a_bleu_are_told_for_those_that_get_there() -> None:
    text = render("gpu_quality", gpu_study(), OTHERS)
    lower, higher = text.split("**To BLEU 30**")
    assert cells(lower, "LSTM")[0] == ["LSTM", "1,800", "72 (24 to 216)", "36 (12 to 108)", "18 (6 to 54)",
                                       "18 (6 to 54)", "2.2 (0.75 to 6.7)", "18 (6 to 54)", "1.1 (0.37 to 3.4)"]
    assert "(not reached by every seed: LSTM, cell by cell, LSTM)" in higher
    assert not cells(higher, "LSTM")
    assert cells(higher, "Transformer")[0][1] == "1,000"


# --- what was published


def test_published_trainings_have_the_operations_and_weights_of_our_models() -> None:
    from minitx.config.compose import compose
    from minitx.experiments.prediction.speed import without_weights
    from minitx.training.launch import resolve

    for system in OTHERS.training["systems"].values():
        model = without_weights(resolve(compose(["logger=none", "trainer.accelerator=cpu", *system["words"]])))
        lengths = np.array([system["src_len"]]), np.array([system["tgt_len"]])
        assert model.flops(*lengths) / 2 / system["tgt_len"] == pytest.approx(system["multiply_adds"], rel=1e-3)
        assert sum(p.numel() for p in model.parameters()) == pytest.approx(system["params"], rel=1e-3)


def test_mfu_by_hand() -> None:
    system = {"multiply_adds": 100e6, "src_len": 20, "tgt_len": 20}
    row = {"device": "a100", "precision": "half", "tokens": "target", "tokens_per_s": 52_000.0, "gpus": 1}
    assert mfu_pct(row, system) == pytest.approx(10.0), "52,000 * 600e6 = 31.2e12 of 312e12"
    assert mfu_pct(row | {"tokens": "both"}, system) == pytest.approx(5.0)
    assert mfu_pct(row | {"precision": "tf32", "gpus": 2}, system) == pytest.approx(10.0)
    assert mfu_pct(row | {"device": "v100", "precision": "fp32"}, system) == pytest.approx(100 * 31.2 / 15.7)


def test_published_trainings_reach_the_shares_that_others_compute_for_them() -> None:
    """In half precision a sixth to a quarter of the peak with cuDNN's LSTM, a third or more with a Transformer."""
    found = [dict(zip(OTHERS.training["columns"], values, strict=True)) for values in OTHERS.training["rows"]]
    shares = {(row["system"], row["device"], row["precision"]): mfu_pct(row, OTHERS.training["systems"][row["system"]])
              for row in found if row["gpus"] == 1}
    assert shares["gnmt", "a100", "half"] == pytest.approx(17.3, abs=0.1)
    assert shares["gnmt", "v100", "half"] == pytest.approx(23.4, abs=0.1)
    assert shares["gnmt_cell_loop", "a100", "half"] == pytest.approx(3.7, abs=0.1)
    assert shares["transformer_big", "a100", "half"] == pytest.approx(33.4, abs=0.1)
    assert shares["transformer_big", "v100", "fp32"] == pytest.approx(70.7, abs=0.2)


# --- more GPUs


def test_efficiency_is_published_beside_predicted() -> None:
    text = render("gpu_scaling", gpu_study(), OTHERS)
    (row, _) = cells(text, "Transformer big")
    assert row == ["Transformer big", "half", "8", "80 %", "86 %"], "6.4 of 8, and that times 1.16 / 1.08"
    assert "- f = 20 ps: lost in every update for each parameter" in text
    fleet = Fleet(by_name("a100"), exposed=0.5, uneven=0.07, parameter_s=2e-11)
    alone_s, params = 10_240 / 82_059, 210_800_000
    for gpus in (8, 64, 1024):
        (row,) = cells(text, f"{gpus:,}")
        assert row[1].startswith(f"{100 * alone_s / fleet.update_s(alone_s, 2 * params, params, gpus):.0f} %, ")
        share_s = alone_s * 8 / gpus
        assert row[2] == f"{100 * share_s / fleet.update_s(share_s, 2 * params, params, gpus):.0f} %"
    assert cells(text, "8")[0][1].split(",")[0] == cells(text, "8")[0][2], "8 GPUs do the same either way"


def test_the_made_up_study_has_what_the_real_one_has() -> None:
    found, made_up = json.loads((LEDGER / "studies/gpu.json").read_text()), gpu_study()
    assert made_up.keys() <= found.keys()
    for key in ("speeds", "by_width", "by_length", "quality"):
        assert made_up[key][0].keys() <= found[key][0].keys()
    assert made_up["tests"].keys() == found["tests"].keys()
    assert set(predictions.BEHIND) == found["tests"][predictions.WAY]["without"].keys()
    assert set(CASES) <= set(found["sizes"]["cases"])
