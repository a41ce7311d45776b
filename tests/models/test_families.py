"""What every family owes: the same matrix of proofs for each row of `toys.FAMILIES`, in float64."""

import math
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import fields, replace
from inspect import signature
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import Tensor
from toys import FAMILIES, SIZES, SPECIALS, all_logits, random_batch, sentences

from minitx.config.compose import CONF, compose
from minitx.config.schema import SIZES as SIZE_NAMES
from minitx.config.schema import ModelConfig, resolve_size
from minitx.data.batch import Batch, Packed, collate, pack
from minitx.decoding.search import beam, greedy
from minitx.models.base import Seq2Seq
from minitx.models.precision import computing_in
from minitx.models.registry import MODELS, build_model, model_class
from minitx.runs.checkpoint import load_tensors, model_tensors
from minitx.training.loss import linear_cross_entropy


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Seq2Seq:
    return FAMILIES[request.param]().double()


def test_every_family_has_a_schema_and_a_row_in_the_matrix() -> None:
    assert MODELS.keys() == ModelConfig.members.keys()
    assert {type(make()) for make in FAMILIES.values()} == set(map(model_class, MODELS))


@pytest.mark.parametrize("family", MODELS)
def test_a_schema_is_its_constructors_signature(family: str) -> None:
    keys = {spec.name for spec in fields(ModelConfig.members[family])} - {"family", "size"}
    assert keys | {"src_vocab_size", "tgt_vocab_size"} == set(signature(model_class(family)).parameters)


def test_cached_steps_are_the_full_forward(model: Seq2Seq) -> None:
    batch = random_batch(4)
    full, ids = all_logits(model, batch.src, batch.tgt), batch.tgt.ids[batch.tgt.rows]
    state = model.init_state(model.encode(batch.src), batch.src)
    for t, real in enumerate(batch.tgt.mask.T):
        logits, state = model.step(ids[:, t], state)
        torch.testing.assert_close(logits[real], full[real, t], atol=1e-10, rtol=1e-10)


def test_steps_in_fp32_with_matrices_laid_out_are_those_in_fp64(model: Seq2Seq) -> None:
    batch, single = random_batch(4), deepcopy(model).float()
    ids = batch.tgt.ids[batch.tgt.rows]
    with torch.inference_mode(), computing_in(None):
        states = [one.init_state(one.encode(batch.src), batch.src) for one in (model, single)]
        for t, real in enumerate(batch.tgt.mask.T):
            (exact, states[0]), (found, states[1]) = model.step(ids[:, t], states[0]), single.step(ids[:, t], states[1])
            torch.testing.assert_close(found[real].double(), exact[real], atol=1e-4, rtol=1e-4)


def test_beams_share_the_source_and_follow_their_parents(model: Seq2Seq) -> None:
    """K hypotheses a sentence, reordered and with a sentence dropped, give what each would alone."""
    batch = random_batch(3)
    state = model.init_state(model.encode(batch.src), batch.src, beam_size=2)
    _, state = model.step(torch.tensor([4, 5, 6, 7, 8, 9]), state)
    state = state.reorder(torch.tensor([1, 1, 2, 3, 5, 4])).select(torch.tensor([0, 2]))
    logits, _ = model.step(torch.tensor([3, 4, 5, 6]), state)
    sources, prefixes = sentences(batch.src), [[5, 3], [5, 4], [9, 5], [8, 6]]
    src, tgt = pack([sources[i] for i in (0, 0, 2, 2)], 0), pack(prefixes, 0)
    torch.testing.assert_close(logits, all_logits(model, src, tgt)[:, -1], atol=1e-10, rtol=1e-10)


def test_a_beam_of_one_is_greedy_search(model: Seq2Seq) -> None:
    src, limits = random_batch(8).src, torch.full((8,), 12)
    best = beam(model, src, max_lengths=limits, beam_size=1, length_penalty=1.0, **SPECIALS)
    assert [found[0].ids for found in best] == greedy(model, src, max_lengths=limits, **SPECIALS)


@pytest.mark.parametrize("recurring", [False, True])
def test_padding_and_batch_mates_change_nothing(model: Seq2Seq, recurring: bool) -> None:
    pairs = [([3, 4, 5], [6, 7]), ([5] * 9, [4] * 8), ([8], [9]), ([], [])] * 5
    together = collate(*map(list, zip(*pairs, strict=True)), **SPECIALS, pad_to_multiple=8, recurring=recurring)
    features = model(together.src, together.tgt)
    assert features.shape == (len(together.tgt.ids), SIZES["d_model"])
    logits = together.tgt.pad(model.project(features))
    for row, (src, tgt) in enumerate(pairs):
        alone = collate([src], [tgt], **SPECIALS)
        expected = all_logits(model, alone.src, alone.tgt)[0]
        torch.testing.assert_close(logits[row, : len(tgt) + 1], expected, atol=1e-10, rtol=1e-10)


def loss_and_gradients(model: Seq2Seq, batch: Batch) -> list[Tensor]:
    loss, _ = linear_cross_entropy(model(batch.src, batch.tgt), model.output.weight, batch.labels, 0.1)
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


def assert_same(one: Iterable[Tensor], other: Iterable[Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


def written_in_filler(packed: Packed, token: int) -> Packed:
    ids = packed.ids.clone()
    ids[packed.n_tokens:] = token
    return replace(packed, ids=ids)


@pytest.mark.parametrize("recurring", [False, True])
def test_what_is_written_in_padding_changes_neither_loss_nor_gradient(model: Seq2Seq, recurring: bool) -> None:
    """Padding is what filler is."""
    batch = random_batch(17, recurring=recurring)
    assert_same(*(loss_and_gradients(model, replace(batch, src=written_in_filler(batch.src, token),
                                                    tgt=written_in_filler(batch.tgt, token))) for token in (0, 7)))


def test_idle_sentences_and_filler_change_neither_loss_nor_gradient(model: Seq2Seq) -> None:
    bare, recurring = (random_batch(33, recurring=recurring) for recurring in (False, True))
    assert len(recurring.tgt.lengths) == len(recurring.src.lengths) > len(bare.tgt.lengths)
    assert min(len(side.ids) - side.n_tokens for side in (recurring.src, recurring.tgt)) > 1
    assert_same(loss_and_gradients(model, bare), loss_and_gradients(model, recurring))


def test_a_model_that_has_searched_trains_as_before(model: Seq2Seq) -> None:
    """What search leaves behind for later, in inference mode, takes part in training."""
    batch, limits = random_batch(4), torch.full((4,), 3)
    expected = loss_and_gradients(deepcopy(model), batch)
    greedy(model, batch.src, max_lengths=limits, **SPECIALS)
    assert_same(loss_and_gradients(model, batch), expected)


def test_the_future_is_not_seen(model: Seq2Seq) -> None:
    batch = random_batch(4)
    last = batch.tgt.starts[1:-1].long() - 1
    changed = replace(batch.tgt, ids=batch.tgt.ids.index_fill(0, last, 5))
    one, other = (model(batch.src, tgt)[:tgt.n_tokens] for tgt in (batch.tgt, changed))
    before = torch.ones(len(one), dtype=torch.bool).index_fill(0, last, False)
    assert torch.equal(one[before], other[before])
    assert not torch.equal(one, other)


def test_every_parameter_has_a_gradient(model: Seq2Seq) -> None:
    batch = random_batch(16)
    model.project(model(batch.src, batch.tgt)[:batch.n_tokens]).square().sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not idle


def test_weights_survive_a_file(model: Seq2Seq) -> None:
    batch, content = random_batch(4), save(model_tensors(model))
    expected = model(batch.src, batch.tgt)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    load_tensors(model, load(content))
    assert torch.equal(model(batch.src, batch.tgt), expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_tied_embeddings_are_one_matrix(name: str) -> None:
    tied, untied = FAMILIES[name](), FAMILIES[name](tie_embeddings=False)
    assert tied.src_embed.weight is tied.tgt_embed.weight is tied.output.weight
    sizes = [sum(p.numel() for p in model.parameters()) for model in (tied, untied)]
    assert sizes[1] - sizes[0] == 2 * SIZES["vocab"] * SIZES["d_model"]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16], ids=["mixed", "true"])
def test_bf16_gives_the_gradient_but_for_rounding(name: str, weights: torch.dtype) -> None:
    """As the task computes it: fp32 weights and bf16 activations, or all in bf16."""
    batch, gradients = random_batch(32), []
    for dtype in (torch.float64, weights):
        model = FAMILIES[name]().to(dtype)
        with computing_in(torch.bfloat16 if dtype is torch.float32 else None):
            features = model(batch.src, batch.tgt)
        assert features.dtype is (torch.float64 if dtype is torch.float64 else torch.bfloat16)
        loss, _ = linear_cross_entropy(features, model.output.weight, batch.labels, 0.1)
        loss.backward()
        assert all(p.grad is not None and p.grad.dtype is dtype for p in model.parameters())
        gradients.append(torch.cat([p.grad.double().flatten() for p in model.parameters() if p.grad is not None]))
    assert F.cosine_similarity(*gradients, dim=0) > 0.98


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("mixed", [True, False])
def test_search_runs_in_bf16(name: str, mixed: bool) -> None:
    batch, model = random_batch(4), FAMILIES[name]().to(torch.float32 if mixed else torch.bfloat16)
    with computing_in(torch.bfloat16 if mixed else None):
        found = beam(model, batch.src, max_lengths=torch.full((4,), 6), beam_size=3, length_penalty=1.0, **SPECIALS)
    assert [len(hypotheses) for hypotheses in found] == [1] * 4


def test_initial_loss_is_that_of_guessing(model: Seq2Seq) -> None:
    batch = random_batch(16)
    logits = model.project(model(batch.src, batch.tgt)[:batch.n_tokens])
    assert F.cross_entropy(logits, batch.labels).item() == pytest.approx(math.log(SIZES["vocab"]), abs=1.5)


AS_PUBLISHED = ("gnmt", "big")  # `test_gnmt` holds its operations


@pytest.mark.parametrize(("option", "size"), sorted({
    (path.stem, size) for path in Path(CONF, "model").glob("*.yaml") for size in SIZE_NAMES} - {AS_PUBLISHED}))
def test_sizes_have_as_many_parameters_in_every_family(option: str, size: str) -> None:
    """Within 10 % of the Transformer's, with the vocabulary that goes with such a size; a table of positions apart."""
    vocab = {"toy": 300, "tiny": 6000}.get(size, 8000)
    counts = []
    for choice in (option, "transformer"):
        model_config = resolve_size(compose([f"model={choice}", f"model.size={size}"]).model)
        with torch.device("meta"):
            model = build_model(model_config, src_vocab_size=vocab, tgt_vocab_size=vocab)
        counts.append(sum(p.numel() for name, p in model.named_parameters() if "positions" not in name))
    assert counts[0] == pytest.approx(counts[1], rel=0.1)
