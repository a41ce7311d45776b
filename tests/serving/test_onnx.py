"""An exported model steps through a target as the model does that it was made from, whatever search does with it."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import cast

import onnx
import pytest
import torch
from exportable import random_ids, write_drawn_run
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import Embedding
from toys import FAMILIES, SIZES, SPECIALS, random_batch

from minitx import load
from minitx.data.batch import pack
from minitx.decoding.backend import SearchOptions
from minitx.decoding.ensemble import Ensemble
from minitx.decoding.search import beam, greedy
from minitx.decoding.torch_backend import SteppingBackend, TorchBackend
from minitx.export.manifest import read_manifest
from minitx.export.onnx import write_graphs
from minitx.export.writing import export_run
from minitx.models.base import DecodeState, Seq2Seq
from minitx.runs.checkpoint import load_model
from minitx.serving.onnx import OnnxModel, open_backend
from minitx.utils.errors import UserError

Pair = tuple[Seq2Seq, OnnxModel]
tokens = st.integers(3, SIZES["vocab"] - 1)


def exported(model: Seq2Seq, folder: Path, quantization: str | None = None) -> OnnxModel:
    write_graphs(model, folder, quantization)
    return OnnxModel(folder)


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    model = drawn(FAMILIES[request.param])
    return model, exported(model, tmp_path_factory.mktemp("graphs"))


@torch.no_grad()
def drawn(make: Callable[..., Seq2Seq]) -> Seq2Seq:
    """A model whose norms and biases are neither 1 nor 0, and whose outputs are peaked: rounding decides nothing."""
    model = make()
    for p in model.parameters():
        p.add_(0.2 * torch.randn_like(p))
    model.output.weight.mul_(2)
    return model


@settings(max_examples=8, deadline=None)
@given(sources=st.lists(st.lists(tokens, min_size=1, max_size=9), min_size=1, max_size=5), beam_size=st.integers(1, 3),
       steps=st.integers(1, 6), seed=st.integers(0, 2**32))
def test_every_step_gives_the_models_logits(pair: Pair, sources: list[list[int]], beam_size: int, steps: int,
                                            seed: int) -> None:
    """Of any batch, with hypotheses that follow others, and sentences that leave."""
    src, draw = pack(sources, SPECIALS["pad_id"]), Random(seed)
    with torch.inference_mode():
        states = [model.init_state(model.encode(src), src, beam_size) for model in pair]
        left = len(sources)
        for _ in range(steps):
            rows = left * beam_size
            read = torch.tensor([draw.randrange(SIZES["vocab"]) for _ in range(rows)])
            logits, states = step(pair, read, states)
            torch.testing.assert_close(*logits, atol=1e-4, rtol=0)
            parents = torch.tensor([i // beam_size * beam_size + draw.randrange(beam_size) for i in range(rows)])
            staying = torch.tensor(sorted(draw.sample(range(left), draw.randint(1, left))))
            states, left = [state.reorder(parents).select(staying) for state in states], len(staying)


def step(pair: Pair, read: torch.Tensor, states: list[DecodeState]) -> tuple[list[torch.Tensor], list[DecodeState]]:
    found = [model.step(read, state) for model, state in zip(pair, states, strict=True)]
    return [logits for logits, _ in found], [state for _, state in found]


def test_searches_find_what_they_find_with_the_model(pair: Pair) -> None:
    src, limits = random_batch(16).src, torch.arange(4, 20)
    one, other = (greedy(model, src, max_lengths=limits, **SPECIALS) for model in pair)
    assert one == other
    one, other = (beam(model, src, max_lengths=limits, beam_size=3, length_penalty=1.0, n_best=3, **SPECIALS)
                  for model in pair)
    assert [[h.ids for h in found] for found in one] == [[h.ids for h in found] for found in other]
    scores = [torch.tensor([h.score for found in side for h in found]) for side in (one, other)]
    torch.testing.assert_close(*scores, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["transformer sinusoidal", "transformer rope", "linear_rnn rglru", "lstm dot"])
def test_far_places_are_as_exact(family: str, tmp_path: Path) -> None:
    model = FAMILIES[family]()
    pair, src = (model, exported(model, tmp_path)), pack([[5, 4, 3] * 200, [7]], 0)
    with torch.inference_mode():
        states = [model.init_state(model.encode(src), src) for model in pair]
        for _ in range(40):
            logits, states = step(pair, torch.tensor([3, 4]), states)
    torch.testing.assert_close(*logits, atol=1e-4, rtol=0)


def test_states_that_hardly_fade_are_as_exact(tmp_path: Path) -> None:
    """1 - a^2 loses its digits near a = 1, if it is computed as it is written."""
    model = FAMILIES["linear_rnn rglru"]()
    with torch.no_grad():
        for layer in [*model.encoder, *model.decoder]:  # type: ignore[misc]
            layer.recurrence.cell.decay.sub_(8)
    pair, src = (model, exported(model, tmp_path)), random_batch(4).src
    with torch.inference_mode():
        states = [model.init_state(model.encode(src), src) for model in pair]
    for own, theirs in zip(*(state.beams for state in states), strict=True):
        torch.testing.assert_close(own, theirs, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_int8_says_nearly_the_same(family: str, tmp_path: Path) -> None:
    model = drawn(FAMILIES[family])
    pair, src = (model, exported(model, tmp_path, "int8")), random_batch(8).src
    with torch.inference_mode():
        states = [model.init_state(model.encode(src), src) for model in pair]
        for read in (1, 5, 7):
            (own, rounded), states = step(pair, torch.full((8,), read), states)
            assert 0 < (own - rounded).abs().mean() < 0.1 * own.std()


@pytest.mark.slow  # the tests above search with weights that are drawn
@pytest.mark.parametrize("family", ["transformer sinusoidal", "lstm dot", "gnmt", "linear_rnn ssru attention"])
def test_a_trained_model_translates_alike(family: str, tmp_path: Path) -> None:
    model = FAMILIES[family](d_model=32)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for seed in range(80):
        batch = random_batch(32, seed)
        logits = model.project(model(batch.src, batch.tgt)[:batch.n_tokens])
        torch.nn.functional.cross_entropy(logits, batch.labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    src, limits = random_batch(64, 1000).src, torch.full((64,), 12)
    one, other = (greedy(found, src, max_lengths=limits, **SPECIALS) for found in (model, exported(model, tmp_path)))
    assert one == other


def test_a_backend_searches_and_scores_as_the_runs_do(tmp_path: Path) -> None:
    """A run, one of another family, and both averaged."""
    runs = [write_drawn_run(tmp_path / f"run{i}", *kind) for i, kind in enumerate([
        ("model.pos_encoding=learned", "model.max_positions=300"), ("model=lstm_attention",)])]
    folders = [tmp_path / f"out{i}" for i in range(2)]
    for run_dir, folder in zip(runs, folders, strict=True):
        export_run(run_dir, "onnx", folder)
    models = [load_model(run_dir)[0].eval() for run_dir in runs]
    sources = random_ids(cast(Embedding, models[0].src_embed).num_embeddings)
    targets = random_ids(models[0].output.out_features, seed=1)
    options = [SearchOptions(1, 0.0, scored=False), SearchOptions(3, 1.0, n_best=3, no_repeat_ngram=2),
               SearchOptions(2, 1.0, prefixes=[[5, 6]] * len(sources))]
    exports = [open_backend(folder, read_manifest(folder)) for folder in folders]
    together = SteppingBackend(Ensemble([OnnxModel(folder) for folder in folders]), "cpu", 300, 300)
    for own, other in zip([*([TorchBackend([model]) for model in models]), TorchBackend(models)],
                          [*exports, together], strict=True):
        assert (own.max_source_length, own.max_target_length) == (other.max_source_length, other.max_target_length)
        for option in options:
            found = [[[h.ids for h in best] for best in backend.search(sources, [9] * len(sources), option)]
                     for backend in (own, other)]
            assert found[0] == found[1]
        assert other.score(sources, targets) == pytest.approx(own.score(sources, targets), abs=1e-4)
    lines = ["the dog", "", "the cat sees the dog"]
    own_words, other_words = ([[t.text for t in best] for best in load(folder).n_best(lines, 2)]
                              for folder in (runs[1], folders[1]))
    assert own_words == other_words


def test_what_onnxruntime_cannot_load_is_a_line(tmp_path: Path) -> None:
    """As a graph of a later version would be."""
    write_graphs(FAMILIES["lstm"](), tmp_path)
    graph = onnx.load(tmp_path / "decoder.onnx", load_external_data=False)
    graph.opset_import[0].version = 1000
    onnx.save(graph, tmp_path / "decoder.onnx")
    with pytest.raises(UserError, match=r"decoder.onnx: onnxruntime [0-9.]+ cannot load it"):
        OnnxModel(tmp_path)
