"""What a GPU is predicted to do: micro-batches that are not recorded, shares of several GPUs, limits that add up."""

import json
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import ROOT, recorded_update

from minitx.config.compose import compose
from minitx.config.schema import Config
from minitx.experiments.prediction import speed
from minitx.experiments.prediction.speed import (
    EXPECTED_ERROR,
    Work,
    cut_after,
    micro_batches,
    predict_speed,
    repeated,
    without_weights,
    work,
)
from minitx.experiments.prediction.update import record_update
from minitx.models.registry import build_model
from minitx.profiling.devices import by_name
from minitx.profiling.fleet import Fleet
from minitx.training.launch import resolve

H100 = by_name("h100")
GPU_STUDY = ROOT / "results/studies/gpu.json"


def config(*words: str) -> Config:
    return resolve(compose(["model.size=toy", "tokenizer.vocab_size=300", *words]))


@given(st.integers(1, 20))
def test_micro_batches_are_repeated(turns: int) -> None:
    assert repeated(recorded_update(min(turns, 2)), turns) == recorded_update(turns)


@given(st.integers(1, 400), st.integers(2, 30), st.integers(1, 16), st.sampled_from([32, 48, 100, 1000]))
def test_what_is_recorded_is_as_many_micro_batches_as_are_repeated(sentences: int, length: int, gpus: int,
                                                                   most: int) -> None:
    cfg = config(f"data.max_tokens={most}", "data.max_length=32")
    sizes = micro_batches(cfg, sentences, length, gpus)
    parts = min(2, ceil(len(sizes) / gpus))
    assert micro_batches(cut_after(cfg, max(sizes), length), parts * max(sizes), length) == parts * [max(sizes)]
    assert sum(sizes) == sentences


@pytest.mark.slow
@pytest.mark.parametrize("model", ["transformer", "lstm_attention"])
def test_a_real_update_is_its_first_two_micro_batches_and_more_of_the_second(model: str) -> None:
    cfg = config(f"model={model}", "data.max_tokens=64", "data.max_length=32")
    whole = record_update(cfg, 32, 8, 8, precision="bf16-mixed", capability=(9, 0))
    assert list(work(cfg, H100, 32, 8, "bf16-mixed").kernels) == whole
    half = record_update(cfg, 16, 8, 8, precision="bf16-mixed", capability=(9, 0))
    assert list(work(cfg, H100, 32, 8, "bf16-mixed", gpus=2).kernels) == half


@pytest.fixture
def unrecorded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Nothing is recorded; the sentences that would have been are noted."""
    noted: list[int] = []

    def record(cfg: Config, sentences: int, src_len: int, tgt_len: int, **_: Any) -> Any:
        noted.append(sentences)
        return recorded_update(len(micro_batches(cfg, sentences, src_len)))

    monkeypatch.setattr(speed, "record_update", record)
    return noted


@pytest.mark.parametrize(("gpus", "turns", "sentences"), [(1, 8, 16), (2, 4, 16), (3, 3, 16), (8, 1, 8)])
def test_gpus_share_an_update(unrecorded: list[int], gpus: int, turns: int, sentences: int) -> None:
    cfg = config("data.max_tokens=64", "data.max_length=32")
    done = work(cfg, H100, 64, 8, "bf16-mixed", gpus)
    assert unrecorded == [sentences], "two micro-batches of eight sentences at most"
    assert sum(kernel.phase == "forward" for kernel in done.kernels) == turns, "of the GPU that has most of them"
    alone = work(cfg, H100, 64, 8, "bf16-mixed")
    assert alone.flop is not None
    assert done.flop is not None
    assert (gpus * done.tgt_tokens, gpus * done.flop) == (pytest.approx(512), pytest.approx(alone.flop))
    fast = predict_speed(done, H100, gpus)
    assert fast.tgt_tokens_per_s == pytest.approx(512 / fast.seconds)
    for seconds, alone_s in ((fast.seconds, fast.one.seconds), (fast.graphed_s, fast.graphed.seconds)):
        assert seconds == Fleet(H100).update_s(alone_s, 4.0 * done.params, done.params, gpus), "all wait"
    assert fast.mfu_pct == pytest.approx(100 * alone.flop / gpus / fast.seconds / 989.4e12)
    assert sum(fast.by_limit_s.values()) == pytest.approx(fast.one.seconds)


@pytest.mark.usefixtures("unrecorded")
@pytest.mark.parametrize(("words", "precision", "size"), [
    ([], "bf16-mixed", 4), ([], "bf16-true", 2), ([], "64-true", 8), (["trainer.compress=bf16"], "bf16-mixed", 2)])
def test_gradients_travel_in_their_own_format_or_compressed(words: list[str], precision: str, size: int) -> None:
    done = work(config(*words), H100, 4, 8, precision)
    assert done.gradient_bytes == size * done.params


@pytest.mark.parametrize("model", [
    "lstm", "lstm_attention", "gnmt", "linear_rnn", "linear_rnn_attention", "transformer", "transformer_nope"])
def test_parameters_are_counted_without_a_model(model: str) -> None:
    cfg = config(f"model={model}")
    real = build_model(cfg.model, src_vocab_size=300, tgt_vocab_size=300)
    assert [p.shape for p in without_weights(cfg).parameters()] == [p.shape for p in real.parameters()]


def test_operations_are_about_six_a_parameter_and_token(unrecorded: list[int]) -> None:
    """Kaplan et al. 2020, section 2.1: forwards two, backwards four; here each token passes one half of the model."""
    done: Work = work(resolve(compose(["data=wmt14"])), H100, 800, 30, "bf16-mixed")
    assert done.flop == pytest.approx(6 * done.params * 800 * 30, rel=0.35)


@pytest.mark.skipif(not GPU_STUDY.exists(), reason="the study of GPUs has not been published yet")
def test_the_error_that_is_told_is_the_one_that_was_found() -> None:
    found = json.loads(GPU_STUDY.read_text(encoding="utf-8"))["tests"]["v100 to a100"]["spread"]
    assert pytest.approx(found, abs=0.005) == EXPECTED_ERROR
