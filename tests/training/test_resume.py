"""What a run that goes on may change: all differences told at once, limits that move in time."""

from dataclasses import replace
from pathlib import Path

import pytest

from minitx.config.compose import compose
from minitx.config.schema import Config, as_dict, resolve_size
from minitx.runs.compatibility import identity, refuse_other_settings, refuse_others
from minitx.training.resume import limits, settle_horizon, settle_target
from minitx.training.state import RunState
from minitx.utils.errors import Exit, UserError

RUN = Path("runs/RUN")


def asked(*overrides: str) -> Config:
    cfg = compose(list(overrides))
    return replace(cfg, model=resolve_size(cfg.model))


def test_every_setting_that_differs_is_told_but_those_that_may() -> None:
    now = as_dict(asked("model.size=small", "optim.lr=0.1", "seed=3", "optim.ema_decay=0.9", "trainer.max_steps=7",
                        "checkpoint.keep=9", "decode=greedy", "trainer.patience=2", "trainer.target_bleu=20"))
    with pytest.raises(UserError) as caught:
        refuse_other_settings(now, as_dict(asked()), RUN)
    first, *lines = str(caught.value).splitlines()
    assert first.startswith("run_dir=runs/RUN: was begun with other settings")
    assert "init_from=runs/RUN" in first
    assert set(lines) == {"  seed: was 1, asked 3", "  model.size: was tiny, asked small",
                          "  model.d_model: was 128, asked 256", "  model.d_ff: was 512, asked 1024",
                          "  model.num_layers: was 2, asked 3", "  optim.lr: was 0.003, asked 0.1",
                          "  optim.ema_decay: was null, asked 0.9"}


def test_another_family_is_told_key_by_key() -> None:
    with pytest.raises(UserError) as caught:
        refuse_other_settings(as_dict(asked("model=lstm")), as_dict(asked()), RUN)
    lines = str(caught.value).splitlines()
    assert "  model.family: was transformer, asked lstm" in lines
    assert "  model.n_heads: was 4, asked null" in lines


def test_the_same_settings_go_on() -> None:
    refuse_other_settings(as_dict(asked("resume=auto", "run_dir=x")), as_dict(asked()), RUN)


@pytest.mark.parametrize(("changes", "lines", "code"), [
    ({"torch": "2.12.0"}, ["  torch: was 2.12.0, is NOW"], Exit.USAGE),
    ({"minitx": "0.0.9", "data_sha256": "b" * 64}, ["  data_sha256: was bbbbbbbbbbbb, is aaaaaaaaaaaa",
                                                    "  minitx: was 0.0.9, is NOW"], Exit.DATA)])
def test_another_text_vocabulary_or_version_is_refused(changes: dict[str, str], lines: list[str], code: Exit) -> None:
    now = identity("a" * 64, "c" * 64)
    refuse_others(now, dict(now), RUN)
    with pytest.raises(UserError) as caught:
        refuse_others(now, now | changes, RUN)
    assert caught.value.code == code
    told = str(caught.value).splitlines()[1:]
    assert told == [line.replace("NOW", now[line.split(":")[0].strip()]) for line in lines]


# --- the horizon: wsd decays over the last 30 %


@pytest.mark.parametrize(("step", "steps", "refused"), [
    (10, 200, ""), (90, 200, "already decays towards step 100"), (90, 100, ""), (50, 80, ""),
    (65, 80, "would have decayed by now towards step 80"), (65, 60, "would have decayed by now towards step 60")])
def test_a_last_step_may_move_until_decay_has_begun(step: int, steps: int, refused: str) -> None:
    state = RunState(step=step, horizon_steps=100)
    cfg, before = asked(f"trainer.max_steps={steps}"), limits(asked("trainer.max_steps=100"))
    if refused:
        with pytest.raises(UserError, match=f"^trainer.max_steps={steps}: the learning rate {refused}; finish the run "
                                            "as begun, or start another from its weights, with init_from"):
            settle_horizon(cfg, state, before)
    else:
        settle_horizon(cfg, state, before)
        assert state.horizon_steps == steps


def minutes(value: str) -> Config:
    return asked("trainer.max_steps=null", f"trainer.max_minutes={value}")


def test_a_horizon_from_minutes_stays_until_the_minutes_move() -> None:
    state = RunState(step=65, horizon_steps=100)
    settle_horizon(minutes("5"), state, limits(minutes("5")))
    assert state.horizon_steps == 100
    settle_horizon(minutes("10"), state, limits(minutes("5")))
    assert state.horizon_steps is None, "to be found anew"
    state = RunState(step=80, horizon_steps=100)
    with pytest.raises(UserError, match="^trainer.max_minutes=10.0: the learning rate already decays"):
        settle_horizon(minutes("10"), state, limits(minutes("5")))
    settle_horizon(minutes("5"), state, limits(minutes("5")))
    assert state.horizon_steps == 100


def test_minutes_may_become_steps_and_steps_minutes() -> None:
    state = RunState(step=10, horizon_steps=100)
    settle_horizon(asked("trainer.max_steps=300"), state, limits(minutes("5")))
    assert state.horizon_steps == 300
    settle_horizon(minutes("5"), state, limits(asked("trainer.max_steps=300")))
    assert state.horizon_steps is None


def test_a_horizon_that_is_given_is_the_horizon() -> None:
    for ends in (["trainer.max_steps=300"], ["trainer.max_steps=null", "trainer.max_minutes=5"]):
        state = RunState()
        settle_horizon(asked(*ends, "trainer.horizon_steps=320"), state, None)
        assert state.horizon_steps == 320


def test_a_new_run_decays_towards_its_last_step() -> None:
    state = RunState()
    settle_horizon(asked("trainer.max_steps=300"), state, None)
    assert state.horizon_steps == 300
    state = RunState()
    settle_horizon(minutes("5"), state, None)
    assert state.horizon_steps is None


# --- the target

VALIDATIONS = [{"step": 10 * n, "tokens": 1000 * n, "train_s": 10.0 * n, "wall_s": 12.0 * n, "bleu": bleu}
               for n, bleu in enumerate((12.0, 25.0, 31.0), 1)]


@pytest.mark.parametrize(("target", "reached_s"), [(40.0, None), (31.0, 30.0), (20.0, 20.0), (30.0, 29.5)])
def test_a_target_that_moves_is_reached_when_it_was(target: float, reached_s: float | None) -> None:
    state = RunState(best_valid_bleu=31.0, best_step=300, at_target={"train_s": 29.5})
    settle_target(state, target, 30.0, VALIDATIONS)
    assert (state.at_target and state.at_target["train_s"]) == reached_s
    assert state.best_step == 300


def test_what_an_earlier_target_took_is_in_the_records_but_for_its_energy() -> None:
    state = RunState(at_target=None)
    settle_target(state, 20.0, 30.0, VALIDATIONS)
    assert state.at_target == {"steps": 20, "tokens": 2000, "train_s": 20.0, "wall_s": 24.0, "energy_wh": None}


@pytest.mark.parametrize(("target", "before"), [(None, 30.0), (30.0, None)])
def test_scores_on_another_set_choose_the_best_anew(target: float | None, before: float | None) -> None:
    state = RunState(best_valid_bleu=31.0, best_step=300, validated_step=300, validations_since_best=2)
    settle_target(state, target, before, VALIDATIONS)
    assert (state.best_valid_bleu, state.best_step, state.validated_step, state.validations_since_best,
            state.at_target) == (None, None, None, 0, None)
