"""Lines in, lines out: order, blanks, limits, batches. The toy model copies, so every line comes back as it went in."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from minitx.config.schema import DecodeConfig
from minitx.data.batch import Packed
from minitx.decoding.torch_backend import TorchBackend
from minitx.decoding.translator import Translator, output_limit
from minitx.models.base import DecodeState
from minitx.models.precision import compute_dtype
from minitx.utils.errors import UserError

DECODE = DecodeConfig(beam_size=1, length_penalty=1.0, max_tokens=40, max_length_ratio=2.0, max_length_extra=10,
                      max_source_length=20, precision=None)


class Letters:
    """Map letters to ids and back."""

    pad_id, bos_id, eos_id, vocab_size = 0, 1, 2, 31
    word_beginnings = frozenset([3])  # the space

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [[3 + ord(c) - ord("`") if c != " " else 3 for c in text] for text in texts]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(id_ - 3 + ord("`")) if id_ > 3 else " " for id_ in ids)

    def pieces(self, ids: list[int]) -> list[str]:
        return [self.decode([id_]) for id_ in ids]

    def decode_batch(self, batch: list[list[int]]) -> list[str]:
        return [self.decode(ids) for ids in batch]


class Pair:
    src = tgt = Letters()


def translate_with(*models: nn.Module, decode: DecodeConfig = DECODE) -> Translator:
    """Wrap a model, or an ensemble, that reads and writes letters."""
    backend = TorchBackend(models, "cpu", decode.precision)  # type: ignore[arg-type]
    return Translator(backend, Pair(), decode)  # type: ignore[arg-type]


class Copier(nn.Module):
    """Write the source again, token by token; remember the shapes of its batches, and whether it was training."""

    max_source_length = max_target_length = None

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []
        self.modes: list[bool] = []
        self.dtypes: list[torch.dtype | None] = []

    def encode(self, src: Packed) -> Tensor:
        ids = src.ids[src.rows]
        self.shapes.append(tuple(ids.shape))
        self.modes.append(self.training)
        self.dtypes.append(compute_dtype())
        assert ((ids != 0) == src.mask).all()
        return ids[..., None]

    def init_state(self, memory: Tensor, src: Packed, beam_size: int = 1) -> DecodeState:
        return DecodeState([memory[..., 0]], [torch.zeros(len(memory) * beam_size, 1)], beam_size)

    def step(self, tokens: Tensor, state: DecodeState) -> tuple[Tensor, DecodeState]:
        src = state.sentences[0].repeat_interleave(state.beam_size, 0)
        wanted = src[:, state.position] if state.position < src.shape[1] else torch.full_like(tokens, 2)
        logits = torch.zeros(len(tokens), Letters.vocab_size).scatter_(1, wanted[:, None], 8.0)
        return logits, DecodeState(state.sentences, state.beams, state.beam_size, state.position + 1)


@pytest.fixture
def translator() -> Translator:
    return translate_with(Copier())


LINES = ["a dog", "", "the very long line", "  ", "b", "cat", "\t", "a dog", "zebra crossing"]


@pytest.mark.parametrize("beam_size", [1, 3])
def test_order_is_kept_and_blank_lines_stay_empty(translator: Translator, beam_size: int) -> None:
    expected = [line if line.strip() else "" for line in LINES]
    assert translator.translate(LINES, beam_size=beam_size) == expected
    assert translator.translate(LINES[::-1], beam_size=beam_size) == expected[::-1]
    assert translator.translate([], beam_size=beam_size) == []
    assert translator.translate(["", " "], beam_size=beam_size) == ["", ""]


@pytest.mark.parametrize("beam_size", [1, 3])
def test_batches_keep_to_max_tokens_longest_first(translator: Translator, beam_size: int) -> None:
    translator.translate(LINES, beam_size=beam_size)
    shapes = translator.model.shapes
    assert sum(rows for rows, _ in shapes) == 6
    assert all(rows * width * beam_size <= DECODE.max_tokens or rows == 1 for rows, width in shapes)
    assert [width for _, width in shapes] == sorted((width for _, width in shapes), reverse=True)


def test_a_line_too_long_is_cut_with_a_warning(translator: Translator) -> None:
    calls: list[tuple[int, str]] = []
    lines = ["a" * 19, "b" * 20, "c" * 10_000]  # with EOS 20, 21 and 10,001 tokens
    found = translator.translate(lines, split="never", warn=lambda row, what: calls.append((row, what)))
    assert found == ["a" * 19, "b" * 19, "c" * 19]
    assert calls == [(1, "21 tokens, cut to 20"), (2, "10,001 tokens, cut to 20")]
    with pytest.warns(UserWarning, match="line 2: 21 tokens, cut to 20"):
        translator.translate(lines[:2], split="never")


def test_a_model_with_fewer_positions_cuts_earlier(translator: Translator) -> None:
    translator.backend.max_source_length = 8
    calls: list[int] = []
    found = translator.translate(["abcdefg", "abcdefgh"], split="never", warn=lambda row, what: calls.append(row))
    assert found == ["abcdefg"] * 2
    assert calls == [1]


def test_outputs_are_bounded_by_ratio_extra_and_model(translator: Translator) -> None:
    def bounds(prefix: int = 0) -> list[int]:
        return [output_limit(length, prefix, DECODE, translator.backend) for length in (1, 5, 100)]

    assert bounds() == [12, 20, 210]
    assert bounds(prefix=7) == [17, 20, 210]
    translator.backend.max_target_length = 15
    assert bounds() == [12, 15, 15]
    translator.backend.max_target_length = 3
    assert translator.translate(["abcdefg"]) == ["abc"]


@pytest.mark.parametrize("beam_size", [1, 3])
def test_a_translation_begins_with_its_prefix(translator: Translator, beam_size: int) -> None:
    prefixes = ["", "zeb", " ", "dog a", "q", "", "x", "the cat ", "zebra"]
    found = translator.translate(LINES, beam_size=beam_size, prefixes=prefixes)
    best = translator.n_best(LINES, 1, beam_size=beam_size, prefixes=prefixes)
    assert [translations[0].text for translations in best] == found
    plain = translator.translate(LINES, beam_size=beam_size)
    for line, prefix, text, free in zip(LINES, prefixes, found, plain, strict=True):
        wanted = free if not prefix.strip() else prefix.rstrip() + line[len(prefix.rstrip()):]
        assert text == (wanted if line.strip() else ""), "the copier goes on where the prefix ends"


def test_prefixes_that_do_not_fit_are_refused(translator: Translator) -> None:
    with pytest.raises(ValueError, match="prefixes has 1 lines, lines has 2: must be as many"):
        translator.translate(["a", "b"], prefixes=["a"])
    with pytest.raises(TypeError, match="prefixes: is one string"):
        translator.translate(["a"], prefixes="a")
    translator.backend.max_target_length = 5
    assert translator.translate(["abcdef"], prefixes=["abcd"]) == ["abcde"]
    with pytest.raises(UserError, match="prefix 2: has 5 tokens, this model writes at most 5, the end included"):
        translator.translate(["a", "b"], prefixes=["", "abcde"])


def test_a_long_prefix_raises_the_limit() -> None:
    short = translate_with(Copier(), decode=replace(DECODE, max_length_ratio=0.1, max_length_extra=2))
    assert short.translate(["abcdefgh"], prefixes=["abcde"]) == ["abcdefg"]
    assert short.translate(["abcdefgh"]) == ["abc"]


def test_nothing_is_repeated_where_it_may_not_be(translator: Translator) -> None:
    assert translator.translate(["abcabc"]) == ["abcabc"]
    for beam_size in (1, 3):
        text, = translator.translate(["abcabc"], beam_size=beam_size, no_repeat_ngram=2)
        pairs = [text[at:at + 2] for at in range(len(text) - 1)]
        assert len(set(pairs)) == len(pairs)
        assert text.startswith("abca")


class Undecided(Copier):
    """Find every letter equally likely, and no end."""

    def step(self, tokens: Tensor, state: DecodeState) -> tuple[Tensor, DecodeState]:
        logits, state = super().step(tokens, state)
        return torch.zeros_like(logits).index_fill_(1, torch.tensor([2]), -8.0), state


@settings(max_examples=10)
@given(st.permutations(range(len(LINES))), st.integers(0, 2**32), st.integers(1, 200), st.integers(1, 8))
def test_a_draw_depends_on_seed_and_line_number_alone(order: list[int], seed: int, max_tokens: int, cut: int) -> None:
    model = Undecided()
    whole = translate_with(model).sample(LINES, seed=seed)
    assert translate_with(model, decode=replace(DECODE, max_tokens=max_tokens)).sample(LINES, seed=seed) == whole
    one = translate_with(model)
    assert one.sample(LINES[:cut], seed=seed) + one.sample(LINES[cut:], seed=seed, first_line=cut) == whole
    kept = [at for at, row in enumerate(order) if at == row]  # beside others
    mixed = one.sample([LINES[row] for row in order], seed=seed)
    assert [mixed[row] for row in kept] == [whole[row] for row in kept]
    assert one.sample(LINES, seed=seed + 1) != whole


def test_equal_lines_are_drawn_for_anew() -> None:
    drawn = translate_with(Undecided()).sample(["abcdef"] * 50)
    assert len(set(drawn)) == 50
    assert translate_with(Copier()).sample(["abcdef"] * 3, temperature=0.1) == ["abcdef"] * 3


def test_progress_counts_every_line(translator: Translator) -> None:
    calls: list[tuple[int, int]] = []
    translator.translate(LINES, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (9, 9)
    assert calls == sorted(calls)


def test_n_best_is_ranked_and_begins_with_the_best(translator: Translator) -> None:
    first, blank = translator.n_best(["abc", " "], 3, beam_size=4)
    assert [found.text for found in first][0] == "abc"
    assert len({found.text for found in first}) == 3
    assert [found.score for found in first] == sorted((found.score for found in first), reverse=True)
    assert [found.text for found in blank] == [""]
    for line in ("abc", " "):
        with pytest.raises(ValueError, match="n_best=5: must be at most beam_size=4"):
            translator.n_best([line], 5, beam_size=4)


def test_the_model_gets_its_mode_back_even_after_an_error(translator: Translator) -> None:
    for training in (True, False):
        translator.model.train(training)
        translator.translate(["a"])
        assert translator.model.training is training
    translator.model.train()
    with pytest.raises(ZeroDivisionError):
        translator.translate(["a"], progress=lambda done, total: 1 / 0)  # type: ignore[arg-type]
    assert translator.model.training
    assert not any(translator.model.modes)


def test_precision_holds_for_the_search_alone() -> None:
    translator = translate_with(Copier(), decode=replace(DECODE, precision="bf16-mixed"))
    assert translator.translate(["abc"]) == ["abc"]
    with pytest.raises(ZeroDivisionError):
        translator.translate(["abc"], progress=lambda done, total: 1 / 0)  # type: ignore[arg-type]
    assert translator.model.dtypes == [torch.bfloat16] * 2
    assert compute_dtype() is None
