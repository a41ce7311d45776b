"""What every family owes: the same matrix of proofs for each row of `toys.FAMILIES`, in float64."""

import math
from dataclasses import fields
from inspect import signature
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from toys import FAMILIES, SIZES, SPECIALS, random_batch

from minitx.batch import collate
from minitx.checkpoint import load_tensors, model_tensors
from minitx.config import ModelConfig, resolve_size
from minitx.decoding.search import beam, greedy
from minitx.door import CONF, compose
from minitx.models.base import Seq2Seq
from minitx.models.registry import MODELS, build_model, model_class
from minitx.training.loss import cross_entropy


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
    full = model(batch.src, batch.src_mask, batch.tgt_in)
    state = model.init_state(model.encode(batch.src, batch.src_mask), batch.src_mask)
    for t in range(batch.tgt_in.shape[1]):
        logits, state = model.step(batch.tgt_in[:, t], state)
        torch.testing.assert_close(logits, full[:, t], atol=1e-10, rtol=1e-10)


def test_beams_share_the_source_and_follow_their_parents(model: Seq2Seq) -> None:
    """K hypotheses a sentence, reordered and with a sentence dropped, give what each would alone."""
    batch = random_batch(3)
    state = model.init_state(model.encode(batch.src, batch.src_mask), batch.src_mask, beam_size=2)
    _, state = model.step(torch.tensor([4, 5, 6, 7, 8, 9]), state)
    state = state.reorder(torch.tensor([1, 1, 2, 3, 5, 4])).keep(torch.tensor([0, 2]))
    logits, _ = model.step(torch.tensor([3, 4, 5, 6]), state)
    prefixes = torch.tensor([[5, 3], [5, 4], [9, 5], [8, 6]])
    rows = torch.tensor([0, 0, 2, 2])
    expected = model(batch.src[rows], batch.src_mask[rows], prefixes)[:, -1]
    torch.testing.assert_close(logits, expected, atol=1e-10, rtol=1e-10)


def test_a_beam_of_one_is_greedy_search(model: Seq2Seq) -> None:
    batch = random_batch(8)
    limits = torch.full((8,), 12)
    best = beam(model, batch.src, batch.src_mask, max_lengths=limits, beam_size=1, length_penalty=1.0, **SPECIALS)
    assert [found[0].ids for found in best] == greedy(
        model, batch.src, batch.src_mask, max_lengths=limits, **SPECIALS)


def test_padding_and_batch_mates_change_nothing(model: Seq2Seq) -> None:
    pairs = [([3, 4, 5], [6, 7]), ([5] * 9, [4] * 8), ([8], [9]), ([], [])]
    together = collate([s for s, _ in pairs], [t for _, t in pairs], **SPECIALS, pad_to_multiple=8)
    logits = model(together.src, together.src_mask, together.tgt_in)
    for row, (src, tgt) in enumerate(pairs):
        alone = collate([src], [tgt], **SPECIALS)
        expected = model(alone.src, alone.src_mask, alone.tgt_in)[0]
        torch.testing.assert_close(logits[row, : len(tgt) + 1], expected, atol=1e-10, rtol=1e-10)


def test_what_is_written_in_padding_changes_neither_loss_nor_gradient(model: Seq2Seq) -> None:
    batch, gradients = random_batch(4), []
    for padding in (0, 7):
        src, tgt_in = (torch.where(mask, ids, padding)
                       for ids, mask in ((batch.src, batch.src_mask), (batch.tgt_in, batch.tgt_mask)))
        logits = model(src, batch.src_mask, tgt_in, batch.tgt_mask)
        loss, _ = cross_entropy(logits, batch.tgt_out[batch.tgt_mask], 0.1)
        gradients.append([loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


def test_kept_positions_are_those_of_the_mask(model: Seq2Seq) -> None:
    batch = random_batch(4)
    full = model(batch.src, batch.src_mask, batch.tgt_in)
    torch.testing.assert_close(model(batch.src, batch.src_mask, batch.tgt_in, batch.tgt_mask), full[batch.tgt_mask])


def test_the_future_is_not_seen(model: Seq2Seq) -> None:
    batch = random_batch(4)
    changed = batch.tgt_in.clone()
    changed[:, -1] = 5
    one, other = (model(batch.src, batch.src_mask, tgt_in)[:, :-1] for tgt_in in (batch.tgt_in, changed))
    assert torch.equal(one, other)


def test_every_parameter_has_a_gradient(model: Seq2Seq) -> None:
    batch = random_batch(16)
    model(batch.src, batch.src_mask, batch.tgt_in, batch.tgt_mask).square().sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not idle


def test_weights_survive_a_file(model: Seq2Seq) -> None:
    batch, content = random_batch(4), save(model_tensors(model))
    expected = model(batch.src, batch.src_mask, batch.tgt_in)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    load_tensors(model, load(content))
    assert torch.equal(model(batch.src, batch.src_mask, batch.tgt_in), expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_tied_embeddings_are_one_matrix(name: str) -> None:
    tied, untied = FAMILIES[name](), FAMILIES[name](tie_embeddings=False)
    assert tied.src_embed.weight is tied.tgt_embed.weight is tied.output.weight
    sizes = [sum(p.numel() for p in model.parameters()) for model in (tied, untied)]
    assert sizes[1] - sizes[0] == 2 * SIZES["vocab"] * SIZES["d_model"]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16], ids=["mixed", "true"])
def test_bf16_gives_the_gradient_but_for_rounding(name: str, weights: torch.dtype) -> None:
    """As the task computes it: fp32 weights under autocast, or bf16 weights without."""
    batch, gradients = random_batch(32), []
    for dtype in (torch.float64, weights):
        model = FAMILIES[name]().to(dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.float32):
            logits = model(batch.src, batch.src_mask, batch.tgt_in, batch.tgt_mask)
        loss, _ = cross_entropy(logits, batch.tgt_out[batch.tgt_mask], 0.1)
        loss.backward()
        assert all(p.grad is not None and p.grad.dtype is dtype for p in model.parameters())
        gradients.append(torch.cat([p.grad.double().flatten() for p in model.parameters() if p.grad is not None]))
    assert F.cosine_similarity(*gradients, dim=0) > 0.98


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("autocast", [True, False])
def test_search_runs_in_bf16(name: str, autocast: bool) -> None:
    batch, model = random_batch(4), FAMILIES[name]().to(torch.float32 if autocast else torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = beam(model, batch.src, batch.src_mask, max_lengths=torch.full((4,), 6), beam_size=3,
                     length_penalty=1.0, **SPECIALS)
    assert [len(hypotheses) for hypotheses in found] == [1] * 4


def test_initial_loss_is_that_of_guessing(model: Seq2Seq) -> None:
    batch = random_batch(16)
    logits = model(batch.src, batch.src_mask, batch.tgt_in, batch.tgt_mask)
    assert F.cross_entropy(logits, batch.tgt_out[batch.tgt_mask]).item() == pytest.approx(
        math.log(SIZES["vocab"]), abs=1.5)


@pytest.mark.parametrize("option", sorted(path.stem for path in Path(CONF, "model").glob("*.yaml")))
@pytest.mark.parametrize("size", ["toy", "tiny", "small", "base", "big"])
def test_sizes_have_as_many_parameters_in_every_family(option: str, size: str) -> None:
    """Within 10 % of the Transformer's, with the vocabulary that goes with such a size."""
    vocab = {"toy": 300, "tiny": 6000}.get(size, 8000)
    counts = []
    for choice in (option, "transformer"):
        model_config = resolve_size(compose([f"model={choice}", f"model.size={size}"]).model)
        with torch.device("meta"):
            model = build_model(model_config, src_vocab_size=vocab, tgt_vocab_size=vocab)
        counts.append(sum(p.numel() for p in model.parameters()))
    assert counts[0] == pytest.approx(counts[1], rel=0.1)
