"""Forced decoding: the model's own probabilities, whatever stands beside a pair and in whatever order."""

import math
from pathlib import Path

import pytest
import torch
from decoding.test_translator import Letters, translate_with
from hypothesis import given, settings
from hypothesis import strategies as st
from served import write_run
from toys import tiny_transformer

import minitx
from minitx.data.batch import collate_src, pack
from minitx.decoding import scoring
from minitx.decoding.scoring import PairScore, score_pairs, total
from minitx.decoding.search import beam
from minitx.decoding.translator import Translator
from minitx.utils.errors import Exit, UserError

PAIRS = [("the dog", "der Hund"), ("", ""), ("the cat sees", ""), (" \t", "die Katze sieht"), ("the dog", "der Hund"),
         ("x" * 20, "ü" * 9), ("a", "a\u2028b"), ("the dog sees the cat", "der Hund sieht die Katze")]


@pytest.fixture(scope="module", params=["transformer", "lstm", "lstm_attention", "gnmt", "linear_rnn"])
def translator(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Translator:
    """A model that knows nothing, of each family."""
    return minitx.load(write_run(tmp_path_factory.mktemp("run"), f"model={request.param}"))


def score(translator: Translator, pairs: list[tuple[str, str]]) -> list[PairScore]:
    return score_pairs(translator, [src for src, _ in pairs], [tgt for _, tgt in pairs])


def by_hand(translator: Translator, src: str, tgt: str) -> tuple[float, int]:
    """Read one token after another, as search does, and add up what each costs."""
    model, tok = translator.model, translator.tokenizers
    ids = [*(tok.src.encode(src) if src.strip() else []), tok.src.eos_id]
    labels = [*(tok.tgt.encode(tgt) if tgt.strip() else []), tok.tgt.eos_id]
    source, log_prob = pack([ids], tok.src.pad_id), 0.0
    with torch.inference_mode():
        state = model.init_state(model.encode(source), source)
        for read, label in zip([tok.tgt.bos_id, *labels], labels, strict=False):
            logits, state = model.step(torch.tensor([read]), state)
            log_prob += float(logits.double().log_softmax(-1)[0, label])
    return log_prob, len(labels)


def test_it_is_the_models_own_log_softmax_summed(translator: Translator) -> None:
    for found, (src, tgt) in zip(score(translator, PAIRS), PAIRS, strict=True):
        log_prob, n_tokens = by_hand(translator, src, tgt)
        assert found.log_prob == pytest.approx(log_prob, rel=1e-5)
        assert found.n_tokens == n_tokens
        assert found.perplexity == pytest.approx(math.exp(-log_prob / n_tokens), rel=1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-10)])
def test_order_and_batch_mates_change_nothing(translator: Translator, dtype: torch.dtype, tolerance: float) -> None:
    model = translator.model.to(dtype)
    alone = [score(translator, [pair])[0].log_prob for pair in PAIRS]

    @settings(max_examples=15)
    @given(st.lists(st.sampled_from(range(len(PAIRS))), min_size=1, max_size=12), st.integers(1, 20_000))
    def holds(rows: list[int], max_logits: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scoring, "MAX_LOGITS", max_logits)
            found = [found.log_prob for found in score(translator, [PAIRS[row] for row in rows])]
        assert found == pytest.approx([alone[row] for row in rows], rel=tolerance)

    try:
        holds()
    finally:
        model.float()


def test_it_is_what_beam_search_says_of_its_own_output() -> None:
    vocab, sources, limit = Letters.vocab_size, ["dog", "a cat", "zebra crossing"], 8
    model = tiny_transformer(9, src_vocab_size=vocab, tgt_vocab_size=vocab, tie_embeddings=False)  # its outputs end
    src = collate_src(Letters().encode_batch(sources), pad_id=0, eos_id=2)
    found = beam(model, src, bos_id=1, eos_id=2, pad_id=0, max_lengths=torch.full((3,), limit), beam_size=8,
                 length_penalty=0.0, n_best=8)
    said = {(source, Letters().decode(best.ids)): best.log_prob for source, all_best in
            zip(sources, found, strict=True) for best in all_best if len(best.ids) < limit}
    said = {pair: log_prob for pair, log_prob in said.items() if pair[1].strip()}
    assert len(said) > 10
    translator = translate_with(model)
    scores = score(translator, list(said))
    assert [found.log_prob for found in scores] == pytest.approx(list(said.values()), rel=1e-5)


def test_a_long_source_is_cut_as_for_translation_and_a_long_target_is_refused() -> None:
    sizes = {"src_vocab_size": Letters.vocab_size, "tgt_vocab_size": Letters.vocab_size}
    translator = translate_with(tiny_transformer(pos_encoding="learned", max_positions=8, **sizes))
    calls: list[tuple[int, str]] = []
    cut, whole = score_pairs(translator, ["abcdefghij", "abcdefg"], ["a", "a"],
                             warn=lambda row, what: calls.append((row, what)))
    assert cut == whole
    assert calls == [(0, "11 tokens, cut to 8")]
    assert score(translator, [("a", "abcdefg")])[0].n_tokens == 8
    with pytest.raises(UserError, match="translation 2: has 9 tokens, this model writes at most 8") as refused:
        score(translator, [("a", "a"), ("a", "abcdefgh")])
    assert refused.value.code == Exit.DATA


def test_a_corpus_is_the_sum_of_its_pairs(translator: Translator) -> None:
    scores = score(translator, PAIRS)
    whole = total(scores)
    assert whole.log_prob == pytest.approx(sum(found.log_prob for found in scores))
    assert whole.n_tokens == sum(found.n_tokens for found in scores)
    assert whole.perplexity < max(found.perplexity for found in scores)
    assert PairScore(-math.inf, 3).perplexity < math.inf


def test_progress_counts_every_pair_and_the_model_gets_its_mode_back(translator: Translator) -> None:
    calls: list[tuple[int, int]] = []
    translator.model.train()
    score_pairs(translator, ["a"] * 9, ["b"] * 9, progress=lambda done, total: calls.append((done, total)))
    assert translator.model.training
    translator.model.eval()
    assert calls[-1] == (9, 9)
    assert calls == sorted(calls)


def test_nothing_to_score_is_nothing(translator: Translator, tmp_path: Path) -> None:
    assert score(translator, []) == []
