"""A Transformer as a model of Hugging Face's transformers, written without that library.

Pegasus is our pre-norm Transformer and Marian our post-norm one: the same layers, embeddings scaled by the square root
of the width, ReLU. Their attention has biases, which are 0 here. Their sinusoids are ours with all sines before the
cosines, so the dimensions of such a model are put into that order: positions are right then, too, where the library
computes them anew, as for a Marian that it has saved itself.
"""

import json
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save
from torch import Tensor, nn

from minitx.config.schema import DecodeConfig, TransformerConfig
from minitx.data.tokenizer import N_SPECIALS, Tokenizer
from minitx.export.card import card
from minitx.export.formats import Limits, Trained
from minitx.export.positions import longest, position_table
from minitx.models.layers import FeedForward
from minitx.models.transformer import DecoderLayer, EncoderLayer, Transformer
from minitx.utils.files import create


def write(trained: Trained, folder: Path, quantization: str | None) -> Limits:
    """Write the weights, the settings of model and search, the tokenizer and the model's card. Errors: OSError"""
    model, cfg = cast(Transformer, trained.model), cast(TransformerConfig, trained.config.model)
    positions = position_table(model, longest(trained.config.decode))
    rows, vocabulary = len(positions), trained.tokenizers.tgt
    weights = _Weights(sinusoidal=cfg.pos_encoding == "sinusoidal", width=positions.shape[1])
    weights.add_model(model, positions, cfg.pre_norm)
    create(folder / "model.safetensors", save(weights.tensors, {"format": "pt"}))
    for name, content in (("config.json", _model_settings(model, cfg.pre_norm, rows)),
                          ("generation_config.json", _search_settings(trained.config.decode, rows)),
                          ("tokenizer.json", _tokenizer(vocabulary)),
                          ("tokenizer_config.json", _tokenizer_settings(vocabulary, rows))):
        create(folder / name, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    create(folder / "README.md", card(trained.config, trained.result, trained.name).encode())
    return Limits(rows, rows)


class _Weights:
    """Collect tensors by the names that the library has for them, the model's dimensions in its order.

    D is the width whose order may change; whatever a layer has inside (heads, the wide layer) keeps its order.
    """

    def __init__(self, *, sinusoidal: bool, width: int) -> None:
        dimensions = torch.arange(width)
        self.order = torch.cat([dimensions[0::2], dimensions[1::2]]) if sinusoidal else dimensions
        self.tensors: dict[str, Tensor] = {}

    def add_model(self, model: Transformer, positions: Tensor, pre_norm: bool) -> None:
        """positions: [rows, D]"""
        self.add("model.shared.weight", model.tgt_embed.weight, reads=True)
        self.add("final_logits_bias", torch.zeros(1, model.output.out_features))
        for side, layers, norm in (("encoder", model.encoder, model.encoder_norm),
                                   ("decoder", model.decoder, model.decoder_norm)):
            self.add(f"model.{side}.embed_positions.weight", positions, reads=True)
            for i, layer in enumerate(cast(list[EncoderLayer | DecoderLayer], list(layers))):
                self.add_layer(f"model.{side}.layers.{i}", layer)
            if pre_norm:
                self.add_norm(f"model.{side}.layer_norm", norm)

    def add_layer(self, name: str, layer: EncoderLayer | DecoderLayer) -> None:
        """Add a layer of either side."""
        self.add_attention(f"{name}.self_attn", layer.attention.qkv.weight, layer.attention.out)
        self.add_norm(f"{name}.self_attn_layer_norm", layer.add_attention.norm)
        if isinstance(layer, DecoderLayer):
            self.add_attention(f"{name}.encoder_attn", torch.cat([layer.cross.q.weight, layer.cross.kv.weight]),
                               layer.cross.out)
            self.add_norm(f"{name}.encoder_attn_layer_norm", layer.add_cross.norm)
        self.add_feed_forward(name, layer.feed_forward)
        self.add_norm(f"{name}.final_layer_norm", layer.add_feed_forward.norm)

    def add_attention(self, name: str, qkv: Tensor, out: nn.Linear) -> None:
        """qkv: [3D, D]"""
        for projection, weight in zip("qkv", qkv.chunk(3), strict=True):
            self.add(f"{name}.{projection}_proj.weight", weight, reads=True)
        self.add(f"{name}.out_proj.weight", out.weight, writes=True)
        for projection in ("q", "k", "v", "out"):
            self.add(f"{name}.{projection}_proj.bias", torch.zeros(out.out_features))

    def add_feed_forward(self, name: str, feed_forward: FeedForward) -> None:
        """Add the two matrices and their biases."""
        wide, _, narrow = cast(list[nn.Linear], list(feed_forward))
        self.add(f"{name}.fc1.weight", wide.weight, reads=True)
        self.add(f"{name}.fc1.bias", wide.bias)
        self.add(f"{name}.fc2.weight", narrow.weight, writes=True)
        self.add(f"{name}.fc2.bias", narrow.bias, writes=True)

    def add_norm(self, name: str, norm: nn.Module) -> None:
        """Add scale and shift."""
        assert isinstance(norm, nn.LayerNorm)
        self.add(f"{name}.weight", norm.weight, writes=True)
        self.add(f"{name}.bias", norm.bias, writes=True)

    def add(self, name: str, tensor: Tensor, *, reads: bool = False, writes: bool = False) -> None:
        """reads: its last dimension is D; writes: its first one is"""
        tensor = tensor.detach().float().cpu()
        if reads:
            tensor = tensor[:, self.order]
        if writes:
            tensor = tensor[self.order]
        self.tensors[name] = tensor.clone(memory_format=torch.contiguous_format)


def _specials() -> dict[str, int]:
    """Return the ids of the specials as both files of settings name them."""
    return {"pad_token_id": Tokenizer.pad_id, "bos_token_id": Tokenizer.bos_id, "eos_token_id": Tokenizer.eos_id,
            "decoder_start_token_id": Tokenizer.bos_id}


def _model_settings(model: Transformer, pre_norm: bool, rows: int) -> dict[str, Any]:
    layer = cast(EncoderLayer, model.encoder[0])
    d_ff = cast(nn.Linear, layer.feed_forward[0]).out_features
    sides: dict[str, Any] = {}
    for side, layers in (("encoder", model.encoder), ("decoder", model.decoder)):
        sides |= {f"{side}_layers": len(layers), f"{side}_attention_heads": layer.attention.n_heads,
                  f"{side}_ffn_dim": d_ff}
    kind, name = ("pegasus", "PegasusForConditionalGeneration") if pre_norm else ("marian", "MarianMTModel")
    return {
        "model_type": kind, "architectures": [name], "vocab_size": model.output.out_features,
        "d_model": model.output.in_features, **sides, "max_position_embeddings": rows, "activation_function": "relu",
        "scale_embedding": True, "tie_word_embeddings": True, "is_encoder_decoder": True, "use_cache": True,
        "dropout": layer.add_attention.dropout.p, "attention_dropout": 0.0, "activation_dropout": 0.0,
        "forced_eos_token_id": None, "dtype": "float32", **_specials()}


def _search_settings(decode: DecodeConfig, rows: int) -> dict[str, Any]:
    """Search as the run does, as far as the library can: it divides by length ** penalty."""
    return {"num_beams": decode.beam_size, "length_penalty": decode.length_penalty, "early_stopping": False,
            "max_length": rows, "suppress_tokens": [Tokenizer.pad_id, Tokenizer.bos_id], "forced_eos_token_id": None,
            **_specials()}


def _tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return tokenizer.json: the same tokens by our ids, with the space before a line and the end behind it."""
    names = tokenizer.tokens
    ours = tokenizer.description()
    eos = names[Tokenizer.eos_id]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return ours | {
        "added_tokens": [{"id": id_, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True} for id_, name in enumerate(names[:N_SPECIALS])],
        "normalizer": {"type": "Prepend", "prepend": " "},
        "post_processor": {"type": "TemplateProcessing",
                           "single": [{"Sequence": {"id": "A", "type_id": 0}},
                                      {"SpecialToken": {"id": eos, "type_id": 0}}],
                           "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}},
                                    {"SpecialToken": {"id": eos, "type_id": 0}}],
                           "special_tokens": {eos: {"id": eos, "ids": [Tokenizer.eos_id], "tokens": [eos]}}},
        "decoder": {"type": "Sequence", "decoders": [byte_level, {"type": "Strip", "content": " ", "start": 1,
                                                                  "stop": 0}]},
        "model": ours["model"] | {"vocab": {name: id_ for id_, name in enumerate(names)}}}


def _tokenizer_settings(tokenizer: Tokenizer, rows: int) -> dict[str, Any]:
    """No text is a special: `split_special_tokens` lets one that looks like it be encoded as text."""
    pad, bos, eos = tokenizer.tokens[:N_SPECIALS]
    return {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": pad, "bos_token": bos, "eos_token": eos,
            "model_max_length": rows, "split_special_tokens": True, "clean_up_tokenization_spaces": False,
            "padding_side": "right", "model_input_names": ["input_ids", "attention_mask"]}
