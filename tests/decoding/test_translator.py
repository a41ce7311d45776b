"""Lines in, lines out: order, blanks, limits, batches. The toy model copies, so every line comes back as it went in."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from minitx.config.schema import DecodeConfig
from minitx.data.batch import Packed
from minitx.decoding.translator import Translator, output_limits
from minitx.models.base import DecodeState
from minitx.models.precision import compute_dtype

DECODE = DecodeConfig(beam_size=1, length_penalty=1.0, max_tokens=40, max_length_ratio=2.0, max_length_extra=10,
                      max_source_length=20, precision=None)


class Letters:
    """Map letters to ids and back."""

    pad_id, bos_id, eos_id, vocab_size = 0, 1, 2, 31

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [[3 + ord(c) - ord("`") if c != " " else 3 for c in text] for text in texts]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(id_ - 3 + ord("`")) if id_ > 3 else " " for id_ in ids)

    def decode_batch(self, batch: list[list[int]]) -> list[str]:
        return [self.decode(ids) for ids in batch]


class Pair:
    src = tgt = Letters()


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
    return Translator(Copier(), Pair(), DECODE)  # type: ignore[arg-type]


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
    found = translator.translate(lines, warn=lambda row, what: calls.append((row, what)))
    assert found == ["a" * 19, "b" * 19, "c" * 19]
    assert calls == [(1, "21 tokens, cut to 20"), (2, "10,001 tokens, cut to 20")]
    with pytest.warns(UserWarning, match="line 2: 21 tokens, cut to 20"):
        translator.translate(lines[:2])


def test_a_model_with_fewer_positions_cuts_earlier(translator: Translator) -> None:
    translator.model.max_source_length = 8
    calls: list[int] = []
    assert translator.translate(["abcdefg", "abcdefgh"], warn=lambda row, what: calls.append(row)) == ["abcdefg"] * 2
    assert calls == [1]


def test_outputs_are_bounded_by_ratio_extra_and_model(translator: Translator) -> None:
    lengths = torch.tensor([1, 5, 100])
    assert output_limits(lengths, DECODE, translator.model).tolist() == [12, 20, 210]
    translator.model.max_target_length = 15
    assert output_limits(lengths, DECODE, translator.model).tolist() == [12, 15, 15]
    translator.model.max_target_length = 3
    assert translator.translate(["abcdefg"]) == ["abc"]


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
    translator = Translator(Copier(), Pair(), replace(DECODE, precision="bf16-mixed"))  # type: ignore[arg-type]
    assert translator.translate(["abc"]) == ["abc"]
    with pytest.raises(ZeroDivisionError):
        translator.translate(["abc"], progress=lambda done, total: 1 / 0)  # type: ignore[arg-type]
    assert translator.model.dtypes == [torch.bfloat16] * 2
    assert compute_dtype() is None
