"""fp16's loss scale: torch's own rule, what an overflow costs, and that an update is the same at any scale."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import FAMILIES, random_batch

from minitx.config.compose import compose
from minitx.data.datamodule import PlannedUpdate, Turn
from minitx.models.base import Seq2Seq
from minitx.training import loss_scale
from minitx.training.state import RunState
from minitx.training.task import TranslationTask

OVERFLOWS = 2.0**40  # a scale that no gradient fits at


class Task(TranslationTask):
    """A task whose optimizer is at hand without a trainer."""

    def __init__(self, model: Seq2Seq, state: RunState, precision: str, *words: str) -> None:
        optim = compose(["optim.warmup_steps=0", *words]).optim
        super().__init__(model, optim, state=state, precision=precision, seed=1)
        self.optimizer = self.configure_optimizers()

    def optimizers(self, *_: Any) -> Any:
        return self.optimizer

    def manual_backward(self, loss: torch.Tensor, *_: Any, **__: Any) -> None:
        loss.backward()

    def update(self, number: int) -> None:
        """Do one update of two micro-batches, and count it as a run does."""
        batches = [random_batch(9, seed, recurring=True) for seed in (2 * number, 2 * number + 1)]
        turns = [Turn(i, batch, 1.0) for i, batch in enumerate(batches)]
        n_tokens = sum(batch.n_tokens for batch in batches)
        self.training_step(PlannedUpdate(0, number, n_tokens, turns, None), 0)  # type: ignore[arg-type]
        assert self.stats is not None
        self.state.step += 1
        self.state.overflows += self.stats.overflowed
        self.state.nonfinite += not (self.stats.finite or self.stats.overflowed)

    @property
    def weights(self) -> list[torch.Tensor]:
        return [p.detach().clone() for p in self.model.parameters()]


@given(st.lists(st.sampled_from([True, True, True, False]), max_size=40), st.integers(1, 4))
def test_it_changes_when_torchs_own_does(finite: list[bool], grows_after: int) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    theirs = torch.amp.GradScaler("cpu", init_scale=loss_scale.FIRST, growth_interval=grows_after)
    ours = RunState(loss_scale=loss_scale.FIRST)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss_scale, "GROWS_AFTER", grows_after)
        for fits in finite[:16]:  # 2^16 halved 16 times is the last that is halved
            theirs.scale(torch.zeros(1))
            parameter.grad = torch.tensor([0.0 if fits else float("inf")])
            theirs.step(optimizer)
            theirs.update()
            assert loss_scale.settle(ours, fits) is not fits
            assert ours.loss_scale == theirs.get_scale()


def test_its_numbers_are_torchs() -> None:
    theirs = torch.amp.GradScaler("cpu")
    assert (theirs.get_scale(), theirs.get_growth_interval()) == (loss_scale.FIRST, loss_scale.GROWS_AFTER)
    assert (theirs.get_growth_factor(), theirs.get_backoff_factor()) == (2.0, 0.5)


def test_what_fits_at_no_scale_is_no_overflow() -> None:
    state = RunState(loss_scale=2.0)
    assert [loss_scale.settle(state, finite=False) for _ in range(3)] == [True, False, False]
    assert state.loss_scale == 1.0


def test_other_formats_have_none() -> None:
    state = RunState()
    assert not loss_scale.settle(state, finite=False)
    assert state.loss_scale is None


@pytest.mark.parametrize("family", ["transformer sinusoidal", "lstm additive", "lstm dot fed", "linear_rnn rglru"])
@pytest.mark.parametrize("optim", ["adamw", "muon"])
def test_an_update_in_fp16_is_that_of_fp32_but_for_rounding(family: str, optim: str) -> None:
    tasks = [Task(FAMILIES[family](), RunState(), precision, f"optim={optim}", "optim.clip_norm=0.1")
             for precision in ("32-true", "16-mixed")]
    before, losses = tasks[0].weights, []
    for task in tasks:
        task.update(0)
        assert task.stats is not None
        losses.append(task.stats.loss_sum)
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)
    moves = [torch.cat([(new - old).flatten() for new, old in zip(task.weights, before, strict=True)])
             for task in tasks]
    assert torch.cosine_similarity(*moves, dim=0) > 0.95


def test_the_scale_changes_no_update_while_all_fits() -> None:
    """It is a power of two, and it is out before the gradient is clipped."""
    after = []
    for scale in (2.0**10, 2.0**14):
        task = Task(FAMILIES["lstm dot"](), RunState(loss_scale=scale), "16-mixed", "optim.clip_norm=0.1")
        task.update(0)
        after.append(task)
    norms = [task.stats.grad_norm for task in after if task.stats is not None]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
    for one, other in zip(after[0].weights, after[1].weights, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-4)


def test_an_overflow_skips_the_update_and_is_no_divergence() -> None:
    state = RunState(loss_scale=OVERFLOWS)
    task = Task(FAMILIES["transformer sinusoidal"](), state, "16-mixed", "optim.ema_decay=0.9")
    before = task.weights
    task.update(0)
    assert task.stats is not None
    assert task.stats.overflowed
    assert all(map(torch.equal, before, task.weights))
    assert not task.optimizer.state
    while task.stats.overflowed:
        task.update(1)
    assert task.stats.finite
    assert not all(map(torch.equal, before, task.weights))
    assert state.nonfinite == 0
    assert state.loss_scale == OVERFLOWS / 2**state.overflows
    assert task.ema is not None
    first = task.ema.averages[0]  # after no earlier update that counts, a tenth is left of what was
    torch.testing.assert_close(first.data, 0.1 * before[0] + 0.9 * task.weights[0])


def test_a_loss_that_is_never_finite_ends_as_divergence() -> None:
    model = FAMILIES["lstm"]()
    with torch.no_grad():
        model.output.weight.fill_(float("nan"))
    state = RunState(loss_scale=4.0)
    task = Task(model, state, "16-mixed")
    for number in range(4):
        task.update(number)
    assert (state.overflows, state.nonfinite, state.loss_scale) == (2, 2, 1.0)


def test_a_gradient_too_small_for_fp16_is_kept_by_the_scale() -> None:
    """Without it most of what this loss sends back through the decoder rounds to 0."""
    def zeros(scale: float) -> float:
        task = Task(FAMILIES["transformer sinusoidal"](), RunState(loss_scale=scale), "16-mixed")
        seen: list[torch.Tensor] = []
        task.model.encoder[0].register_full_backward_hook(lambda *args: seen.append(args[2][0]))  # type: ignore[index, union-attr]
        batch = random_batch(9, 0)
        turn = Turn(0, batch, 1.0)
        task.training_step(PlannedUpdate(0, 0, 10**6 * batch.n_tokens, [turn], None), 0)  # type: ignore[arg-type]
        return float((seen[0][:batch.tgt.n_tokens] == 0).double().mean())

    assert zeros(1.0) > 0.5
    assert zeros(loss_scale.FIRST) < 0.1
