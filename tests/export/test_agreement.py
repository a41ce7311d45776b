"""The script that compares an export with its run finds equal what is equal, and measures what is not."""

from pathlib import Path

import pytest
from export_agreement import NEAR_TIE, compare
from exportable import TIED, write_drawn_run

from minitx.export.writing import export_run
from minitx.utils.console import Console


def test_fp32_agrees_and_other_weights_do_not(tmp_path: Path) -> None:
    run_dir = write_drawn_run(tmp_path / "run", *TIED, "decode.max_length_extra=6")
    other = write_drawn_run(tmp_path / "other", *TIED, "model.pos_encoding=none", "decode.max_length_extra=6")
    for name, source in (("ctranslate2", run_dir), ("huggingface", run_dir), ("foreign", other)):
        export_run(source, name if name != "foreign" else "ctranslate2", tmp_path / name)
    for name in ("src", "ref"):
        (tmp_path / name).write_text("the dog sees the cat\nthe cat\na man rides\n")
    exports = [tmp_path / name for name in ("ctranslate2", "huggingface", "foreign")]
    found = compare(run_dir, exports, tmp_path / "src", tmp_path / "ref", Console())
    assert [(one.export, one.beam_size) for one in found] == [
        (folder.name, beam) for beam in (1, 5) for folder in exports]
    for one in found[:2]:
        assert (one.equal, one.gaps) == (3, [])
        assert one.bleu == one.own_bleu
    assert found[2].equal < 3
    assert all(gap > NEAR_TIE for gap in found[2].gaps), "greedy search took the likelier token"
    assert float(found[0].row()[2]) == pytest.approx(100)
