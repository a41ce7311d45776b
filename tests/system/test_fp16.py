"""Runs in fp16: overflows at the start, a run that goes on exactly, and ranks that agree on the scale."""

from pathlib import Path

import pytest
from test_ranks import apart, check, words
from trials import records, train, weights
from zygote import Zygote

from minitx.runs.result import Result
from minitx.training import loss_scale

FP16 = ("trainer.precision=16-mixed", "trainer.horizon_steps=20", "optim.ema_decay=0.9")
TOO_MUCH = 2.0**36  # so much that more than the first ten updates overflow


def scales(run_dir: Path) -> list[tuple[int, float, int, int]]:
    return [(r["step"], r["loss_scale"], r["overflows"], r["nonfinite"]) for r in records(run_dir)
            if r["event"] == "train"]


def test_a_run_goes_on_to_the_bit_through_overflows(text: Path, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale, "FIRST", TOO_MUCH)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    check(train(text, whole, *FP16, "trainer.max_steps=20"))
    done = check(train(text, halves, *FP16, "trainer.max_steps=10"))
    assert f"a gradient does not fit fp16; update skipped, loss scale halved to {TOO_MUCH / 2:,.0f}" in done.stderr
    (halves / "result.json").unlink()  # as after a kill at the very end
    check(train(text, halves, *FP16, "trainer.max_steps=20", "resume=auto"))
    assert weights(halves) == weights(whole)
    assert scales(halves) == scales(whole)
    _, scale, overflows, nonfinite = scales(whole)[-1]
    assert 10 < overflows < 20
    assert scale == TOO_MUCH / 2**overflows
    result = Result.read(whole / "result.json")
    assert (result.status, result.precision, result.nonfinite_steps, nonfinite) == ("finished", "16-mixed", 0, 0)


OVERFLOWING = """
from minitx.cli.train import main
from minitx.training import loss_scale
import sys

loss_scale.FIRST, sys.argv = {first}, ["train.py", *{words}]
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_ranks_agree_on_the_scale_and_train_what_one_does(zygote: Zygote, text: Path, tmp_path: Path,
                                                          strategy: str) -> None:
    runs = []
    for ranks, of_these in ((1, "ddp"), (2, strategy)):
        runs.append(tmp_path / str(ranks))
        asked = words(text, runs[-1], *FP16, "trainer.max_steps=20", f"trainer.strategy={of_these}")
        code = OVERFLOWING.format(first=TOO_MUCH, words=asked)
        check(zygote.run(["-c", code], program="python", ranks=ranks))
    assert scales(runs[0])[-1] == scales(runs[1])[-1]
    assert apart(*runs) < 2e-2
