"""The Transformer: equal to a plain one, and what it must and must not sense."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from models.plain_transformer import PlainTransformer
from toys import POSITIONS, SIZES, all_logits, random_batch, tiny_transformer

from minitx.config.compose import compose
from minitx.config.schema import resolve_size
from minitx.data.batch import collate, pack
from minitx.models.registry import build_model
from minitx.models.transformer import Transformer


@pytest.mark.parametrize(("pos_encoding", "pre_norm", "tied", "window"), [
    *product(POSITIONS, (True, False), (True, False), (None,)), ("rope", True, True, 1), ("learned", False, False, 3)])
def test_it_is_the_plain_transformer_and_so_are_its_gradients(pos_encoding: str, pre_norm: bool, tied: bool,
                                                              window: int | None) -> None:
    settings = {"pos_encoding": pos_encoding, "pre_norm": pre_norm, "tie_embeddings": tied, "window": window}
    fast, batch = tiny_transformer(**settings).double(), random_batch(6)
    vocab = {"src_vocab_size": SIZES["vocab"], "tgt_vocab_size": SIZES["vocab"]}
    plain = PlainTransformer(**vocab, num_layers=2, d_model=SIZES["d_model"], d_ff=32, n_heads=2, max_positions=64,
                             **settings).double()
    with torch.no_grad():
        for p in fast.parameters():  # norms and biases that are neither 1 nor 0
            p.add_(0.1 * torch.randn_like(p))
    plain.load_state_dict(fast.state_dict())
    src, tgt = batch.src, batch.tgt
    expected = plain(src.ids[src.rows], src.mask, tgt.ids[tgt.rows])[tgt.mask]  # --> [n_tokens, V]
    logits = fast.project(fast(src, tgt)[:batch.n_tokens])
    torch.testing.assert_close(logits, expected, atol=1e-10, rtol=1e-10)
    names, parameters = zip(*fast.named_parameters(), strict=True)
    ours = torch.autograd.grad(F.cross_entropy(logits, batch.labels), parameters)
    theirs = torch.autograd.grad(F.cross_entropy(expected, batch.labels), [plain.get_parameter(name) for name in names])
    for name, one, other in zip(names, ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("pos_encoding", POSITIONS)
def test_source_order_is_sensed_with_positions_alone(pos_encoding: str) -> None:
    """Permuted source token ids give the same logits without positions, and other ones with any encoding."""
    model = tiny_transformer(pos_encoding=pos_encoding).double()
    batch = collate([[3, 4, 5, 6, 7, 8]], [[9, 10, 11]], pad_id=0, bos_id=1, eos_id=2)
    order = torch.tensor([3, 1, 6, 0, 5, 2, 4, 7])  # the filler stays
    permuted = replace(batch.src, ids=batch.src.ids[order])
    change = (model(permuted, batch.tgt) - model(batch.src, batch.tgt))[:4].abs().max().item()
    assert change < 1e-9 if pos_encoding == "none" else change > 1e-3


def test_target_order_is_sensed_even_without_positions() -> None:
    """A causal decoder of two layers tells prefixes apart that hold the same tokens in another order."""
    model = tiny_transformer(pos_encoding="none").double()
    src, tgt = pack([[3, 4, 2]] * 2, 0), pack([[1, 5, 6, 7], [1, 6, 5, 7]], 0)
    one, other = all_logits(model, src, tgt)[:, -1]
    assert (one - other).abs().max() > 1e-3


def test_a_search_keeps_what_the_window_reaches_and_no_more() -> None:
    model, src = tiny_transformer(window=3), pack([[3, 4, 5, 2]] * 2, 0)
    state = model.init_state(model.encode(src), src)
    kept = []
    for _ in range(6):
        _, state = model.step(torch.tensor([4, 5]), state)
        kept.append(len(state.cache.positions))
    assert kept == [1, 2, 3, 4, 4, 4]


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 40))
def test_operations_in_a_window_are_those_of_its_mask_if_it_is_full_at_the_ends(s: int, t: int, window: int) -> None:
    """Where a sentence is longer than a full window; a shorter one counts as the square that it is without a window."""
    def attended(lengths: tuple[int, int], window: int | None) -> float:
        model = tiny_transformer(window=window, num_layers=1)
        whole = model.flops(*(np.array([length]) for length in lengths))
        on_source, on_target = model.multiply_adds
        return (whole - 2 * (on_source * lengths[0] + on_target * lengths[1])) / (4 * SIZES["d_model"]) - s * t

    offset = [torch.arange(length) - torch.arange(length)[:, None] for length in (s, t)]
    encoder, decoder = (int((each.abs() <= window).sum()) for each in offset)
    decoder = (decoder + t) // 2  # itself, and half of the others
    ends = window * (window + 1)
    encoder = encoder + ends if s > 2 * window else s * s
    decoder = decoder + ends // 2 if t > window else t * t
    assert attended((s, t), window) == pytest.approx(encoder + decoder)
    assert attended((s, t), None) == s * s + t * t


def test_the_big_experiment_has_the_operations_that_published_speeds_are_of() -> None:
    """NVIDIA's DeepLearningExamples, PyTorch/Translation/Transformer: 33,708 entries, sides of equal length."""
    cfg = resolve_size(compose(["experiment=headline_big", "model=transformer"]).model)
    with torch.device("meta"):
        model = build_model(cfg, src_vocab_size=33_708, tgt_vocab_size=33_708)
    assert isinstance(model, Transformer)
    matrix = 1024 * 1024  # attention has 4, feed-forward 2 * 4
    assert sum(model.multiply_adds) == 6 * (4 + 8) * matrix + 6 * (4 + 4 + 8) * matrix + 1024 * 33_708
    lengths = np.full(100, 27)
    assert model.flops(lengths, lengths) / (2 * lengths.sum()) == pytest.approx(211.7e6, rel=0.01)
