"""What a training takes, without training: the same numbers as the model's own."""

import pytest

from minitx.config.compose import compose
from minitx.experiments.costs.estimate import estimate
from minitx.models.registry import build_model
from minitx.training.launch import resolve


@pytest.mark.parametrize("model", ["lstm", "lstm_attention", "gnmt", "transformer", "transformer_nope"])
def test_parameters_are_counted_without_a_model(model: str) -> None:
    cfg = resolve(compose([f"model={model}", "model.size=tiny", "tokenizer.vocab_size=500"]))
    real = build_model(cfg.model, src_vocab_size=500, tgt_vocab_size=500)
    found = estimate(cfg)
    assert found.params == sum(p.numel() for p in real.parameters())
    assert found.flop is not None
    twice = estimate(resolve(compose([f"model={model}", "model.size=tiny", "tokenizer.vocab_size=500",
                                     f"trainer.max_steps={2 * (cfg.trainer.max_steps or 0)}"])))
    assert twice.flop == pytest.approx(2 * found.flop)


def test_operations_are_about_six_a_parameter_and_token() -> None:
    """Kaplan et al. 2020, section 2.1: forwards two, backwards four; here each token passes one half of the model."""
    cfg = compose(["data=wmt14", "trainer.max_steps=1000"])
    found = estimate(cfg)
    assert found.flop is not None
    assert found.flop == pytest.approx(6 * found.params * 25_000 * 1000, rel=0.35)


def test_minutes_say_nothing_of_operations() -> None:
    found = estimate(compose(["trainer.max_steps=null", "trainer.max_minutes=5"]))
    assert found.flop is found.hours(1000, 50) is None
