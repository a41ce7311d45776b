"""Layers as compiled code: the same updates, one code for all sizes and all layers that are alike, said where it fails.

All but one of these tests let AOTAutograd trace forward and backward passes, and run its graphs without a C++ compiler.
"""

import warnings
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.backends.debugging import aot_eager
from toys import FAMILIES, random_batch

from minitx.config.compose import compose
from minitx.data.datamodule import PlannedUpdate, Turn
from minitx.models import attention, dropout, layers
from minitx.models.base import Seq2Seq
from minitx.models.precision import computing_in
from minitx.training import compilation
from minitx.training.compilation import Compiled, parts
from minitx.training.state import RunState
from minitx.training.task import TranslationTask


class Task(TranslationTask):
    """A task whose optimizer is at hand without a trainer."""

    def __init__(self, model: Seq2Seq, precision: str, *words: str, compiles: bool) -> None:
        super().__init__(model.train(), compose(["optim.warmup_steps=0", *words]).optim, seed=1,
                         state=RunState(horizon_steps=20), precision=precision, compiles=compiles)
        self.optimizer = self.configure_optimizers()

    def optimizers(self, *_: Any) -> Any:
        return self.optimizer

    def manual_backward(self, loss: torch.Tensor, *_: Any, **__: Any) -> None:
        loss.backward()

    def updates(self, numbers: range) -> list[float]:
        """Do updates of micro-batches whose shapes all differ. --> losses, per token"""
        losses = []
        for number in numbers:
            batches = [random_batch(3 + 2 * number, number, recurring=True), random_batch(40 - number, number)]
            turns = [Turn(i, batch, 1.0) for i, batch in enumerate(batches)]
            n_tokens = sum(batch.n_tokens for batch in batches)
            self.training_step(PlannedUpdate(0, number, n_tokens, turns, None), 0)  # type: ignore[arg-type]
            assert self.stats is not None
            losses.append(self.stats.loss_sum / n_tokens)
            self.state.step += 1
        return losses


@pytest.fixture(autouse=True)
def traced(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let graphs run as they were traced, note each, and let each test begin without code."""
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return aot_eager(graph, inputs)

    monkeypatch.setattr(compilation, "BACKEND", backend)
    torch.compiler.reset()
    return graphs


@pytest.fixture
def as_gpus_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CPU run what GPUs and compilers get, so that dropout draws the same numbers."""
    for module in (attention, dropout, layers):
        monkeypatch.setattr(module, "on_cpu", lambda x: False)


def same_losses(family: str, precision: str = "32-true", *words: str, rel: float = 1e-5, **changes: Any) -> Task:
    plain, compiled = (Task(FAMILIES[family](**changes), precision, *words, compiles=compiles)
                       for compiles in (False, True))
    expected = plain.updates(range(20))
    assert len(set(expected)) == 20
    assert compiled.updates(range(20)) == pytest.approx(expected, rel=rel)
    assert compiled.compiled is not None
    assert not compiled.compiled.has_failed
    return compiled


def test_twenty_updates_are_those_without_it(as_gpus_do: None, traced: list[Any]) -> None:
    """Dropout, an average of the weights and Muon included. One code serves every shape, and both layers of a kind.

    No graph is traced twice, as it is where a number of a layer is a symbol at first.
    """
    task = same_losses("transformer sinusoidal", "32-true", "optim=muon", "optim.ema_decay=0.9", dropout=0.1)
    assert task.compiled is not None
    assert task.compiled.made.graphs == len(traced) == 2  # an encoder layer, a decoder layer
    assert task.compiled.made.seconds > 0


@pytest.mark.slow
@pytest.mark.parametrize(("family", "graphs"), [
    ("transformer rope", 2), ("transformer post-norm", 2), ("transformer window", 2),
    ("lstm additive", 1), ("lstm dot fed", 1),
    ("linear_rnn ssru", 5), ("linear_rnn rglru attention", 5)])  # a scan has a round for each doubling of the steps
def test_every_family_trains_the_same(family: str, graphs: int) -> None:
    task = same_losses(family)
    assert task.compiled is not None
    assert task.compiled.made.graphs == graphs


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "rel"), [("64-true", 1e-12), ("bf16-mixed", 2e-2), ("16-mixed", 2e-3)])
def test_in_every_number_format(precision: str, rel: float) -> None:
    same_losses("transformer sinusoidal", precision, rel=rel)


def test_attention_over_packed_sentences_is_compiled_whole_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As GPUs take it in bf16: both passes are traced, and then the CPU has no flash attention to run."""
    monkeypatch.setattr(attention, "has_varlen", lambda q, head_dim: True)
    model = FAMILIES["transformer none"](num_layers=1).train()
    compiled = Compiled(model)
    compiled.is_warm = True
    batch = random_batch(20, recurring=True)
    with computing_in(torch.bfloat16), pytest.raises(NotImplementedError, match="_flash_attention_forward"):
        compiled(batch.src, batch.tgt)
    assert compiled.made.graphs == 1
    assert not compiled.has_failed


def test_the_model_keeps_its_names_and_is_compiled_while_it_trains_alone() -> None:
    plain = FAMILIES["lstm dot"]()
    task = Task(FAMILIES["lstm dot"](), "32-true", compiles=True)
    assert [*task.model.state_dict()] == [*plain.state_dict()]
    assert [name for name, _ in task.named_parameters()] == [f"model.{name}" for name, _ in plain.named_parameters()]
    batch = random_batch(5)
    expected = task.losses(task.model, batch, 0.0)
    assert task.compiled is not None
    assert task.compiled.made.graphs == 0
    copied = deepcopy(task.model)
    for p in task.model.parameters():
        p.data.zero_()
    assert task.losses(copied, batch, 0.0) == expected


def test_what_cannot_be_compiled_is_trained_as_it_is_and_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no compiler\nfor this machine")

    plain = Task(FAMILIES["transformer none"](num_layers=2), "32-true", compiles=False)
    monkeypatch.setattr(compilation, "BACKEND", broken)
    task = Task(FAMILIES["transformer none"](num_layers=2), "32-true", compiles=True)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        losses = task.updates(range(2))
    assert losses == plain.updates(range(2))
    [warning] = [str(w.message) for w in said if "trainer.compile" in str(w.message)]
    assert "no compiler for this machine" in warning
    assert "\n" not in warning


def test_code_that_is_compiled_again_and_again_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a size is a constant for some reason, compiling for each would never end."""
    class Repeats(nn.Module):
        def forward(self, x: torch.Tensor, times: list[int]) -> torch.Tensor:
            for _ in times:
                x = x + 1
            return x

    model: Any = nn.Module()
    model.layers = nn.ModuleList([nn.Sequential(Repeats())])
    model.output = None
    model.forward = lambda src, tgt: model.layers[0](src, [0] * tgt)  # type: ignore[assignment]
    monkeypatch.setattr(compilation, "MOST_VARIANTS", 3)
    monkeypatch.setattr(nn.Sequential, "forward", lambda self, x, times: self[0](x, times))
    compiled = Compiled(model)
    with pytest.warns(UserWarning, match=r"trainer.compile=true: .*limit"):
        found = [compiled(torch.zeros(1), times) for times in range(2, 8)]  # type: ignore[arg-type]
    assert [int(x) for x in found] == [*range(2, 8)]
    assert compiled.made.graphs == 3


def test_a_model_without_such_layers_is_told_so() -> None:
    with pytest.warns(UserWarning, match="trainer.compile=true does nothing"):
        task = Task(FAMILIES["lstm"](), "32-true", compiles=True)
    assert task.updates(range(1)) == Task(FAMILIES["lstm"](), "32-true", compiles=False).updates(range(1))


def test_layers_and_attention_are_compiled_and_recurrences_are_not() -> None:
    kinds = {family: [type(part).__name__ for part in parts(FAMILIES[family](num_layers=1))]
             for family in ("transformer rope", "lstm", "lstm additive", "linear_rnn ssru")}
    assert kinds == {"transformer rope": ["EncoderLayer", "DecoderLayer"], "lstm": [], "lstm additive": [
        "AdditiveAttention"], "linear_rnn ssru": ["EncoderLayer", "DecoderLayer"]}


@pytest.mark.slow
def test_a_real_compiler_makes_code_that_trains_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without dropout, whose masks it draws in its own way."""
    monkeypatch.setattr(compilation, "BACKEND", "inductor")
    same_losses("transformer sinusoidal")
