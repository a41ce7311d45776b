"""Packed sentences: all that goes in comes out, whatever stands beside it, and gradients find their way back."""

import ast
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import SPECIALS, random_batch, sentences, some

from minitx.data.batch import Packed, collate, collate_src, pack

PAD, BOS, EOS = SPECIALS.values()
Ids = list[list[int]]
TEXTS = some(st.lists(st.integers(3, 99), min_size=1, max_size=9))
OPTIONS = st.fixed_dictionaries({"multiple": st.sampled_from([1, 4]), "recurring": st.booleans()})


def test_the_example_in_the_docstring_is_what_pack_returns() -> None:
    packed = pack([[5, 6, 2], [7, 2]], 0)
    shown = {name: ast.literal_eval(value) for name, value in
             re.findall(r"^ +(\w+) +(\[.*\])(?:  .*)?$", Packed.__doc__ or "", re.MULTILINE)}
    assert shown == {name: value.tolist() for name, value in vars(packed).items() if isinstance(value, torch.Tensor)}
    assert "n_tokens = 5, N = 6, B = 2, L = 3" in (Packed.__doc__ or "")
    assert (packed.n_tokens, len(packed.ids), *packed.rows.shape) == (5, 6, 2, 3)


@settings(max_examples=30)
@given(TEXTS, OPTIONS)
def test_what_is_packed_reads_back(text: Ids, options: dict[str, Any]) -> None:
    packed = pack(text, PAD, **options)
    n, N, (B, L) = sum(map(len, text)), len(packed.ids), packed.rows.shape
    assert packed.n_tokens == n < N
    assert sentences(packed) == text
    assert packed.places[:n].tolist() == [place for row in text for place in range(len(row))]
    assert not packed.ids[n:].sub(PAD).any()
    assert packed.places[n:].tolist() == packed.slots[n:].tolist() == [0] * (N - n)
    assert packed.starts.dtype is torch.int32
    assert packed.starts[-2:].tolist() == [n, N]
    assert L % options["multiple"] == 0
    assert 0 <= L - max(map(len, text)) < options["multiple"]
    assert packed.lengths.tolist() == [*map(len, text), *[1] * (B - len(text))]
    assert torch.equal(packed.bias[:, 0, 0] == 0, packed.mask)
    assert torch.equal(packed.bias[:, 0, 0] == -torch.inf, ~packed.mask)


@settings(max_examples=30)
@given(TEXTS, OPTIONS)
def test_sentences_side_by_side_are_those_end_to_end(text: Ids, options: dict[str, Any]) -> None:
    packed = pack(text, PAD, **options)
    n, real = packed.n_tokens, packed.mask[:len(text)]
    assert packed.ids[packed.rows].tolist() == [
        row + [PAD] * (packed.rows.shape[1] - len(row)) for row in text + [[]] * (len(packed.rows) - len(text))]
    x = torch.arange(2.0 * len(packed.ids)).view(-1, 2)
    padded = packed.pad(x)
    assert torch.equal(padded[:len(text)][real], x[:n])
    assert (padded[:len(text)][~real] == x[-1]).all()
    assert (padded[len(text):] == x[-1]).all()
    assert torch.equal(packed.pack(padded)[:n], x[:n])
    assert torch.equal(packed.rows.flatten()[packed.slots[:n]], torch.arange(n))


@settings(max_examples=30)
@given(TEXTS.map(lambda text: [row[:3] for row in text[:18]]), OPTIONS)
def test_gradients_reach_real_rows_alone(text: Ids, options: dict[str, Any]) -> None:
    packed = pack(text, PAD, **options)
    real = packed.mask.clone()
    real[len(text):] = False
    rows = torch.randn(len(packed.ids), 2, dtype=torch.float64, requires_grad=True)
    places = torch.randn(*packed.rows.shape, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: packed.pad(x)[real], rows)
    assert torch.autograd.gradcheck(lambda x: packed.pack(x)[:packed.n_tokens], places)
    twice = torch.autograd.grad(packed.pad(rows).sum() * 2, rows)[0]  # padding included: filler has no gradient
    assert (twice[:packed.n_tokens] == 2).all()
    assert (twice[packed.n_tokens:] == 0).all()


@settings(max_examples=30)
@given(TEXTS, OPTIONS, st.integers(1, 4), st.integers(1, 3))
def test_head_indices_are_each_others_inverse(text: Ids, options: dict[str, Any], n_heads: int, parts: int) -> None:
    packed = pack(text, PAD, **options)
    index, inverse = packed.head_indices(n_heads, parts)
    entries = torch.arange(len(packed.ids) * parts * n_heads)
    expected = entries.view(-1, parts, n_heads)[packed.rows].permute(2, 0, 3, 1)  # --> [parts, B, H, L]
    assert torch.equal(index, expected.flatten())
    real = slice(packed.n_tokens * parts * n_heads)
    assert torch.equal(index[inverse][real], entries[real])
    assert packed.head_indices(n_heads, parts)[0] is index


@settings(max_examples=30)
@given(TEXTS, OPTIONS, st.integers(1, 2))
def test_step_indices_are_each_others_inverse_and_the_second_way_reads_backwards(text: Ids, options: dict[str, Any],
                                                                                 ways: int) -> None:
    packed = pack(text, PAD, **options)
    index, inverse = packed.step_indices(ways)
    for b, sentence in enumerate(text):
        steps = index.view(packed.longest, -1, ways)[:, b]  # --> [L, ways]
        for way, ids in zip(range(ways), (sentence, sentence[::-1]), strict=False):
            assert (steps[:, way] % ways == way).all()
            rows = steps[:, way] // ways
            assert packed.ids[rows].tolist() == ids + [PAD] * (packed.longest - len(ids))
            assert (rows[len(ids):] == len(packed.ids) - 1).all(), "padding comes last, either way"
    real = slice(packed.n_tokens * ways)
    assert torch.equal(index[inverse][real], torch.arange(len(packed.ids) * ways)[real])
    assert packed.step_indices(ways)[0] is index


@settings(max_examples=30)
@given(TEXTS)
def test_recurring_sizes_add_little(text: Ids) -> None:
    text *= 3
    packed, n, B = pack(text, PAD, recurring=True), sum(map(len, text)), len(text)
    assert 1 <= len(packed.ids) - n <= 1 + n / 32
    assert 0 <= len(packed.rows) - B <= B / 8


def test_recurring_sizes_are_few() -> None:
    assert len({len(pack([[5] * n], PAD, recurring=True).ids) for n in range(256, 512)}) <= 33
    assert len({len(pack([[5]] * n, PAD, recurring=True).rows) for n in range(128, 256)}) <= 9


@settings(max_examples=30)
@given(some(st.tuples(*[st.lists(st.integers(3, 99), max_size=7)] * 2)), st.booleans())
def test_a_batch_holds_its_pairs_and_what_each_target_token_predicts(pairs: list[tuple[list[int], list[int]]],
                                                                     recurring: bool) -> None:
    src, tgt = map(list, zip(*pairs, strict=True))
    batch = collate(src, tgt, **SPECIALS, recurring=recurring)
    assert sentences(batch.src) == [[*row, EOS] for row in src]
    assert sentences(batch.tgt) == [[BOS, *row] for row in tgt]
    assert sentences(batch.tgt, batch.labels) == [[*row, EOS] for row in tgt]
    assert batch.n_tokens == len(batch.labels) == sum(len(row) + 1 for row in tgt)
    assert len(batch.src.rows) == len(batch.tgt.rows), "a target stands beside its source"
    alone = collate_src(src, pad_id=PAD, eos_id=EOS)
    assert sentences(alone) == sentences(batch.src)


def test_a_batch_moves_whole() -> None:
    """Indices that were made on one device are made anew on another."""
    batch = random_batch(3)
    for side in (batch.src, batch.tgt):
        _ = side.head_indices(2, 3), side.step_indices(2), side.bias, side.lengths
    moved = batch.to("meta")
    assert moved.n_tokens == batch.n_tokens
    assert moved.labels.device.type == "meta"
    for side in (moved.src, moved.tgt):
        made = *side.head_indices(2, 3), *side.step_indices(2), side.bias, side.lengths
        assert {t.device.type for t in (*tensors(side), *made)} == {"meta"}
    assert {t.device.type for t in (*tensors(batch.src), *batch.src.head_indices(2, 3))} == {"cpu"}


def tensors(packed: Packed) -> list[torch.Tensor]:
    return [value for value in vars(packed).values() if isinstance(value, torch.Tensor)]


def test_what_goes_to_a_gpu_is_pinned_first_and_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned, moved = list[torch.Tensor](), list[tuple[Any, ...]]()
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: (pinned.append(x), x.clone())[1])
    monkeypatch.setattr(torch.Tensor, "to", lambda x, *given, **options: (moved.append((x, given, options)), x)[1])
    batch = random_batch(3)
    batch.to("cuda")
    assert len(pinned) == len(moved) == 13
    assert {(given, *options.items()) for _, given, options in moved} == {(("cuda",), ("non_blocking", True))}
    assert not {id(x) for x in pinned} & {id(x) for x, *_ in moved}, "what is moved is the pinned copy"
    pinned.clear()
    batch.to("cpu")
    assert not pinned
