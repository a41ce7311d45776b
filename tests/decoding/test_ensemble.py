"""Ensembles: the search of one model that has the mean probability of all, token by token."""

import pytest
import torch
from decoding.test_search import SPECIALS, Toy, assert_same, exhaustive, limits, source
from decoding.test_translator import Letters, translate_with
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import FAMILIES

from minitx.data.batch import collate, collate_src
from minitx.decoding.backend import SearchOptions
from minitx.decoding.ensemble import Ensemble
from minitx.decoding.scoring import score_pairs
from minitx.decoding.search import beam, greedy
from minitx.decoding.torch_backend import TorchBackend, log_probs
from minitx.models.base import Seq2Seq

SIZES = {"src_vocab_size": Letters.vocab_size, "tgt_vocab_size": Letters.vocab_size, "tie_embeddings": False}
SOURCES = [[4, 5, 6], [7], [8, 9, 10, 11, 12], [13, 14]]


def averaged(models: list[Toy]) -> Toy:
    """One model whose table has the logs of the mean probabilities, in float64."""
    mean = Toy(models[0].vocab, 0)
    mean.table = torch.stack([model.table.double().softmax(-1) for model in models]).mean(0).log()
    return mean


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 3), letters=st.integers(1, 3), limit=st.integers(1, 3),
       length_penalty=st.sampled_from([0.0, 1.0]), dtype=st.sampled_from([torch.float64, torch.float32]))
def test_search_is_exact_over_the_mean_probabilities(seed: int, count: int, letters: int, limit: int,
                                                     length_penalty: float, dtype: torch.dtype) -> None:
    models = [Toy(3 + letters, seed + i, dtype=dtype) for i in range(count)]
    wanted = exhaustive(averaged(models), 5, limit, length_penalty)
    found, = beam(Ensemble(models), source(5), max_lengths=limits(limit), beam_size=len(wanted),
                  length_penalty=length_penalty, n_best=len(wanted), **SPECIALS)
    tolerance = 1e-9 if dtype is torch.float64 else 1e-5
    if dtype is torch.float64:
        assert_same(found, wanted)
    assert sorted(h.score for h in found) == pytest.approx(sorted(h.score for h in wanted), abs=tolerance)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 8))
def test_a_batch_of_an_ensemble_is_searched_as_the_mean_model_is(seed: int, size: int) -> None:
    """Sentences leave, hypotheses change places: each member follows."""
    models = [Toy(6, seed + i) for i in range(3)]
    bounds, keys = limits(*(1 + (seed + 3 * key) % 9 for key in range(size))), source(*range(size))
    wanted = beam(averaged(models), keys, max_lengths=bounds, beam_size=3, length_penalty=1.0, n_best=3, **SPECIALS)
    found = beam(Ensemble(models), keys, max_lengths=bounds, beam_size=3, length_penalty=1.0, n_best=3, **SPECIALS)
    for one, other in zip(found, wanted, strict=True):
        assert_same(one, other)
    assert greedy(Ensemble(models), keys, max_lengths=bounds, **SPECIALS) == greedy(
        averaged(models), keys, max_lengths=bounds, **SPECIALS)


def members() -> list[Seq2Seq]:
    """A model of each kind that decodes in its own way, in float64."""
    families = ("transformer rope", "lstm dot fed", "linear_rnn ssru", "gnmt")
    return [FAMILIES[family](seed, **SIZES).double() for seed, family in enumerate(families)]


def test_families_may_differ_and_search_says_what_forced_decoding_says() -> None:
    models, limit = members(), 6
    found = TorchBackend(models).search(SOURCES, [limit] * 4, SearchOptions(5, 0.0, n_best=5))
    assert [len(best) for best in found] == [5] * 4
    for ids, best in zip(SOURCES, found, strict=True):
        batch = collate([ids] * 5, [hypothesis.ids for hypothesis in best], **SPECIALS)
        with torch.inference_mode():
            mean = torch.stack([model.project(model(batch.src, batch.tgt)).softmax(-1) for model in models]).mean(0)
        chosen = mean[:batch.n_tokens].log().gather(1, batch.labels[:, None])[:, 0].split(batch.tgt.lengths.tolist())
        assert log_probs(models, batch).tolist() == pytest.approx([float(row.sum()) for row in chosen], abs=1e-10)
        said = [float(row[:limit].sum()) for row in chosen]  # what is cut at the limit has no end
        assert [hypothesis.log_prob for hypothesis in best] == pytest.approx(said, abs=1e-10)


def test_the_first_token_is_the_likeliest_of_the_mean() -> None:
    models, src = members(), collate_src(SOURCES, pad_id=0, eos_id=2)
    with torch.inference_mode():
        first = torch.full((4,), 1)
        mean = torch.stack([model.step(first, model.init_state(model.encode(src), src))[0].softmax(-1)
                            for model in models]).mean(0)
        mean[:, :2] = 0
    found = TorchBackend(models).search(SOURCES, [1] * 4, SearchOptions(1, 0.0, scored=False))
    assert [[*best[0].ids, 2][0] for best in found] == mean.argmax(-1).tolist()
    scored = TorchBackend(models).search(SOURCES, [1] * 4, SearchOptions(1, 0.0))
    assert [best[0].log_prob for best in scored] == pytest.approx(mean.amax(-1).log().tolist())


def test_a_model_twice_is_that_model() -> None:
    model = members()[0]
    lines = ["a dog", "zebra crossing", ""]
    one, two = translate_with(model), translate_with(model, model)
    assert two.translate(lines, beam_size=1) == one.translate(lines, beam_size=1)
    for found, wanted in zip(two.n_best(lines, 3, beam_size=3), one.n_best(lines, 3, beam_size=3), strict=True):
        assert [best.text for best in found] == [best.text for best in wanted]
        assert [best.log_prob for best in found] == pytest.approx([best.log_prob for best in wanted])
    scores = [[score.log_prob for score in score_pairs(some, lines, lines)] for some in (one, two)]
    assert scores[0] == pytest.approx(scores[1])


def test_the_shortest_reach_of_its_members_is_an_ensembles_own() -> None:
    models = members()
    assert TorchBackend(models).max_source_length is None
    models[1].max_source_length, models[2].max_source_length, models[3].max_target_length = 9, 7, 5
    backend = TorchBackend(models)
    assert (backend.max_source_length, backend.max_target_length) == (7, 5)
