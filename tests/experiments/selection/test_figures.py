"""Figures are counts of what the code does: a state that is made up is the one that decoding gets to."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from minitx.config.schema import Config
from minitx.experiments.prediction.update import batch_of
from minitx.experiments.selection import figures as selection
from minitx.experiments.selection import memory
from minitx.experiments.selection.candidates import Candidate, architectures, command, config
from minitx.experiments.selection.demands import HERE, Demands
from minitx.experiments.selection.figures import (
    CPU,
    figures_of,
    grown_state,
    record_step,
    state_after,
    state_bytes,
    structure_of,
)
from minitx.models.base import DecodeState, Seq2Seq, evaluating
from minitx.models.registry import build_model

USUAL = Demands(12, 16, "h100", tokens=1e6)
GROWS = {"lstm": False, "lstm_attention": True, "linear_rnn": False, "linear_rnn_attention": True, "transformer": True,
         "transformer_rope": True, "transformer_window": True}


def built(architecture: str, demands: Demands = USUAL) -> tuple[Config, Seq2Seq]:
    cfg = config(Candidate(architecture, "toy"), demands)
    torch.manual_seed(1)
    return cfg, build_model(cfg.model, src_vocab_size=300, tgt_vocab_size=300)


def counted(model: Seq2Seq, cfg: Config) -> tuple[int, int]:
    """Return the bytes of a state after 12 tokens, and their growth."""
    with evaluating(model), torch.inference_mode():
        state, growth = grown_state(model, cfg, 12, CPU)
        return state_bytes(model, state, torch.zeros(1, dtype=torch.long)), growth


def unrolled(model: Seq2Seq, cfg: Config, length: int, steps: int) -> DecodeState:
    """Decode for so many steps, as a search does."""
    src = batch_of(replace(cfg, tokenizer=replace(cfg.tokenizer, vocab_size=300)), np.array([length]),
                   np.array([2])).src
    state = model.init_state(model.encode(src), src)
    for _ in range(steps):
        _, state = model.step(torch.zeros(1, dtype=torch.long), state)
    return state


@pytest.mark.parametrize("architecture", sorted(GROWS))
@pytest.mark.parametrize("position", [1, 2, 7, 40])
def test_a_state_that_is_made_up_is_the_one_that_steps_lead_to(architecture: str, position: int) -> None:
    cfg, model = built(architecture)
    cfg = replace(cfg, tokenizer=replace(cfg.tokenizer, vocab_size=300))
    with evaluating(model), torch.inference_mode():
        made, real = state_after(model, cfg, 12, position, CPU), unrolled(model, cfg, 12, position)
        assert [t.shape for t in made.carried] == [t.shape for t in real.carried]
        assert [t.shape for t in made.sentences] == [t.shape for t in real.sentences]
        assert made.position == real.position
        model.step(torch.zeros(1, dtype=torch.long), made)


def test_bytes_of_a_state_by_hand() -> None:
    """A layer holds keys and values of width 32 for each token read, and written, in four bytes: no mask of one."""
    cfg, model = built("transformer")
    cfg = replace(cfg, tokenizer=replace(cfg.tokenizer, vocab_size=300))
    nbytes, growth = counted(model, cfg)
    assert growth == 2 * (2 * 32 * 4)
    assert nbytes == 12 * growth
    cfg, model = built("lstm")
    cfg = replace(cfg, tokenizer=replace(cfg.tokenizer, vocab_size=300))
    assert counted(model, cfg) == (2 * 36 * 4, 0), "h and c; the mask is never read"


def test_they_are_all_here() -> None:
    assert set(GROWS) == set(architectures())


@pytest.mark.parametrize("architecture", sorted(GROWS))
def test_what_grows_and_what_attends(architecture: str) -> None:
    structure = structure_of(architecture, True)
    assert structure.grows == GROWS[architecture]
    assert structure.attends == GROWS[architecture], "of these, what looks back is what has to keep"


def test_an_encoder_reads_one_way_where_it_can_be_told_to() -> None:
    streaming = replace(USUAL, streaming=True)
    assert "model.bidirectional=false" in command(Candidate("lstm", "tiny"), streaming, 1e6, "32-true").split()
    assert "model.bidirectional=false" not in command(Candidate("lstm", "tiny"), USUAL, 1e6, "32-true")
    assert not config(Candidate("lstm", "toy"), streaming).model.bidirectional  # type: ignore[attr-defined]


@pytest.mark.parametrize("architecture", ["lstm_attention", "transformer"])
def test_a_step_recorded_for_a_gpu_has_the_state_of_one_on_the_cpu(architecture: str) -> None:
    cfg, _ = built(architecture)
    model = build_model(cfg.model, src_vocab_size=8000, tgt_vocab_size=8000)
    here = counted(model, cfg)
    step = record_step(cfg, 12, (9, 0))
    assert (step.state_bytes, step.growth, step.attends) == (*here, True)
    assert len(step.kernels) > 10


@pytest.mark.slow
def test_memory_counted_for_a_gpu_grows_with_the_longest_sentence() -> None:
    short, long = (figures_of(Candidate("transformer", "toy"), replace(USUAL, longest=longest))
                   for longest in (64, 2048))
    assert short.train_gib.value < long.train_gib.value
    assert not short.tokens_per_s.measured
    assert short.params == long.params


def test_what_is_measured_here_is_said_to_be_and_what_is_lengthened_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "ENOUGH_S", 0.01)
    for module in (selection, memory):
        monkeypatch.setattr(module, "LONGEST_MEASURED", 32)
    here = replace(USUAL, hardware=HERE)
    short = figures_of(Candidate("lstm", "toy"), here)
    assert short.tokens_per_s.measured
    assert short.notes == []
    long = figures_of(Candidate("lstm", "toy"), replace(here, length=64, longest=65_536))
    assert not long.tokens_per_s.measured
    assert [note.split(":")[0] for note in long.notes] == ["time at 64 tokens", "memory at 64 tokens",
                                                          "memory at 65,536 tokens"]
    assert long.train_gib.value > short.train_gib.value
