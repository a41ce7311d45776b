"""Whole trainings as predicted: what ends them, how updates are shared, and what is refused."""

from dataclasses import replace
from math import log

import pytest
from toys import recorded_update

from minitx.config.compose import compose
from minitx.config.schema import Config
from minitx.experiments.prediction import speed
from minitx.experiments.prediction.facts import sections
from minitx.experiments.prediction.speed import EXPECTED_ERROR, micro_batches
from minitx.experiments.prediction.training import Estimate, end, estimate
from minitx.profiling.devices import by_name
from minitx.training.launch import resolve
from minitx.utils.errors import Exit, UserError

H100 = by_name("h100")
OPEN = ["trainer.max_steps=null", "trainer.patience=3", "optim.schedule=constant"]  # nothing but the text ends it


def config(*words: str) -> Config:
    return resolve(compose(["model.size=toy", "data.max_tokens=64", "data.max_length=32", "tokenizer.vocab_size=300",
                            "trainer.tokens_per_update=512", *words]))


@pytest.fixture(autouse=True)
def _unrecorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "record_update", lambda cfg, sentences, length, *_, **__: recorded_update(
        len(micro_batches(cfg, sentences, length))))


def test_updates_times_seconds_are_hours() -> None:
    found = estimate(config("trainer.max_steps=100"), H100, 2, length=8)
    assert (found.sentences, found.micro_batches, found.turns) == (64, 8, 4)
    assert (found.updates, found.ended_by) == (100, "trainer.max_steps=100")
    assert found.hours == pytest.approx(100 * found.speed.seconds / 3600)


@pytest.mark.parametrize(("words", "updates", "key"), [
    (["trainer.max_steps=100"], 100, "trainer.max_steps=100"),
    (["trainer.max_steps=100", "trainer.max_minutes=1"], 100, "trainer.max_steps=100"),
    (["trainer.max_steps=1000", "trainer.max_minutes=1"], 120, "trainer.max_minutes=1.0"),
    (["trainer.max_steps=null", "trainer.max_pflop=0.002"], 20, "trainer.max_pflop=0.002"),
    (OPEN, None, "")])
def test_the_first_limit_ends_a_training(words: list[str], updates: float | None, key: str) -> None:
    found, ended_by = end(config(*words), 0.5, 1e11)
    assert found == (updates and pytest.approx(updates))
    assert ended_by == key


def test_operations_that_a_family_does_not_count_end_nothing() -> None:
    assert end(config("trainer.max_steps=null", "trainer.max_pflop=1"), 0.5, None) == (None, "")


@pytest.mark.parametrize(("gpus", "micro_batches"), [(1, 8), (8, 8), (9, 9), (16, 16), (64, 64)])
def test_each_gpu_has_a_micro_batch_as_in_a_training(gpus: int, micro_batches: int) -> None:
    assert estimate(config(), H100, gpus, 8).micro_batches == micro_batches


@pytest.mark.parametrize(("words", "gpus", "length", "why", "code"), [
    ([], 65, 8, "trainer.tokens_per_update=512: an update has 64 sentences of 8 tokens, so some of 65 GPUs would never "
                "work; raise it, or take fewer", Exit.USAGE),
    ([], 1, 65, "data.max_tokens=64: a sentence of 65 tokens takes 68 padded positions; raise it to that, or lower "
                "--length", Exit.DATA),
    (["trainer.compile=true"], 1, 8, "trainer.compile=true: what compiled code launches is not predicted yet; leave it "
                                     "out", Exit.USAGE),
    (["trainer.strategy=fsdp2", "trainer.devices=2"], 2, 8,
     "trainer.strategy=fsdp2: its exchange is not predicted yet; leave it out", Exit.USAGE)])
def test_what_cannot_be_predicted_is_refused(words: list[str], gpus: int, length: int, why: str, code: Exit) -> None:
    with pytest.raises(UserError) as refused:
        estimate(config(*words), H100, gpus, length)
    assert (str(refused.value), refused.value.code) == (why, code)


def test_an_update_lies_between_fast_and_slow_hosts_and_the_error_on_top() -> None:
    found = estimate(config(), H100, length=8)
    few, many = found.factors
    assert few < 1 < many
    ratio = found.slow.seconds / found.fast.seconds
    assert ratio > 1
    assert log(many / few) == pytest.approx(2 * 1.96 * EXPECTED_ERROR + log(ratio))


def test_memory_holds_weights_gradients_two_moments_and_an_average_if_there_is_one() -> None:
    plain, averaged, half = (estimate(config(*words), H100, 1, 8) for words in (
        [], ["optim.ema_decay=0.99"], ["trainer.precision=bf16-true"]))
    assert [found.state_bytes / found.work.params for found in (plain, averaged, half)] == [16, 20, 8]


def facts(found: Estimate, price: float | None = None) -> dict[str, dict[str, str]]:
    return {section: {fact.name: fact.text for fact in told} for section, told in sections(found, price)}


def test_each_limit_is_told_and_the_largest_bounds() -> None:
    found = estimate(config(), H100, 8, length=8)
    slow = replace(found, speed=replace(found.speed, by_limit_s=found.speed.by_limit_s | {"memory": 9.0}))
    assert facts(slow)["predicted"]["bound_by"].startswith("memory, ")
    lost = sum(fact.value for fact in dict(sections(found))["lost_ms"])
    assert lost == pytest.approx(1e3 * found.speed.seconds)


def test_a_training_bounded_by_time_is_told_how_far_it_comes() -> None:
    by_time = facts(estimate(config("trainer.max_steps=null", "trainer.max_minutes=6"), H100, length=8), price=3)
    assert " to " in by_time["training"]["updates"]
    assert by_time["training"]["hours"].startswith("0.1  6m00s; ")
    assert by_time["training"]["cost"] == "0.30  1 at 3 an hour"
    by_steps = facts(estimate(config("trainer.max_steps=100"), H100, length=8))
    assert by_steps["training"]["updates"] == "100  trainer.max_steps=100"
    assert " to " in by_steps["training"]["hours"]
    assert "cost" not in by_steps["training"]
    open_end = facts(estimate(config(*OPEN), H100, length=8))
    assert open_end["training"]["hours"].startswith("unknown: ")
    assert open_end["predicted"]["tgt_tokens_per_s"]


def test_a_model_too_large_for_the_gpu_is_said_to_be() -> None:
    found = estimate(config(), H100, length=8)
    assert "more than it has" not in facts(found)["model"]["state_gb"]
    huge = replace(found, work=replace(found.work, params=10**10))
    assert facts(huge)["model"]["state_gb"] == ("160.00  of 80: weights, gradients and their moments; activations come "
                                                "on top and are not predicted; more than it has")


def test_before_ampere_bf16_is_said_to_be_fp16() -> None:
    v100 = facts(estimate(config("trainer.precision=bf16-mixed"), by_name("v100"), length=8))
    assert v100["gpu"]["precision"] == "bf16-mixed, as asked; in fp16, since it has no units for bf16"
    assert facts(estimate(config(), by_name("v100"), length=8))["gpu"]["precision"] == "32-true, by auto"
