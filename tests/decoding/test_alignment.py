"""Alignments: words, not tokens; checked by hand against weights that are known, and on models of all kinds."""

from pathlib import Path

import pytest
import torch
from decoding.test_translator import DECODE, Letters, translate_with
from hypothesis import given
from hypothesis import strategies as st
from served import write_run
from torch import Tensor, nn
from toys import FAMILIES

import minitx
from minitx.cli import main as cli
from minitx.data.batch import Packed
from minitx.data.tokenizer import Tokenizer
from minitx.decoding import alignment
from minitx.decoding.alignment import align, cross_heads, pharaoh, word_of_tokens
from minitx.utils.errors import Exit, UserError


class Known(nn.Module):
    """Attend as it is told: in layer 1 of 0, 1, 2, by the mean of two heads; the other layers say otherwise."""

    max_source_length = max_target_length = None

    class Layer:
        n_heads = 2

    def __init__(self, attended: list[int]) -> None:
        super().__init__()
        self.attended = attended  # source token of each target token

    def attentions(self) -> dict[str, list[object]]:
        return {"cross": [self.Layer()] * 3}

    def attention_weights(self, src: Packed, tgt: Packed, kinds: set[str]) -> dict[str, Tensor]:
        shape = 3, len(src.lengths), 2, tgt.longest, src.longest
        weights = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        for t, s in enumerate(self.attended):
            weights[1, :, 0, t, s] = 9.0  # one head is enough for the mean
        weights[1, ..., int(src.lengths[0]) - 1] = 50.0  # most is on the end of the source, which is no word
        return {"cross": weights}


def test_words_are_linked_where_any_of_their_tokens_are() -> None:
    translator = translate_with(Known([3, 3, 4, 0, 1]))  # of "xy zw": x, y, space, z, w
    links, = align(translator, ["ab cd"], ["xy zw"])
    assert links == [(0, 1), (1, 0)]
    assert pharaoh(links) == "0-1 1-0"
    assert align(translator, ["", "ab"], ["x", " "]) == [[], []]
    assert align(translator, [], []) == []


@given(st.lists(st.text("ab.", min_size=1, max_size=4), min_size=1, max_size=6), st.sampled_from([" ", "  ", "\t"]))
def test_every_token_of_a_word_has_its_number(words: list[str], space: str) -> None:
    tokenizer = TOKENIZER
    ids = tokenizer.encode(space.join(words))
    found = word_of_tokens(tokenizer, ids)
    for number, word in enumerate(words):
        assert "".join(tokenizer.pieces(ids)[at].strip() for at, n in enumerate(found) if n == number) == word


TOKENIZER = Tokenizer.train(["ab ba. aab abb. a b"] * 5, None)


@pytest.mark.parametrize("family", ["transformer sinusoidal", "lstm dot fed", "gnmt", "linear_rnn ssru attention"])
def test_order_and_batch_mates_change_no_alignment(family: str) -> None:
    vocab = Letters.vocab_size
    model = FAMILIES[family](1, src_vocab_size=vocab, tgt_vocab_size=vocab, tie_embeddings=False).double()
    translator = translate_with(model)
    pairs = [("a dog", "ein hund"), ("the cat sees", "x"), ("", "y"), ("zebra", "das zebra da"), ("b c", "d e f g")]
    together = align(translator, *zip(*pairs, strict=True))
    assert together == [align(translator, [src], [tgt])[0] for src, tgt in pairs]
    for links, (src, tgt) in zip(together, pairs, strict=True):
        assert all(0 <= s < len(src.split()) and 0 <= t < len(tgt.split()) for s, t in links)


def test_what_cannot_be_aligned_is_refused_or_said(monkeypatch: pytest.MonkeyPatch) -> None:
    vocab = Letters.vocab_size
    sizes = {"src_vocab_size": vocab, "tgt_vocab_size": vocab, "tie_embeddings": False}
    with pytest.raises(UserError, match="does not attend to the source, so its words cannot be aligned"):
        align(translate_with(FAMILIES["lstm"](0, **sizes)), ["a"], ["a"])
    model, calls = FAMILIES["transformer sinusoidal"](0, **sizes), []
    with pytest.raises(UserError, match="2 models translate together"):
        align(translate_with(model, model), ["a"], ["a"])
    with pytest.raises(ValueError, match="must be as many"):
        align(translate_with(model), ["a"], [])
    found = align(translate_with(model), ["a" * DECODE.max_source_length, "a"], ["a", "a"],
                  warn=lambda row, what: calls.append((row, what)))
    assert calls == [(0, "is too long to be aligned")]
    monkeypatch.setattr(alignment, "MAX_WEIGHTS_A_PAIR", 6 * 8 * cross_heads(translate_with(model)))
    assert [bool(links) for links in align(translate_with(model), ["a b c"] * 2, ["a b c", "a b c d e f"],
                                           warn=lambda row, what: calls.append((row, what)))] == [True, False]
    assert calls[1:] == [(1, "is too long to be aligned")]
    assert found == [[], [(0, 0)]]


def test_the_command_writes_translation_tab_alignment(run_dir: Path, tmp_path: Path,
                                                      capfd: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text"
    text.write_text("the dog\n\nthe cat sees\n")
    assert cli.main(["translate", str(run_dir), "--align", "-i", str(text), "--device", "cpu"]) == Exit.OK
    lines = capfd.readouterr().out.splitlines()
    translator = minitx.load(run_dir)
    texts = translator.translate(["the dog", "", "the cat sees"])
    links = align(translator, ["the dog", "", "the cat sees"], texts)
    assert [line.rpartition("\t")[2] for line in lines] == [pharaoh(one) for one in links]
    lstm = write_run(tmp_path / "lstm", "model=lstm")
    assert cli.main(["translate", str(lstm), "--align", "-i", str(text), "--device", "cpu"]) == Exit.USAGE
    assert "does not attend to the source" in capfd.readouterr().err
