"""Attention maps: the weights that the model itself attends by, whatever stands beside a pair; and their file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from served import write_run
from torch import Tensor, nn
from toys import FAMILIES, SPECIALS, random_batch

import minitx
from minitx.config.saved import read_config
from minitx.data.batch import collate, pack
from minitx.evaluation import attention_maps as records
from minitx.evaluation.attention import BYTES, attention_maps, check_memory
from minitx.evaluation.attention_maps import BOS, EOS, SCALE, AttentionMaps, read, read_all, shown
from minitx.models.attention import CrossAttention, SelfAttention, from_heads, to_heads
from minitx.models.base import Seq2Seq
from minitx.runs.checkpoint import load_model
from minitx.utils.errors import Exit, UserError

ATTENDING = [name for name, make in FAMILIES.items() if make().attentions()]
OURS = [name for name in FAMILIES if name.startswith(("transformer", "lstm", "gnmt", "linear_rnn"))]  # of known layers


@pytest.fixture(params=ATTENDING)
def model(request: pytest.FixtureRequest) -> Seq2Seq:
    return FAMILIES[request.param]().double()


def made(layers: int = 2, heads: int = 3, **changes: Any) -> AttentionMaps:
    """Maps of a sentence and its translation, at random."""
    draw = np.random.default_rng(0)
    source, target = ["The", " dog", " sleep", "s", ".", EOS], ["Der", " Hund", " schläft", ".", EOS]

    def weights(L: int, S: int, *, causal: bool = False) -> np.ndarray[Any, Any]:
        drawn = draw.random((layers, heads, L, S)) * (np.tri(L, S) if causal else 1)
        return np.rint(SCALE * drawn / drawn.sum(-1, keepdims=True)).astype(int)

    known = {"experiment": "synthetic_transformer", "model": "transformer", "seed": 1, "config_sha256": "c" * 64,
             "source": source, "target": target,
             "weights": {"encoder": weights(6, 6), "decoder": weights(5, 5, causal=True), "cross": weights(5, 6)}}
    return AttentionMaps(**known | changes)


# --- the models' own weights


def test_a_row_sums_to_one_over_what_may_be_seen(model: Seq2Seq) -> None:
    batch = random_batch(17, recurring=True)
    found = model.attention_weights(batch.src, batch.tgt)
    sides = {"encoder": (batch.src, batch.src), "decoder": (batch.tgt, batch.tgt), "cross": (batch.tgt, batch.src)}
    for kind, weights in found.items():
        looking, seen = (side.mask for side in sides[kind])
        assert weights.shape[1::2] == (len(looking), looking.shape[1])
        pairs = (looking[:, :, None] & seen[:, None])[:, None].expand(weights.shape[1:])
        sums = weights.masked_fill(~pairs, 0).sum(-1).transpose(1, 2)[:, :, looking]
        torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-12, rtol=0)
        if kind == "decoder":
            assert not weights.triu(1).any()


def test_weights_that_would_not_fit_are_refused_before_they_are_made(model: Seq2Seq,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    batch = random_batch(3)
    count = sum(weights.numel() for weights in model.attention_weights(batch.src, batch.tgt).values())
    monkeypatch.setattr("minitx.evaluation.attention.free_bytes", lambda device: BYTES * count)
    check_memory(model, batch)
    monkeypatch.setattr("minitx.evaluation.attention.free_bytes", lambda device: BYTES * count - 1)
    with pytest.raises(UserError, match=r"^attention of 9 tokens and .* take a shorter sentence$"):
        check_memory(model, batch)


@pytest.mark.parametrize("name", OURS)
def test_each_layer_and_head_is_there(name: str) -> None:
    model, batch = FAMILIES[name](), random_batch(3)
    B, S, T = 3, batch.src.longest, batch.tgt.longest
    wanted = {"encoder": (2, B, 2, S, S), "decoder": (2, B, 2, T, T), "cross": (2, B, 2, T, S)}
    if name.startswith("linear_rnn"):
        wanted = {"cross": wanted["cross"]} if "attention" in name else {}
    elif not name.startswith("transformer"):
        attends = name.startswith("gnmt") or "additive" in name or "dot" in name
        wanted = {"cross": (1, B, 1, T, S)} if attends else {}
    assert {kind: weights.shape for kind, weights in model.attention_weights(batch.src, batch.tgt).items()} == wanted


def test_the_values_so_weighted_are_what_the_model_goes_on_with(model: Seq2Seq) -> None:
    batch, calls = random_batch(4), dict[nn.Module, list[tuple[tuple[Any, ...], Tensor]]]()

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        calls.setdefault(module, []).append((inputs, output))

    for module in (module for layers in model.attentions().values() for module in layers):
        module.register_forward_hook(note)
    found = model.attention_weights(batch.src, batch.tgt)
    for kind, layers in model.attentions().items():
        for module, weights in zip(layers, found[kind], strict=True):
            if isinstance(module, SelfAttention):
                ((x, packed), output), = calls[module]
                values = to_heads(module.project(x, packed.places, packed.longest), packed, module.n_heads, 3)[2]
                expected, n = module.out(from_heads(weights @ values, packed)), packed.n_tokens
            elif isinstance(module, CrossAttention):
                ((_, packed, memory, src), output), = calls[module]
                values = module.keys_values(memory, src)[1]
                expected, n = module.out(from_heads(weights @ values, packed)), packed.n_tokens
            else:  # of an LSTM: all steps at once, or one after another
                output = torch.cat([output for _, output in calls[module]], dim=1)
                expected, n = weights[:, 0] @ calls[module][0][0][1], len(output)
            torch.testing.assert_close(output[:n], expected[:n], atol=1e-12, rtol=1e-12)


def test_self_attention_s_weights_are_torch_multihead_attention_s() -> None:
    ours, theirs = SelfAttention(16, 4).double(), nn.MultiheadAttention(16, 4, bias=False, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
    packed = pack([[5] * length for length in (7, 4, 1)], 0)
    rows = torch.randn(len(packed.ids), 16).double()
    x = packed.pad(rows)
    for causal in (False, True):
        later = torch.ones(7, 7, dtype=torch.bool).triu(1) if causal else None
        _, expected = theirs(x, x, x, key_padding_mask=~packed.mask, attn_mask=later, average_attn_weights=False)
        real = packed.mask[:, None, :, None].expand(expected.shape)
        found = ours.weights(rows, packed, causal=causal)
        torch.testing.assert_close(found[real], expected[real], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("recurring", [False, True])
def test_batch_mates_and_padding_change_nothing(model: Seq2Seq, recurring: bool) -> None:
    pairs = [([3, 4, 5], [6, 7]), ([5] * 9, [4] * 8), ([8], [9])] * 6
    together = collate(*map(list, zip(*pairs, strict=True)), **SPECIALS, pad_to_multiple=8, recurring=recurring)
    found = model.attention_weights(together.src, together.tgt)
    for row, (src, tgt) in enumerate(pairs[:3]):
        alone = collate([src], [tgt], **SPECIALS)
        for kind, expected in model.attention_weights(alone.src, alone.tgt).items():
            L, S = expected.shape[-2:]
            torch.testing.assert_close(found[kind][:, row, :, :L, :S], expected[:, 0], atol=1e-12, rtol=1e-12)


def test_nothing_stays_behind_even_where_the_model_fails(model: Seq2Seq) -> None:
    batch = random_batch(3)
    expected = model(batch.src, batch.tgt)
    model.attention_weights(batch.src, batch.tgt)
    with pytest.raises(IndexError):
        model.attention_weights(batch.src, pack([[99]] * 3, 0))  # no such token
    assert not any(module._forward_hooks for module in model.modules())
    found = model(batch.src, batch.tgt)
    assert torch.equal(found, expected)
    assert found.requires_grad


# --- strings to maps


@pytest.fixture(scope="module", params=["transformer", "lstm_attention", "linear_rnn_attention"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model knows nothing."""
    return write_run(tmp_path_factory.mktemp("run"), f"model={request.param}")


def look(run_dir: Path, source: str, target: str | None = None, **options: Any) -> AttentionMaps:
    found = attention_maps(minitx.load(run_dir), read_config(run_dir), source, target, **options)
    assert found is not None
    return found


def test_a_pair_s_weights_are_the_model_s_rounded(served: Path) -> None:
    found = look(served, "the dog sees", "der Hund")
    model, tokenizers, cfg = load_model(served)
    batch = collate([tokenizers.src.encode("the dog sees")], [tokenizers.tgt.encode("der Hund")], **SPECIALS)
    expected = model.attention_weights(batch.src, batch.tgt)
    assert list(found.weights) == list(expected)
    for kind, weights in expected.items():
        assert np.abs(found.weights[kind] / SCALE - weights[:, 0].numpy()).max() <= 0.5 / SCALE + 1e-6
    assert ("".join(found.source[:-1]), "".join(found.target[:-1])) == ("the dog sees", "der Hund")
    assert found.source[-1] == found.target[-1] == EOS
    assert found.fault() is None
    assert (found.model, found.seed) == (cfg.choices.model, cfg.seed)


def test_without_a_target_it_is_the_model_s_own_translation(served: Path) -> None:
    translation = minitx.load(served).translate(["the dog"])[0]
    assert look(served, "the dog").json() == look(served, "the dog", translation).json()


@pytest.mark.parametrize("model", ["linear_rnn", "lstm"])
def test_a_model_without_attention_has_none(model: str, tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", f"model={model}")
    assert attention_maps(minitx.load(run_dir), read_config(run_dir), "the dog") is None


def test_a_long_source_is_cut_and_what_cannot_be_looked_at_is_refused(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", "model=transformer", "model.pos_encoding=learned", "model.max_positions=16",
                        "data.max_length=12")
    told: list[tuple[int, str]] = []
    found = look(run_dir, "x" * 20, "der Hund", warn=lambda row, what: told.append((row, what)))
    assert (len(found.source), told) == (16, [(0, "22 tokens, cut to 16")])
    with pytest.raises(UserError, match="the translation has 23 tokens, this model writes at most 16") as refused:
        look(run_dir, "the dog", "ü" * 10 + "y")
    assert refused.value.code == Exit.DATA
    with pytest.raises(UserError, match="blank"):
        look(run_dir, " ")


def test_pieces_are_the_text_and_as_many_as_tokens(run_dir: Path) -> None:
    tokenizer = load_model(run_dir)[1].tgt

    @given(st.text(max_size=12))
    def holds(text: str) -> None:
        ids = tokenizer.encode(text)
        found = tokenizer.pieces(ids)
        assert ("".join(found), len(found)) == (text, len(ids))

    holds()


def test_a_letter_of_several_tokens_is_the_last_one_s(run_dir: Path) -> None:
    tokenizer = load_model(run_dir)[1].tgt
    assert tokenizer.pieces(tokenizer.encode("der ü€"))[-5:] == ["", "ü", "", "", "€"]


# --- as a file


def test_what_is_written_is_read_and_has_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(made().json(), encoding="utf-8")
    (tmp_path / "b.json").write_text(made(heads=1).json(), encoding="utf-8")
    assert read(path).json() == made().json()
    assert list(read_all(tmp_path)) == ["a", "b"]
    assert read_all(tmp_path / "none") == {}
    assert made().system == "synthetic_transformer"


def test_tokens_are_shown_so_that_they_can_be_told_apart() -> None:
    assert shown(["The", " dog", "s", "!", " ", "", "\n", "ü", EOS]) == [
        "The", "dog", "-s", "!", "…", "…", "…", "-ü", EOS]
    assert shown([BOS, "Der", " Hund"]) == [BOS, "Der", "Hund"]
    assert shown(["a\x1b[2J"]) == ["a\\x1b[2J"]


def test_an_alignment_is_where_the_mean_over_heads_is_highest() -> None:
    cross = np.zeros((1, 2, 2, 3), int)
    cross[0, :, 0] = [10_000, 0, 0], [4_000, 6_000, 0]
    cross[0, :, 1] = [0, 5_000, 5_000], [0, 1_000, 9_000]
    maps = made(source=["a", " b", EOS], target=["x", EOS], weights={"cross": cross})
    assert maps.fault() is None
    assert list(maps.alignment()) == [("x", "a", 0.7), (EOS, EOS, 0.7)]


def changed(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda values: values.update(changes)


def less(*keys: Any) -> Callable[[dict[str, Any]], None]:
    def lessen(values: Any) -> None:
        for key in keys[:-1]:
            values = values[key]
        del values[keys[-1]]

    return lessen


def wrong_sum(values: dict[str, Any]) -> None:
    values["weights"]["cross"][0][0][0][0] += 20


def negative(values: dict[str, Any]) -> None:
    row = values["weights"]["encoder"][0][0][0]
    row[0], row[1] = -1, row[0] + row[1] + 1


def foreseen(values: dict[str, Any]) -> None:
    values["weights"]["decoder"][0][0][0][:2] = 5_000, 5_000


def fraction(values: dict[str, Any]) -> None:
    values["weights"]["cross"][0][0][0][0] += 0.25


@pytest.mark.parametrize(("edit", "why"), [
    (changed(format=2), "format 2 of attention maps, this version reads 1"), (changed(more=1), "see more"),
    (less("seed"), "see seed"), (changed(seed="1"), "seed has a wrong type: '1'"), (changed(model=None), "model has"),
    (changed(scale=100), "a scale other than 10000"), (changed(source=[]), "lists of tokens"),
    (changed(target=["a", 3]), "lists of tokens"), (changed(source="dog"), "lists of tokens"),
    (changed(weights={}), "not of nothing"), (changed(weights={"self": [[[[1]]]]}), "not of self"),
    (changed(weights=3), "not attention maps"), (less("source", 0), "encoder: not whole numbers .* 5 tokens and the 5"),
    (less("weights", "cross", 0, 0), "not attention maps"), (less("weights", "cross", 0, 0, 0), "not attention maps"),
    (fraction, "cross: not whole numbers"), (wrong_sum, "cross: .* do not add up to 10000"),
    (negative, "encoder: .* do not add up"), (foreseen, "decoder: a token attends to one that was not yet written"),
])  # fmt: skip
def test_what_was_edited_by_hand_is_noticed(edit: Callable[[dict[str, Any]], None], why: str, tmp_path: Path) -> None:
    values = json.loads(made().json())
    edit(values)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=why) as slip:
        read(path)
    assert str(slip.value).startswith(f"{path}: ")
    assert "\n" not in str(slip.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"3"])
def test_a_file_that_is_none_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json: "):
        read_all(tmp_path)


def test_what_is_too_large_is_neither_written_nor_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = made().json()
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    monkeypatch.setattr(records, "LARGEST", 500)
    with pytest.raises(UserError, match="may have 500: take a shorter sentence"):
        made().json()
    with pytest.raises(UserError, match=r"a\.json: .* bytes, and a file of attention maps may have 500"):
        read(tmp_path / "a.json")
