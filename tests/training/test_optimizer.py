"""What moves the weights: matrices by Muon where asked for, all else exactly as AdamW has it."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from played_cuda import played_gpu
from torch import Tensor
from toys import tiny_lstm, tiny_transformer

from minitx.config.schema import OptimConfig
from minitx.models.base import Seq2Seq
from minitx.runs.checkpoint import load_tensors
from minitx.training.checkpointing import Restore, run_tensors
from minitx.training.optimizer import RMS, build_optimizer, orthogonal
from minitx.training.state import RunState
from minitx.training.task import TranslationTask

OPTIM = OptimConfig(lr=0.01, beta1=0.9, beta2=0.98, eps=1e-9, weight_decay=0.1, matrices="adamw", momentum=0.95,
                    label_smoothing=0.1, clip_norm=None, schedule="constant", warmup_steps=0, decay_fraction=0.3,
                    ema_decay=None)
MUON = replace(OPTIM, matrices="muon")


def moved(model: Seq2Seq, optim: OptimConfig, steps: int = 3) -> dict[str, Tensor]:
    """Take steps along gradients that are the same for every optimizer. --> the weights after them"""
    optimizer = build_optimizer(model, optim, torch.float32)
    draw = torch.Generator().manual_seed(0)
    for _ in range(steps):
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=draw)
        optimizer.step()
        optimizer.zero_grad()
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("make", [tiny_transformer, tiny_lstm])
def test_all_but_matrices_moves_as_adamw_has_it(make: type[Seq2Seq]) -> None:
    before = {name: p.detach().clone() for name, p in make().named_parameters()}
    adamw, muon = moved(make(), OPTIM), moved(make(), MUON)
    for name, p in before.items():
        is_matrix = p.dim() > 1 and "embed" not in name and "output" not in name
        assert torch.equal(adamw[name], muon[name]) != is_matrix, name
        step = (muon[name] - p).square().mean().sqrt() / OPTIM.lr
        assert 0.1 < step < 4, name  # one learning rate for both: 3 steps of about 0.2 to 1 of it


@pytest.mark.parametrize("place", ["cpu", "cuda"])
def test_what_is_fused_is_adamws_formula(place: str) -> None:
    """Decoupled decay, of matrices alone; both moments corrected (Loshchilov & Hutter 2019, algorithm 2)."""
    with played_gpu() if place == "cuda" else nullcontext():
        model = tiny_transformer().double().to(place)
        optimizer = build_optimizer(model, OPTIM, torch.float64)
        before = [p.detach().clone() for p in model.parameters()]
        gradients = [[torch.randn_like(p) for p in before] for _ in range(3)]
        for step in gradients:
            for p, grad in zip(model.parameters(), step, strict=True):
                p.grad = grad.clone()
            optimizer.step()
    assert all(group["fused"] for group in optimizer.param_groups)
    for i, (p, found) in enumerate(zip(before, model.parameters(), strict=True)):
        m = v = torch.zeros_like(p)
        for t, step in enumerate(gradients, 1):
            m, v = 0.9 * m + 0.1 * step[i], 0.98 * v + 0.02 * step[i]**2
            p = p * (1 - 0.01 * 0.1 * (p.dim() > 1)) - 0.01 * (m / (1 - 0.9**t)) / ((v / (1 - 0.98**t)).sqrt() + 1e-9)
        torch.testing.assert_close(found.detach(), p, atol=1e-12, rtol=1e-12)


@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 9))
def test_singular_values_come_near_one(m: int, n: int, seed: int) -> None:
    drawn = torch.randn(2, m, n, generator=torch.Generator().manual_seed(seed))
    u, _, v = torch.linalg.svd(drawn, full_matrices=False)
    x = u * torch.linspace(0.1, 1, min(m, n)) @ v  # of full rank, whatever is rounded
    found = orthogonal(x)
    values = torch.linalg.svdvals(found)
    assert found.shape == (2, m, n)
    assert values.min() > 0.6
    assert values.max() < 1.3
    for same in (orthogonal(x.mT).mT, orthogonal(1000 * x), torch.cat([orthogonal(x[:1]), orthogonal(x[1:])])):
        torch.testing.assert_close(same, found, rtol=1e-3, atol=1e-3)


def test_muons_step_is_its_formula() -> None:
    model = tiny_transformer().double()
    p = model.encoder[0].feed_forward[0].weight  # type: ignore[index, union-attr]
    before, gradients = p.detach().clone(), [torch.randn(p.shape, dtype=torch.float64) for _ in range(2)]
    optimizer = build_optimizer(model, MUON, torch.float64)
    average, expected = torch.zeros_like(p), before
    for grad in gradients:
        p.grad = grad.clone()
        optimizer.step()
        average = 0.95 * average + 0.05 * grad
        direction = orthogonal((0.05 * grad + 0.95 * average)[None])[0]
        expected = expected * (1 - 0.01 * 0.1) - 0.01 * RMS * max(p.shape) ** 0.5 * direction
    torch.testing.assert_close(p.detach(), expected, rtol=0, atol=1e-12)
    assert set(optimizer.state[p]) == {"momentum"}


def test_weights_stay_exact_where_products_are_rounded() -> None:
    model = tiny_transformer()
    optimizer = build_optimizer(model, MUON, torch.bfloat16)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {value.dtype for moments in optimizer.state.values() for value in moments.values()} == {torch.float32}


def test_a_gradient_below_fp16s_range_still_moves_a_matrix() -> None:
    model = tiny_transformer()
    p = model.encoder[0].feed_forward[0].weight  # type: ignore[index, union-attr]
    grad, before = 1e-7 * torch.randn(p.shape), p.detach().clone()
    moves = []
    for dtype in (torch.float32, torch.float16):
        with torch.no_grad():
            p.copy_(before)
        p.grad = grad.clone()
        build_optimizer(model, MUON, dtype).step()
        moves.append((p.detach() - before).flatten())
    assert torch.cosine_similarity(*moves, dim=0) > 0.99


@pytest.mark.parametrize("optim", [OPTIM, MUON], ids=["adamw", "muon"])
def test_it_goes_on_from_what_a_checkpoint_holds(optim: OptimConfig) -> None:
    def task(seed: int) -> tuple[TranslationTask, torch.optim.Optimizer]:
        made = TranslationTask(tiny_transformer(seed), optim, state=RunState(), precision="32-true", seed=0)
        return made, made.configure_optimizers()

    def step(made: TranslationTask, optimizer: torch.optim.Optimizer, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        for p in made.model.parameters():
            p.grad = torch.randn(p.shape, generator=draw)
        optimizer.step()
        optimizer.zero_grad()

    one, first = task(seed=0)
    other, second = task(seed=1)
    step(one, first, 0)
    step(one, first, 1)
    saved = {name: t.detach().clone() for name, t in run_tensors(one, first).items()}
    load_tensors(other.model, {name[len("model/"):]: t for name, t in saved.items() if name.startswith("model/")})
    Restore({name[len("optim/"):]: t for name, t in saved.items() if name.startswith("optim/")}).on_fit_start(
        SimpleNamespace(optimizers=[second]), other)  # type: ignore[arg-type]
    for made, optimizer in ((one, first), (other, second)):
        step(made, optimizer, 2)
    assert all(map(torch.equal, one.model.state_dict().values(), other.model.state_dict().values()))
