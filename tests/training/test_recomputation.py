"""Layers that are computed again for the gradient: the same numbers to the bit, and fewer bytes."""

from typing import Any

import pytest
import torch
from toys import FAMILIES, random_batch, tiny_transformer, write_digits

from minitx.config.compose import compose
from minitx.data.batch import collate
from minitx.data.corpus import load_corpus
from minitx.data.tokenizer import TokenizerPair
from minitx.experiments.studies.growth import PeakBytes
from minitx.models.base import Seq2Seq
from minitx.training.build import build_task
from minitx.training.recomputation import recompute
from minitx.training.state import RunState
from minitx.training.task import DTYPES, TranslationTask, explain_out_of_memory
from minitx.utils.errors import UserError

RECOMPUTABLE = sorted(name for name, make in FAMILIES.items() if make().recomputable())


def gradients(model: Seq2Seq, precision: str) -> list[torch.Tensor]:
    """Return losses and gradients of two micro-batches, and the number that is drawn next."""
    task = TranslationTask(model.train(), compose([]).optim, state=RunState(), precision=precision, seed=1)
    torch.manual_seed(1)
    losses = []
    for number in range(2):
        loss, _ = task.losses(task.model, random_batch(9 + number, number, recurring=True), 0.1)
        loss.backward()
        losses.append(loss.detach())
    found = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(found) == len([*model.parameters()])
    return [*losses, *found, torch.rand(1)]


@pytest.mark.parametrize("precision", sorted(DTYPES))
@pytest.mark.parametrize("family", RECOMPUTABLE)
def test_losses_and_gradients_are_those_without_it_to_the_bit(family: str, precision: str) -> None:
    """Dropout included, and what is drawn later."""
    models = [FAMILIES[family](dropout=0.3) for _ in range(2)]
    recompute(models[1], family)
    expected, found = (gradients(model, precision) for model in models)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_layer_is_computed_twice_while_it_trains_and_once_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    model, batch = tiny_transformer(num_layers=3), random_batch(5)
    kind = type(model.encoder[0])
    plain = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, *inputs: (calls.append(self), plain(self, *inputs))[1])
    recompute(model, "transformer")
    with torch.no_grad():
        model(batch.src, batch.tgt)
    assert calls == [*model.encoder]
    features = model(batch.src, batch.tgt)
    assert calls == 2 * [*model.encoder]
    features.sum().backward()
    assert calls == [*model.encoder, *model.encoder, *reversed(model.encoder)]


def test_memory_is_that_of_one_layer_and_of_inputs() -> None:
    def peak(num_layers: int, again: bool) -> int:
        model = tiny_transformer(num_layers=num_layers, dropout=0.1).train()
        if again:
            recompute(model, "transformer")
        batch = collate([[5] * 199] * 2, [[7] * 199] * 2, pad_id=0, bos_id=1, eos_id=2)
        with PeakBytes() as held:
            model(batch.src, batch.tgt).sum().backward()
        return held.peak

    kept = (peak(6, False) - peak(2, False)) / 8  # of an encoder layer and a decoder layer
    inputs = (peak(6, True) - peak(2, True)) / 8
    rows = 2 * 200 * 16 * 4
    assert inputs < 3 * rows
    assert kept > 20 * rows


@pytest.mark.parametrize(("family", "recomputed", "advised"), [
    ("transformer rope", False, True), ("transformer rope", True, False), ("lstm", False, False)])
def test_where_memory_runs_out_it_is_advised_if_it_would_help(family: str, recomputed: bool, advised: bool) -> None:
    model = FAMILIES[family]()
    if recomputed:
        recompute(model, "transformer")
    with (pytest.raises(UserError, match=r"^out of memory at a micro-batch of 3 sentences, .* lower data.max_tokens ")
          as caught, explain_out_of_memory(random_batch(3), model)):
        raise torch.OutOfMemoryError("a device has no more")
    assert ("trainer.activation_checkpointing=true" in str(caught.value)) is advised


@pytest.mark.parametrize("option", ["gnmt", "lstm", "lstm_attention"])
def test_a_family_without_such_layers_is_refused_in_one_line(option: str, tmp_path: Any) -> None:
    text = write_digits(tmp_path / "text")
    words = ["data=files", f"data.dir={text}", "tokenizer.vocab_size=260", f"model={option}", "model.size=toy"]
    cfg = compose([*words, "trainer.activation_checkpointing=true"])
    tokenizers = TokenizerPair.train(load_corpus(cfg.data).sample(), 260, True)
    with pytest.raises(UserError, match=r"^trainer.activation_checkpointing=true: .* has nothing to recompute: .*$"):
        build_task(cfg, tokenizers, RunState(precision="32-true"))
    build_task(compose(words), tokenizers, RunState(precision="32-true"))
