"""A Transformer as a model of CTranslate2: its layers are the same, and positions go along as a table.

(CTranslate2 can compute sinusoids, but of other wavelengths, and from position 1.) Weights are stored as fp32, or are
rounded by CTranslate2: to int8 a row at a time, with the row's largest number as 127.
"""

from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from minitx.config.schema import TransformerConfig
from minitx.data.tokenizer import Tokenizer
from minitx.export.formats import Limits, Trained
from minitx.export.positions import longest, position_table
from minitx.models.attention import CrossAttention, SelfAttention
from minitx.models.layers import FeedForward, Sublayer
from minitx.models.transformer import DecoderLayer, EncoderLayer, Transformer

LAYER_NORM_EPSILON = 1e-5  # torch's own, and what each `LayerNorm` here has


def write(trained: Trained, folder: Path, quantization: str | None) -> Limits:
    """Write model.bin, config.json and the vocabulary. Errors: OSError"""
    model, cfg = cast(Transformer, trained.model), cast(TransformerConfig, trained.config.model)
    positions = None if cfg.pos_encoding == "rope" else position_table(model, longest(trained.config.decode) + 1)
    spec = _specification(model, cfg.pre_norm, positions)
    src, tgt = trained.tokenizers.src.tokens, trained.tokenizers.tgt.tokens
    spec.register_source_vocabulary(src)
    spec.register_target_vocabulary(tgt)
    spec.config.bos_token = spec.config.decoder_start_token = tgt[Tokenizer.bos_id]
    spec.config.eos_token = tgt[Tokenizer.eos_id]
    spec.config.unk_token = tgt[Tokenizer.pad_id]  # nothing is unknown to byte-level BPE
    spec.config.add_source_eos = True
    spec.config.layer_norm_epsilon = LAYER_NORM_EPSILON
    spec.validate()
    spec.optimize(quantization)
    spec.save(str(folder))
    rows = None if positions is None else len(positions)
    return Limits(rows, None if rows is None else rows - 1)  # scoring reads BOS before all that was written


def _specification(model: Transformer, pre_norm: bool, positions: Tensor | None) -> Any:
    """Put the weights where CTranslate2 looks for them. positions: [rows, D]; None = rotary"""
    from ctranslate2.specs import transformer_spec as specs  # type: ignore[import-untyped]

    heads = _encoder_layers(model)[0].attention.n_heads
    rotary = {} if positions is not None else {
        "rotary_dim": model.src_embed.embedding_dim // heads, "rotary_interleave": True, "rotary_base": 10_000}
    spec = specs.TransformerSpec(
        specs.TransformerEncoderSpec(len(model.encoder), heads, pre_norm=pre_norm, **rotary),
        specs.TransformerDecoderSpec(len(model.decoder), heads, pre_norm=pre_norm, **rotary))
    for side, embedding in ((spec.encoder.embeddings[0], model.src_embed), (spec.decoder.embeddings, model.tgt_embed)):
        side.weight = _numbers(embedding.weight)
    for side, norm in ((spec.encoder, model.encoder_norm), (spec.decoder, model.decoder_norm)):
        side.scale_embeddings = True  # by the square root of the width
        if positions is not None:
            side.position_encodings.encodings = _numbers(positions)
        if pre_norm:
            _norm(side.layer_norm, norm)
    _linear(spec.decoder.projection, model.output)
    for place, layer in zip(spec.encoder.layer, _encoder_layers(model), strict=True):
        _self_attention(place.self_attention, layer.attention, layer.add_attention)
        _feed_forward(place.ffn, layer.feed_forward, layer.add_feed_forward)
    for place, decoder_layer in zip(spec.decoder.layer, cast(list[DecoderLayer], list(model.decoder)), strict=True):
        _self_attention(place.self_attention, decoder_layer.attention, decoder_layer.add_attention)
        _cross_attention(place.attention, decoder_layer.cross, decoder_layer.add_cross)
        _feed_forward(place.ffn, decoder_layer.feed_forward, decoder_layer.add_feed_forward)
    return spec


def _encoder_layers(model: Transformer) -> list[EncoderLayer]:
    return cast(list[EncoderLayer], list(model.encoder))


def _self_attention(place: Any, attention: SelfAttention, around: Sublayer) -> None:
    _norm(place.layer_norm, around.norm)
    for spec, linear in zip(place.linear, (attention.qkv, attention.out), strict=True):
        _linear(spec, linear)


def _cross_attention(place: Any, attention: CrossAttention, around: Sublayer) -> None:
    _norm(place.layer_norm, around.norm)
    for spec, linear in zip(place.linear, (attention.q, attention.kv, attention.out), strict=True):
        _linear(spec, linear)


def _feed_forward(place: Any, feed_forward: FeedForward, around: Sublayer) -> None:
    _norm(place.layer_norm, around.norm)
    for spec, linear in ((place.linear_0, feed_forward[0]), (place.linear_1, feed_forward[2])):
        _linear(spec, linear)


def _linear(place: Any, linear: nn.Module) -> None:
    assert isinstance(linear, nn.Linear)
    place.weight = _numbers(linear.weight)
    if linear.bias is not None:
        place.bias = _numbers(linear.bias)


def _norm(place: Any, norm: nn.Module) -> None:
    assert isinstance(norm, nn.LayerNorm)
    place.gamma, place.beta = _numbers(norm.weight), _numbers(norm.bias)


def _numbers(tensor: Tensor) -> Any:
    return tensor.detach().float().cpu().numpy().copy()
