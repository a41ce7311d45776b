"""`minitx evaluate`, with a stub in place of the model."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from minitx.cli import main as cli
from minitx.config.compose import compose
from minitx.config.saved import freeze
from minitx.config.schema import resolve_size
from minitx.serving.origin import read_origin
from minitx.utils.errors import Exit


def write_config(run_dir: Path, *overrides: str) -> Path:
    run_dir.mkdir()
    cfg = compose(["data=files", "data.src=de", *overrides])
    freeze(replace(cfg, model=resolve_size(cfg.model)), run_dir)
    return run_dir


@pytest.mark.usefixtures("shouter")
class TestEvaluate:
    def test_the_run_says_which_tokenizer_unless_it_is_asked_for(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                 capfd: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr("minitx.cli.evaluate.read_origin", read_origin)
        (tmp_path / "s").write_text("我们明天去北京看朋友。\n", encoding="utf-8")
        zh = write_config(tmp_path / "zh", "data.tgt=zh")
        argv = ["evaluate", str(zh), "--src", str(tmp_path / "s"), "--ref", str(tmp_path / "s")]
        for words, tokenizer, bleu in (([], "zh", "100.00"), (["--tokenize", "char"], "char", "100.00"),
                                       (["--tokenize", "13a"], "13a", "0.00")):
            assert cli.main([*argv, *words]) == Exit.OK
            assert capfd.readouterr().out.startswith(f"BLEU {bleu}  nrefs:1|case:mixed|eff:no|tok:{tokenizer}|")
        argv[1] = str(write_config(tmp_path / "set", "data.tgt=zh", "data.bleu_tokenizer=intl"))
        assert cli.main(argv) == Exit.OK
        assert "|tok:intl|" in capfd.readouterr().out

    def test_scores_with_signatures(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "s").write_text("the dog sees the cat\n\n")
        (tmp_path / "r").write_text("THE DOG SEES THE CAT\n\n")
        argv = ["evaluate", "RUN", "--src", str(tmp_path / "s"), "--ref", str(tmp_path / "r")]
        assert cli.main(argv) == Exit.OK
        bleu, chrf, counted = capfd.readouterr().out.splitlines()
        assert bleu.startswith("BLEU 100.00  nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
        assert chrf.startswith("chrF 100.00  nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
        assert counted == "2 sentences, beam 2, length penalty 1.0"
        assert cli.main([*argv, "--precision", "bf16-mixed"]) == Exit.OK
        assert capfd.readouterr().out.splitlines()[2] == "2 sentences, beam 2, length penalty 1.0, bf16-mixed"
        assert cli.main([*argv, "--json", "--beam-size", "4", "-o", str(tmp_path / "h")]) == Exit.OK
        found = json.loads(capfd.readouterr().out)
        assert found["bleu"] == pytest.approx(100)
        assert found["sentences"] == 2
        assert found["beam_size"] == 4
        assert "moses_bleu" not in found
        assert (tmp_path / "h").read_text() == "THE DOG SEES THE CAT\n\n"

    def test_scores_as_older_papers_do(self, tmp_path: Path, capfd: pytest.CaptureFixture[str],
                                       monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("minitx.cli.evaluate.read_origin", read_origin)
        (tmp_path / "s").write_text("the dog sees the cat.\n")
        (tmp_path / "r").write_text("The dog sees the cat.\n")
        for tgt, code in (("en", Exit.OK), ("xx", Exit.USAGE)):
            run_dir = write_config(tmp_path / tgt, f"data.tgt={tgt}")
            argv = ["evaluate", str(run_dir), "--src", str(tmp_path / "s"), "--ref", str(tmp_path / "r"), "--moses"]
            assert cli.main(argv) == code
            told = capfd.readouterr()
            if code == Exit.OK:
                cased, _, lowered, _ = told.out.splitlines()
                assert float(cased.split()[1]) < 50
                assert lowered.startswith("BLEU 100.00  nrefs:1|case:lc|eff:no|tok:sacremoses-")
                assert lowered.endswith(", 6 reference tokens")
                assert cli.main([*argv, "--json"]) == Exit.OK
                assert json.loads(capfd.readouterr().out)["moses_reference_tokens"] == 6
            else:
                assert "error: --moses: has no rules for xx, which " in told.err
