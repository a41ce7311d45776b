"""A split as flat arrays of ids: encoded once, cached by content, sliced without copies of the rest."""

import hashlib
import os
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from minitx.data.plan import Ints
from minitx.data.sources import Corpus
from minitx.data.tokenizer import Tokenizer, TokenizerPair
from minitx.errors import Exit, UserError

Tokens = npt.NDArray[np.int32]
FORMAT = "1"  # of the cached files; part of their key
CHUNK = 100_000  # sentences held as lists of Python ints at a time


@dataclass(frozen=True, eq=False)
class EncodedSplit:
    """Ids without specials, all sentences in one array a side; sentence i is tokens[offsets[i]:offsets[i + 1]].

    `dropped`: training pairs left out, by reason.
    """

    src_tokens: Tokens
    src_offsets: Ints
    tgt_tokens: Tokens
    tgt_offsets: Ints
    dropped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.src_offsets) - 1

    @property
    def src_len(self) -> Ints:
        """Source tokens of each sentence, EOS included."""
        return np.diff(self.src_offsets) + 1

    @property
    def tgt_len(self) -> Ints:
        """Target tokens of each sentence, EOS included."""
        return np.diff(self.tgt_offsets) + 1

    def src(self, rows: Ints) -> list[list[int]]:
        """Return the source ids of the given sentences."""
        return _take(self.src_tokens, self.src_offsets, rows)

    def tgt(self, rows: Ints) -> list[list[int]]:
        """Return the target ids of the given sentences."""
        return _take(self.tgt_tokens, self.tgt_offsets, rows)

    def limited(self, max_length: int) -> "EncodedSplit":
        """Leave out pairs with an empty side, or a side of more than `max_length` tokens with EOS.

        Errors: `UserError` if no pair is left.
        """
        shorter, longer = np.minimum(self.src_len, self.tgt_len), np.maximum(self.src_len, self.tgt_len)
        empty, long = shorter == 1, (longer > max_length) & (shorter > 1)
        dropped = {"empty side": int(empty.sum()), f"longer than {max_length} tokens": int(long.sum())}
        keep = ~(empty | long)
        if not keep.any():
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())
            raise UserError(f"no training pair is left of {len(self):,} ({reasons}): see data.max_length", Exit.DATA)
        src, tgt = (_kept(*side, keep) for side in
                    ((self.src_tokens, self.src_offsets), (self.tgt_tokens, self.tgt_offsets)))
        return EncodedSplit(*src, *tgt, dropped)

    def save(self, path: Path) -> None:
        """Write one safetensors file atomically: a temporary file in the same folder takes the name last."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "src_tokens": self.src_tokens, "src_offsets": self.src_offsets,
            "tgt_tokens": self.tgt_tokens, "tgt_offsets": self.tgt_offsets,
        }
        descriptor, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
        os.close(descriptor)
        try:
            save_file(arrays, part)
            os.replace(part, path)
        finally:
            Path(part).unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> "EncodedSplit":
        """Read what `save` wrote; errors: SafetensorError, KeyError or OSError."""
        arrays = load_file(path)
        return cls(arrays["src_tokens"], arrays["src_offsets"], arrays["tgt_tokens"], arrays["tgt_offsets"])


def _take(tokens: Tokens, offsets: Ints, rows: Ints) -> list[list[int]]:
    starts, ends = offsets[:-1][rows].tolist(), offsets[1:][rows].tolist()
    return [tokens[start:end].tolist() for start, end in zip(starts, ends, strict=True)]


def _kept(tokens: Tokens, offsets: Ints, keep: npt.NDArray[np.bool_]) -> tuple[Tokens, Ints]:
    lengths = np.diff(offsets)
    return tokens[np.repeat(keep, lengths)], _offsets(lengths[keep])


def _offsets(lengths: Sequence[int] | Ints) -> Ints:
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))


def _flat(texts: list[str], tokenizer: Tokenizer) -> tuple[Tokens, Ints]:
    tokens, lengths = [np.zeros(0, np.int32)], list[int]()
    for first in range(0, len(texts), CHUNK):
        ids = tokenizer.encode_batch(texts[first : first + CHUNK])
        tokens.append(np.fromiter(chain.from_iterable(ids), np.int32))
        lengths += map(len, ids)
    return np.concatenate(tokens), _offsets(lengths)


def default_cache_dir() -> Path:
    """Return $MINITX_CACHE, or ~/.cache/minitx."""
    return Path(os.environ.get("MINITX_CACHE") or Path.home() / ".cache" / "minitx")


def encode_cached(corpus: Corpus, split: str, tokenizers: TokenizerPair, max_length: int,
                  cache_dir: Path) -> EncodedSplit:
    """Encode a split, or take it from the cache; only "train" is limited to `max_length`.

    The key is the content, so runs that write at once write the same. A cache that fails is warned of, never fatal.
    """
    key = "\0".join((FORMAT, corpus.fingerprint, split, tokenizers.fingerprint))
    path = cache_dir / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"
    encoded = _load_cached(path)
    if encoded is None:
        encoded = _encode(corpus, split, tokenizers)
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
            encoded.save(path)
        except (OSError, SafetensorError) as error:
            warnings.warn(f"{cache_dir}: encoded text cannot be cached ({error}); MINITX_CACHE names another folder",
                          stacklevel=2)
    return encoded.limited(max_length) if split == "train" else encoded


def _load_cached(path: Path) -> EncodedSplit | None:
    if not path.exists():
        return None
    try:
        return EncodedSplit.load(path)
    except (OSError, SafetensorError, KeyError) as error:
        warnings.warn(f"{path}: a damaged cache file ({error}); the text is encoded anew", stacklevel=3)
        return None


def _encode(corpus: Corpus, split: str, tokenizers: TokenizerPair) -> EncodedSplit:
    src, tgt = (list(side) for side in zip(*corpus.pairs(split), strict=True))
    if split == "train":  # a side of blanks alone is an empty one
        src, tgt = ([text if text.strip() else "" for text in side] for side in (src, tgt))
    return EncodedSplit(*_flat(src, tokenizers.src), *_flat(tgt, tokenizers.tgt))
