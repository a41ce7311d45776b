"""Tables of studies: a line for each system, its numbers as they were stored; older files are shown, too."""

import json

import pytest
from experiments.reports.test_study_plots import FOUND
from toys import ROOT

from minitx.experiments.reports import findings
from minitx.experiments.reports.study_tables import COUNTED, TABLES, render


def test_a_way_has_its_powers_its_layers_and_what_it_leaves_at_the_shape() -> None:
    head, rule, stored, blocks, lstm = render("memory", FOUND["memory"]).splitlines()
    assert "and 32 sentences of 2,048 in 4 layers of 16 heads" in head
    assert rule.count("---") == head.count(" |") == stored.count(" |")
    assert stored.startswith("| transformer, stored | – | L^2.00 ± 0.01 (16 to 128) | 156 MiB | 128 | ")
    assert "at most, at 128 tokens" in head
    assert stored.endswith("| 1.9 MiB | 1.0 MiB | 136.5 GB |")
    assert blocks.endswith("| 33.0 GB |")
    assert lstm.endswith("| – |"), "it is not counted there"


def test_what_is_counted_without_running_a_step_has_a_column_a_length() -> None:
    points = [{"length": length, "peak_bytes": length * 2**21} for length in (8_192, 32_768)]
    fit = {"exponent": 1.0, "standard_error": 0.0, "from": 8_192, "to": 32_768}
    lines = render("memory", {"counted": {"transformer": {"points": points, "memory": fit}}}, COUNTED)
    assert lines.splitlines()[0] == "| at most, by tokens | 8,192 | 32,768 | grows as |"
    assert lines.splitlines()[2] == ("| transformer | 16,384 MiB | 65,536 MiB | L^1.00 ± 0.00 (8,192 to 32,768) |")


def test_what_is_carried_and_what_a_token_adds_to_it() -> None:
    head, _, transformer, lstm = render("decoding", FOUND["decoding"]).splitlines()
    assert head.endswith("| after 64 tokens | after 128 tokens | after 256 tokens |")
    assert transformer == ("| transformer | 32.1 KiB after 64 | 512 bytes | 2.0 KiB | 32769.00 ms | 65537.00 ms "
                           "| 131073.00 ms |")
    assert lstm == "| lstm_attention | 0.1 KiB after 64 | 0 bytes | 2.0 KiB | 1.00 ms | 1.00 ms | 1.00 ms |"


@pytest.mark.parametrize("name", TABLES)
def test_published_studies_have_a_line_for_each_system_and_a_cell_for_each_head(name: str) -> None:
    path = ROOT / "results" / "studies" / f"{name}.json"
    if not path.exists():
        assert render(name, None) == ""
        return
    found = json.loads(path.read_text())
    lines = render(name, found).splitlines()
    assert len({line.count(" |") for line in lines[2:]} | {lines[0].count(" |")}) == 1
    for system in found.get("families") or found.get("systems") or found["by_length"]:
        assert any(line.startswith(f"| {system} |") for line in lines)


def test_a_prediction_stands_beside_what_came_out() -> None:
    claim = {"claim": "it grows", "expected": "at least 1", "measured": "2", "holds": True, "why": "so it is"}
    plain, foreseen = ({"study": "memory", "claims": claims} for claims in (
        [claim], [claim, claim | {"predicted": "2.5", "claim": "it grows more"}]))
    assert findings.claims(plain)[0] == ["claim", "asked", "measured", "verdict"]
    head, *rows = findings.claims(foreseen)
    assert head == ["claim", "asked", "predicted", "measured", "verdict"]
    assert [row[2] for row in rows] == ["-", "2.5"]
