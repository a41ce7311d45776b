"""A run far too short for its text says so once its speed is known; weights that learned nothing are scored cheaply."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from published import write_run

from minitx.config.compose import compose
from minitx.config.schema import Config
from minitx.distributed.ranks import SINGLE
from minitx.runs.result import Result
from minitx.training.enough import FEWEST, MEASURED, PASSES, LongEnough, search_settings, updates_needed, warnings_of
from minitx.training.state import RunState
from minitx.training.summary import summary

EPOCH = 298  # updates of the embedded text


def composed(*words: str) -> Config:
    return compose(["data.recommends.max_steps=800", "data.recommends.tokens_per_update=2048", *words])


@pytest.mark.parametrize(("words", "updates_per_epoch", "needed"), [
    ((), EPOCH, 800),
    (("trainer.tokens_per_update=1024",), 2 * EPOCH, 1600),
    (("trainer.max_steps=44", "optim.lr=1"), EPOCH, 800),
    ((), 20, 20 * PASSES),
    ((), 1, FEWEST),
])
def test_what_a_text_needs_is_what_its_yaml_recommends_or_so_many_passes(
        words: tuple[str, ...], updates_per_epoch: int, needed: int) -> None:
    assert updates_needed(composed(*words), updates_per_epoch) == needed


@pytest.mark.parametrize(("words", "planned", "lines"), [
    (("trainer.max_steps=44", "optim.warmup_steps=4"), 44,
     ["44 updates are too few: this text needs about 800, 3m20s at this speed (trainer.max_steps=800)"]),
    (("trainer.max_steps=null", "trainer.max_minutes=0.2", "optim.warmup_steps=4"), 43.7,
     ["44 updates are too few: this text needs about 800, 3m20s at this speed (trainer.max_minutes=4)"]),
    (("trainer.max_steps=null", "trainer.max_pflop=0.2", "optim.warmup_steps=4"), 44,
     ["44 updates are too few: this text needs about 800, 3m20s at this speed (raise trainer.max_pflop)"]),
    (("trainer.max_steps=300", "optim.warmup_steps=400"), 300,
     ["optim.warmup_steps=400: the learning rate rises for more than half of the run's 300 updates; "
      "optim.warmup_steps=30 would suit them"]),
    (("trainer.max_steps=44", "trainer.max_minutes=30", "optim.warmup_steps=4"), 44,
     ["44 updates are too few: this text needs about 800, 3m20s at this speed (trainer.max_steps=800)"]),
    (("trainer.max_steps=44", "trainer.max_minutes=0.2", "optim.warmup_steps=4"), 43.7,
     ["44 updates are too few: this text needs about 800, 3m20s at this speed "
      "(trainer.max_steps=800 trainer.max_minutes=4)"]),
    (("trainer.max_steps=44", "optim.warmup_steps=4", "init_from=runs/taught"), 44, []),
    (("trainer.max_steps=200", "optim.warmup_steps=100"), 200, []),
])
def test_what_is_said_of_a_short_run(words: tuple[str, ...], planned: float, lines: list[str]) -> None:
    assert warnings_of(composed(*words), planned, EPOCH, update_s=0.25) == lines


PATIENCE = "trainer.patience=10 to end the run once validation finds nothing better"


@pytest.mark.parametrize(("words", "planned", "updates_per_epoch", "lines"), [
    ((), 5000, 1, ["5,000 updates are far too many, 5,000 passes over this text: it needs about 300, 1m15s at this "
                   f"speed (trainer.max_steps=300, or {PATIENCE})"]),
    ((), 3000, 1, []),
    ((), 10 * 30 * 25, 25, []),
    ((), 10 * 30 * 25 + 1, 25, ["7,501 updates are far too many, 300 passes over this text: it needs about 750, 3m08s "
                                f"at this speed (trainer.max_steps=750, or {PATIENCE})"]),
    ((), 100_000, 10_000, []),
    (("trainer.patience=3",), 5000, 1, []),
    (("trainer.target_bleu=30",), 5000, 1, []),
    (("trainer.target_bleu=30", "trainer.stop_at_target=false", "optim.warmup_steps=3000"), 5000, 1,
     ["5,000 updates are far too many", "optim.warmup_steps=3000: the learning rate rises"]),
])
def test_what_is_said_of_a_run_far_too_long(words: tuple[str, ...], planned: float, updates_per_epoch: int,
                                            lines: list[str]) -> None:
    found = warnings_of(composed(*words), planned, updates_per_epoch, update_s=0.25)
    assert len(found) == len(lines)
    assert all(one.startswith(line) for one, line in zip(found, lines, strict=True))


def told(cfg: Config, steps: Iterator[int] | range, *, ranks: Any = SINGLE) -> list[tuple[int, str]]:
    """Go through updates of a quarter of a second, the first of three, and return each warning with its step."""
    warned: list[tuple[int, str]] = []
    state = RunState()
    run: Any = SimpleNamespace(cfg=cfg, state=state, ranks=ranks, updates_per_epoch=EPOCH,
                               console=SimpleNamespace(warn=lambda text: warned.append((state.step, text))))
    callback = LongEnough(run)
    for step in steps:
        state.step, state.train_s = step, 2.75 + 0.25 * step
        callback.on_train_batch_end(*[None] * 4, 0)  # type: ignore[arg-type]
    return warned


def test_it_is_said_once_and_the_slow_first_update_does_not_count() -> None:
    cfg = composed("trainer.max_steps=44", "optim.warmup_steps=4")
    [(step, line)] = told(cfg, range(1, 45))
    assert step == MEASURED + 1
    assert "this text needs about 800, 3m20s at this speed" in line
    assert [step for step, _ in told(cfg, range(31, 45))] == [31 + MEASURED]  # resumed
    [(step, line)] = told(composed("trainer.max_steps=1", "optim.warmup_steps=0"), range(1, 2))
    assert step == 1
    assert line.startswith("1 update is too few")
    assert told(composed(), range(1, 45)) == []
    assert told(cfg, range(1, 45), ranks=SimpleNamespace(is_main=False)) == []


def test_a_limit_in_minutes_becomes_updates_at_the_speed_so_far() -> None:
    cfg = composed("trainer.max_steps=null", "trainer.max_minutes=0.5", "optim.warmup_steps=4")
    [(step, line)] = told(cfg, range(1, 45))
    assert step == MEASURED + 1
    assert line.startswith("42 updates are too few")  # 6 in 4.25 s


def test_a_run_without_an_end_is_told_nothing() -> None:
    cfg = composed("trainer.max_steps=null", "trainer.patience=3", "optim.schedule=constant")
    assert told(cfg, range(1, 45)) == []


@pytest.mark.parametrize("bleu", [None, 1.0, 40.0])
def test_test_sets_are_searched_as_asked(bleu: float | None) -> None:
    decode = compose([]).decode
    assert search_settings(decode, RunState(best_valid_bleu=bleu)) == decode


def test_weights_that_learned_nothing_are_searched_greedily_and_briefly() -> None:
    decode = compose([]).decode
    assert search_settings(decode, RunState(best_valid_bleu=0.4)) == replace(
        decode, beam_size=1, max_length_ratio=1.0, max_length_extra=1)


@pytest.mark.parametrize(("bleu", "lines"), [(0.3, 0), (30.0, 2)])
def test_phenomena_of_a_model_that_translates_nothing_are_not_listed(tmp_path: Path, bleu: float, lines: int) -> None:
    write_run(tmp_path / "run")
    result = Result.read(tmp_path / "run/result.json")
    result.test["test"] |= {"bleu": bleu, "phenomena_bleu": {"accusative": bleu, "bracket": bleu}}
    shown = summary(result, tmp_path / "run").splitlines()
    assert sum(name in line for name in ("accusative", "bracket") for line in shown) == lines
