"""The Transformer as textbooks write it: padded sentences, dense masks, softmax. No packing, no kernels, no dropout.

`minitx.models.transformer` must compute the same. Parameters have the same names there, so one loads the other's.

B sentences, S source and T target tokens, L queries, D width, H heads, d = D / H, V vocabulary.
"""

import math

import torch
from torch import Tensor, nn


class PlainTransformer(nn.Module):
    """Vaswani et al. 2017. `pos_encoding` is sinusoidal, learned, rope or none; `window` limits self-attention."""

    def __init__(self, *, src_vocab_size: int, tgt_vocab_size: int, num_layers: int, d_model: int, d_ff: int,
                 n_heads: int, pos_encoding: str, pre_norm: bool, tie_embeddings: bool, max_positions: int,
                 window: int | None = None) -> None:
        super().__init__()
        self.pos_encoding, self.window = pos_encoding, window
        self.src_embed = nn.Embedding(src_vocab_size, d_model)
        self.tgt_embed = self.src_embed if tie_embeddings else nn.Embedding(tgt_vocab_size, d_model)
        if pos_encoding == "learned":
            self.positions = nn.ModuleDict({"table": nn.Embedding(max_positions, d_model)})
        layer = (d_model, d_ff, n_heads, pos_encoding == "rope", pre_norm)
        self.encoder = nn.ModuleList(Layer(*layer) for _ in range(num_layers))
        self.decoder = nn.ModuleList(Layer(*layer, cross=True) for _ in range(num_layers))
        self.encoder_norm, self.decoder_norm = (nn.LayerNorm(d_model) if pre_norm else nn.Identity() for _ in range(2))
        self.output = nn.Linear(d_model, tgt_vocab_size, bias=False)
        if tie_embeddings:
            self.output.weight = self.tgt_embed.weight

    def forward(self, src: Tensor, src_mask: Tensor, tgt: Tensor) -> Tensor:
        """src: [B, S], src_mask: [B, S] bool, tgt: [B, T] --> logits [B, T, V]"""
        memory, x = self.embed(self.src_embed, src), self.embed(self.tgt_embed, tgt)
        on_source = src_mask[:, None, None]  # --> [B, 1, 1, S]
        in_source = on_source & self.near(src.shape[1]) | torch.eye(src.shape[1]).bool()  # padding sees itself
        for layer in self.encoder:
            memory = layer(memory, on_source if self.window is None else in_source)
        memory = self.encoder_norm(memory)
        causal = torch.ones(tgt.shape[1], tgt.shape[1]).tril().bool() & self.near(tgt.shape[1])
        for layer in self.decoder:
            x = layer(x, causal, memory, on_source)
        return self.output(self.decoder_norm(x))

    def near(self, length: int) -> Tensor:
        """Tell which places lie in each other's window. --> [L, L]"""
        places = torch.arange(length)
        return (places - places[:, None]).abs() <= (length if self.window is None else self.window)

    def embed(self, table: nn.Embedding, ids: Tensor) -> Tensor:
        """[B, L] --> [B, L, D]"""
        x, places = table(ids) * math.sqrt(table.embedding_dim), torch.arange(ids.shape[1])
        if self.pos_encoding == "learned":
            return x + self.positions["table"](places)
        if self.pos_encoding == "sinusoidal":
            angle = angles(places, x.shape[-1])
            x = x + torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
        return x


class Layer(nn.Module):
    """Self-attention, attention to the source if `cross`, feed-forward; each added to its input."""

    def __init__(self, d_model: int, d_ff: int, n_heads: int, rope: bool, pre_norm: bool, cross: bool = False) -> None:
        super().__init__()
        self.n_heads, self.rope, self.pre_norm = n_heads, rope, pre_norm
        self.attention = nn.ModuleDict({"qkv": bare(d_model, 3 * d_model), "out": bare(d_model, d_model)})
        self.add_attention = nn.ModuleDict({"norm": nn.LayerNorm(d_model)})
        if cross:
            self.cross = nn.ModuleDict({"q": bare(d_model, d_model), "kv": bare(d_model, 2 * d_model),
                                        "out": bare(d_model, d_model)})
            self.add_cross = nn.ModuleDict({"norm": nn.LayerNorm(d_model)})
        self.feed_forward = nn.Sequential(nn.Linear(d_model, d_ff), nn.ReLU(), nn.Linear(d_ff, d_model))
        self.add_feed_forward = nn.ModuleDict({"norm": nn.LayerNorm(d_model)})

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor | None = None, on_source: Tensor | None = None) -> Tensor:
        """x: [B, L, D], mask: bool, broadcast to [B, H, L, L] --> [B, L, D]"""
        def itself(y: Tensor) -> Tensor:
            q, k, v = (self.heads(part) for part in self.attention["qkv"](y).chunk(3, dim=-1))
            q, k = (rotate(q), rotate(k)) if self.rope else (q, k)
            return self.attention["out"](attend(q, k, v, mask))

        def source(y: Tensor) -> Tensor:
            k, v = (self.heads(part) for part in self.cross["kv"](memory).chunk(2, dim=-1))
            return self.cross["out"](attend(self.heads(self.cross["q"](y)), k, v, on_source))

        steps = [(self.add_attention["norm"], itself), (self.add_feed_forward["norm"], self.feed_forward)]
        if memory is not None:
            steps.insert(1, (self.add_cross["norm"], source))
        for norm, function in steps:
            x = x + function(norm(x)) if self.pre_norm else norm(x + function(x))
        return x

    def heads(self, x: Tensor) -> Tensor:
        """[B, L, D] --> [B, H, L, d]"""
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """q: [B, H, L, d], k, v: [B, H, S, d], mask: True = attend --> [B, L, D]"""
    scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(~mask, -math.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def rotate(x: Tensor) -> Tensor:
    """Multiply neighbours, read as a complex number, by exp(i * angle) (Su et al. 2021). [B, H, L, d] --> as x"""
    angle = angles(torch.arange(x.shape[2]), x.shape[3])
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * torch.polar(torch.ones_like(angle), angle)
    return torch.view_as_real(pairs).flatten(-2)


def angles(places: Tensor, width: int) -> Tensor:
    """place / 10,000^(2 i / width). [L] --> [L, width/2] float64"""
    return places.double()[:, None] / 10_000 ** (torch.arange(0, width, 2).double() / width)


def bare(d_in: int, d_out: int) -> nn.Linear:
    """A matrix without a bias."""
    return nn.Linear(d_in, d_out, bias=False)
