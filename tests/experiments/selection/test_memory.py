"""Memory of a training is what its code makes: as many sentences as an update has, and all copies of the weights."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx.config.schema import Config
from minitx.experiments.prediction import cpu
from minitx.experiments.prediction.speed import without_weights
from minitx.experiments.selection.candidates import Candidate, config
from minitx.experiments.selection.demands import Demands
from minitx.experiments.selection.memory import counted_here, peak_at, peak_of_update, shares
from minitx.profiling.devices import by_name

H100 = by_name("h100")
USUAL = Demands(16, 16, "h100", tokens=1e7)


def toy(architecture: str = "transformer", again: bool = False, **changes: int) -> Config:
    """changes: tokens_per_update, max_tokens"""
    cfg = config(Candidate(architecture, "toy", "recomputed layers" if again else ""), USUAL)
    trainer = replace(cfg.trainer, tokens_per_update=changes.get("tokens_per_update", 512))
    return replace(cfg, trainer=trainer, data=replace(cfg.data, max_tokens=changes.get("max_tokens", 512)),
                   tokenizer=replace(cfg.tokenizer, vocab_size=300))


def params(cfg: Config) -> int:
    return sum(p.numel() for p in without_weights(cfg).parameters())


@pytest.mark.parametrize(("words", "gpus", "found"), [
    ({"tokens_per_update": 512, "max_tokens": 4096}, 1, (32, False)),
    ({"tokens_per_update": 512, "max_tokens": 4096}, 8, (4, True)),
    ({"tokens_per_update": 4096, "max_tokens": 512}, 1, (32, True)),
    ({"tokens_per_update": 4096, "max_tokens": 512}, 16, (16, True)),
    ({"tokens_per_update": 8, "max_tokens": 512}, 4, (1, True))])
def test_a_micro_batch_has_its_share_of_an_update(words: dict[str, int], gpus: int, found: tuple[int, bool]) -> None:
    assert shares(toy(**words), 16, gpus) == found


@given(st.integers(1, 4096), st.integers(64, 4096), st.integers(2, 64), st.integers(1, 16))
def test_no_micro_batch_has_more_than_an_update_or_than_it_may(update: int, most: int, length: int, gpus: int) -> None:
    sentences, waiting = shares(toy(tokens_per_update=update, max_tokens=most), length, gpus)
    assert (sentences - 1) * length <= update
    assert sentences * length <= most
    assert sentences <= -(-max(1, round(update / length)) // gpus) or sentences == 1
    assert waiting or (gpus == 1 and max(1, round(update / length)) == sentences)


def test_weights_moments_and_gradients_that_wait_are_held_and_an_average_if_there_is_one() -> None:
    """Gradients are made as the pass that frees activations goes on; of another micro-batch they are there before."""
    cfg = toy(tokens_per_update=512)
    one = peak_of_update(cfg, 16, 1, "32-true", H100)
    waiting = peak_of_update(toy(tokens_per_update=1024), 16, 1, "32-true", H100)
    size = 4 * params(cfg)
    assert one > 3 * size
    assert one < waiting <= one + 1.5 * size, "and what is added to them"
    averaged = replace(cfg, optim=replace(cfg.optim, ema_decay=0.99))
    assert peak_of_update(averaged, 16, 1, "32-true", H100) == pytest.approx(one + size, abs=0.05 * size)


@pytest.mark.parametrize("architecture", ["transformer", "linear_rnn"])
def test_layers_that_are_computed_again_take_less(architecture: str) -> None:
    usual, again = (peak_of_update(toy(architecture, again, tokens_per_update=2048, max_tokens=2048), 1024, 1,
                                   "bf16-mixed", H100) for again in (False, True))
    assert again < 0.7 * usual


def test_a_line_through_two_updates_is_what_a_larger_one_takes() -> None:
    cfg = toy(tokens_per_update=4096, max_tokens=4096)
    task = cpu.build_task(cfg, "32-true")
    counted_here(task, cfg, 16, 1, False)  # makes the moments
    notes = list[str]()
    assert peak_at(task, cfg, 16, notes) == pytest.approx(counted_here(task, cfg, 16, 256, False), rel=0.05)
    assert notes == []
