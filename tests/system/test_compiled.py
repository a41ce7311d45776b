"""Runs whose layers are compiled: what they say and record, and that they go on exactly, on ranks as on one."""

from pathlib import Path

import pytest
from safetensors.torch import load_file
from test_ranks import apart, check, words
from trials import records, train, weights
from zygote import Zygote

from minitx.training import compilation

COMPILED = ("trainer.compile=true", "trainer.horizon_steps=20")


@pytest.mark.slow
def test_a_run_says_what_it_compiled_and_goes_on_to_the_bit(text: Path, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "BACKEND", "aot_eager")
    whole, halves, plain = tmp_path / "whole", tmp_path / "halves", tmp_path / "plain"
    done = check(train(text, whole, *COMPILED, "trainer.max_steps=20"))
    assert "step 1: 2 graphs compiled, in " in done.stderr
    [made] = [record for record in records(whole) if record["event"] == "compile"]
    assert (made["step"], made["graphs"]) == (1, 2)
    assert made["seconds"] > 0
    check(train(text, halves, *COMPILED, "trainer.max_steps=10"))
    (halves / "result.json").unlink()  # as after a kill at the very end
    check(train(text, halves, *COMPILED, "trainer.max_steps=20", "resume=auto"))
    assert weights(halves) == weights(whole)
    check(train(text, plain, "trainer.max_steps=1"))
    names = [[*load_file(run / "model.safetensors")] for run in (whole, plain)]
    assert sorted(names[0]) == sorted(names[1])
    refused = train(text, halves, "trainer.horizon_steps=20", "trainer.max_steps=20", "resume=auto")
    assert refused.returncode == 2


AS_TRACED = """
from minitx.cli.train import main
from minitx.training import compilation
import sys

compilation.BACKEND, sys.argv = "aot_eager", ["train.py", *{words}]
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_ranks_with_compiled_layers_train_what_one_does_without(zygote: Zygote, text: Path, tmp_path: Path,
                                                                strategy: str) -> None:
    """Without dropout, whose masks differ."""
    runs = []
    for ranks, more in ((1, ["trainer.compile=null"]), (2, ["trainer.compile=true", f"trainer.strategy={strategy}"])):
        runs.append(tmp_path / str(ranks))
        asked = words(text, runs[-1], "model.dropout=0", "trainer.max_steps=20", *more)
        done = check(zygote.run(["-c", AS_TRACED.format(words=asked)], program="python", ranks=ranks, deadline_s=900))
    assert "step 1: 2 graphs compiled, in " in done.stderr
    assert "trainer.compile" not in done.stderr
    assert apart(*runs) < 1e-5
