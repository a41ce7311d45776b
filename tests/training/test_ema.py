"""The average of the weights: what the formula says, and a model that is left as it was."""

import pytest
import torch
from torch import Tensor, nn
from toys import tiny_lstm, tiny_transformer

from minitx.models.base import Seq2Seq
from minitx.training.ema import EMA


def tensors(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def disturb(model: nn.Module) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))


def test_it_is_the_formula_by_hand() -> None:
    model = tiny_transformer().double()
    ema, expected = EMA(model, decay=0.3), tensors(model)
    for t in range(5):
        disturb(model)
        ema.update(t)
        decay = min(0.3, (1 + t) / (10 + t))
        expected = [decay * e + (1 - decay) * p for e, p in zip(expected, tensors(model), strict=True)]
    torch.testing.assert_close([*ema.named().values()], expected, rtol=0, atol=1e-12)
    assert list(ema.named()) == [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize("make", [tiny_transformer, tiny_lstm])
def test_a_block_sees_the_average_and_then_the_model_is_as_it_was(make: type[Seq2Seq]) -> None:
    model = make()
    ema, begun = EMA(model, decay=0.5), tensors(model)
    disturb(model)
    own = tensors(model)
    with ema.swapped_in():
        assert all(map(torch.equal, tensors(model), begun))
    assert all(map(torch.equal, tensors(model), own))
    assert all(map(torch.equal, ema.named().values(), begun))


def test_bf16_weights_are_averaged_in_fp32() -> None:
    model = nn.Linear(2, 2).bfloat16()
    nn.init.zeros_(model.weight)
    ema = EMA(model, decay=0.999)
    nn.init.ones_(model.weight)
    for t in range(100_000, 101_000):
        ema.update(t)
    torch.testing.assert_close(ema.named()["weight"], torch.full((2, 2), 1 - 0.999**1000), rtol=0, atol=1e-4)
    with ema.swapped_in():
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_it_comes_back_from_what_was_saved() -> None:
    one, other = EMA(tiny_transformer(seed=0), 0.9), EMA(tiny_transformer(seed=1), 0.9)
    other.restore({name: average.clone() for name, average in one.named().items()})
    assert all(map(torch.equal, one.named().values(), other.named().values()))


def test_it_is_no_part_of_the_model_and_follows_its_device() -> None:
    model = tiny_transformer()
    assert len(list(model.parameters())) == len(list(EMA(model, 0.9).parameters()))
    ema = EMA(model, 0.9)
    assert not any(p.requires_grad for p in ema.parameters())
    assert {p.device.type for p in ema.to("meta").parameters()} == {"meta"}
    assert {p.device.type for p in model.parameters()} == {"cpu"}
