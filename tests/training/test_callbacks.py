"""What the records of a run say of its updates."""

from types import SimpleNamespace

import pytest

from minitx.config.compose import compose
from minitx.distributed.ranks import SINGLE
from minitx.training.callbacks import Bookkeeping, gradient_norms
from minitx.training.coordination import Agreement
from minitx.training.signals import Signals
from minitx.training.state import RunState
from minitx.training.task import UpdateStats
from minitx.utils.console import Console


def update(grad_norm: float) -> UpdateStats:
    return UpdateStats(loss_sum=1.0, nll_sum=1.0, n_tokens=1, grad_norm=grad_norm, lr=0.1, finite=True)


@pytest.mark.parametrize(("clip_norm", "clipped_pct"), [(None, 0), (1.0, 75), (2.0, 25), (9.0, 0)])
def test_norms_are_summed_up_by_mean_largest_and_share_clipped(clip_norm: float | None, clipped_pct: float) -> None:
    found = gradient_norms([update(norm) for norm in (0.5, 1.5, 4.0, 2.0)], clip_norm)
    assert found == {"grad_norm": 2.0, "grad_norm_max": 4.0, "clipped_pct": clipped_pct}


def test_without_a_finite_update_there_is_nothing_to_sum_up() -> None:
    assert gradient_norms([], 1.0) == {"grad_norm": None, "grad_norm_max": None, "clipped_pct": None}


@pytest.mark.parametrize(("train_s", "horizon"), [(2.9, None), (15.0, 394)])
def test_minutes_become_steps_at_the_speed_so_far_less_a_margin(train_s: float, horizon: int | None) -> None:
    cfg = compose(["trainer.max_steps=null", "trainer.max_minutes=1", "optim.schedule=cosine"])
    agreement, state = Agreement(SINGLE, Signals()), RunState(step=100, train_s=train_s)
    Bookkeeping(SimpleNamespace(cfg=cfg, state=state, agreement=agreement, console=Console(),
                                record=lambda event, **values: None)).fix_horizon()  # type: ignore[arg-type]
    assert agreement.horizon == horizon
