"""What all models share: evaluation mode that threads do not take from one another, and attention weights."""

from contextlib import ExitStack
from threading import Thread
from typing import Any

import pytest
import torch
from toys import random_batch, tiny_lstm, tiny_transformer

from minitx.models.base import Seq2Seq, evaluating


def modes(model: Seq2Seq) -> list[bool]:
    return [module.training for module in model.modules()]


def test_every_module_gets_its_own_mode_back_even_after_an_error() -> None:
    model = tiny_transformer().train()
    model.encoder.eval()  # as one does with frozen layers
    before = modes(model)
    assert len(set(before)) == 2
    with evaluating(model):
        assert not any(modes(model))
    assert modes(model) == before
    with pytest.raises(ZeroDivisionError), evaluating(model):
        raise ZeroDivisionError
    assert modes(model) == before


def test_blocks_that_overlap_all_evaluate_and_the_last_one_restores() -> None:
    """They belong to different threads, and end in any order."""
    model, other = tiny_transformer().train(), tiny_transformer()
    blocks = [ExitStack() for _ in range(3)]
    for block in blocks:
        block.enter_context(evaluating(model))
    for block in (blocks[0], blocks[2]):
        block.close()
        assert not any(modes(model))
    with evaluating(other):
        blocks[1].close()
        assert all(modes(model))
    assert not any(modes(other)), "it did not train before"


@pytest.mark.parametrize("make", [tiny_transformer, lambda: tiny_lstm(attention="dot")], ids=["transformer", "lstm"])
def test_attention_weights_are_those_of_ones_own_call(make: Any) -> None:
    model, batch, elsewhere = make(), random_batch(3), random_batch(5, seed=1)
    expected = model.attention_weights(batch.src, batch.tgt)

    def meanwhile(*_: Any) -> None:
        hook.remove()
        thread = Thread(target=model, args=(elsewhere.src, elsewhere.tgt))
        thread.start()
        thread.join()

    hook = model.src_embed.register_forward_pre_hook(meanwhile)
    found = model.attention_weights(batch.src, batch.tgt)
    assert not model.src_embed._forward_pre_hooks, "the other thread ran"
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
