"""Runs whose layers are computed again for the gradient: the runs that they are without it, on ranks as on one."""

from pathlib import Path

import pytest
from test_ranks import apart, check, words
from trials import train, weights
from zygote import Zygote

AGAIN = "trainer.activation_checkpointing=true"


@pytest.mark.slow
def test_a_run_is_the_same_to_the_bit_and_may_begin_without_it(text: Path, tmp_path: Path) -> None:
    plain, again, halves = (tmp_path / name for name in ("plain", "again", "halves"))
    horizon = "trainer.horizon_steps=20"
    check(train(text, plain, horizon, "trainer.max_steps=20"))
    check(train(text, again, horizon, "trainer.max_steps=20", AGAIN))
    check(train(text, halves, horizon, "trainer.max_steps=10"))
    (halves / "result.json").unlink()  # as after a kill at the very end
    check(train(text, halves, horizon, "trainer.max_steps=20", "resume=auto", AGAIN))
    assert weights(plain) == weights(again) == weights(halves)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_ranks_train_what_one_does_without_it(zygote: Zygote, text: Path, tmp_path: Path, strategy: str) -> None:
    runs = []
    for ranks, more in ((1, []), (2, [AGAIN, f"trainer.strategy={strategy}"])):
        runs.append(tmp_path / str(ranks))
        check(zygote.run(words(text, runs[-1], *more), ranks=ranks))
    assert apart(*runs) < 1e-5
