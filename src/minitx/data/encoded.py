"""A split as flat arrays of ids: encoded once, cached by content, sliced without copies of the rest."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from minitx.data.batching import Ints
from minitx.data.cleaning import Cleaning
from minitx.data.corpus import Corpus
from minitx.data.tokenizer import Tokenizer, TokenizerPair
from minitx.utils.console import notify, warn_once
from minitx.utils.errors import Exit, UserError
from minitx.utils.files import expand_home, write_atomically

Tokens = npt.NDArray[np.int32]
FORMAT = "5"  # of the cached files; part of their key
CHUNK = 100_000  # sentences held as lists of Python ints at a time
LENGTHS = ("src_offsets", "tgt_offsets")
ARRAYS = ("src_tokens", "tgt_tokens", *LENGTHS)
UNREADABLE = (SafetensorError, KeyError, TypeError, ValueError, OSError)  # what a file of the cache may turn out to be


class Extent(NamedTuple):
    """The size of a text to train on: pairs, their target tokens, and the longest side, EOS included."""

    pairs: int
    tgt_tokens: int
    longest: int

    @classmethod
    def of(cls, src_len: Ints, tgt_len: Ints) -> "Extent":
        """Measure a split by the lengths of its sentences, EOS included."""
        return cls(len(tgt_len), int(tgt_len.sum()), int(max(src_len.max(initial=0), tgt_len.max(initial=0))))


@dataclass(frozen=True, eq=False)
class EncodedSplit:
    """Ids without specials, all sentences in one array a side; sentence i is tokens[offsets[i]:offsets[i + 1]].

    `cleaning`: what became of the pairs that were read; None but for the training split.
    """

    src_tokens: Tokens
    src_offsets: Ints
    tgt_tokens: Tokens
    tgt_offsets: Ints
    cleaning: Cleaning | None = None

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

    def limited(self, max_length: int, max_ratio: float | None) -> "EncodedSplit":
        """Leave out training pairs with a side of more than `max_length` tokens, or `max_ratio` times the other's.

        EOS counts on both sides, which is lenient with short ones: a ratio of 9 allows 17 tokens against one.
        """
        assert self.cleaning is not None
        keep, cleaning = _within(self.src_len, self.tgt_len, self.cleaning, max_length, max_ratio)
        src, tgt = (_kept(*side, keep) for side in
                    ((self.src_tokens, self.src_offsets), (self.tgt_tokens, self.tgt_offsets)))
        return EncodedSplit(*src, *tgt, cleaning)

    @property
    def extent(self) -> Extent:
        """Return how much is in the split."""
        return Extent.of(self.src_len, self.tgt_len)

    def save(self, path: Path) -> None:
        """Write one safetensors file, whole or not at all. Errors: OSError or SafetensorError"""
        arrays: dict[str, npt.NDArray[Any]] = {name: getattr(self, name) for name in ARRAYS}
        cleaning = asdict(self.cleaning) if self.cleaning else None
        about = {"cleaning": cleaning, "lengths": _sha256(arrays, LENGTHS), "sha256": _sha256(arrays, ARRAYS, cleaning)}
        write_atomically(path, save(arrays, {"about": json.dumps(about)}))

    @classmethod
    def load(cls, path: Path) -> "EncodedSplit":
        """Read what `save` wrote; errors: those in `UNREADABLE`."""
        with path.open("rb"), safe_open(path, "np") as file:  # the library tells any refusal as a missing file
            about = json.loads(file.metadata()["about"])
            arrays = {name: file.get_tensor(name) for name in ARRAYS}
        if about["sha256"] != _sha256(arrays, ARRAYS, about["cleaning"]):
            raise ValueError("its bytes are not those that were written")
        return cls(**arrays, cleaning=about["cleaning"] and Cleaning.parse(about["cleaning"]))

    @classmethod
    def concatenate(cls, parts: Sequence["EncodedSplit"]) -> "EncodedSplit":
        """Concatenate training splits."""
        src, tgt = (np.concatenate([getattr(part, side) for part in parts]) for side in ("src_tokens", "tgt_tokens"))
        src_len, tgt_len = (np.concatenate([np.diff(getattr(part, side)) for part in parts])
                            for side in ("src_offsets", "tgt_offsets"))
        return cls(src, _offsets(src_len), tgt, _offsets(tgt_len),
                   Cleaning.combine([part.cleaning for part in parts if part.cleaning is not None]))


def _within(src_len: Ints, tgt_len: Ints, cleaning: Cleaning, max_length: int,
            max_ratio: float | None) -> tuple[npt.NDArray[np.bool_], Cleaning]:
    """Tell which training pairs `EncodedSplit.limited` keeps, and count the others."""
    shorter, longer = np.minimum(src_len, tgt_len), np.maximum(src_len, tgt_len)
    long = longer > max_length
    dropped = {f"longer than {max_length} tokens": int(long.sum())}
    keep = ~long
    if max_ratio is not None:
        lopsided = keep & (longer > max_ratio * shorter)
        dropped[f"with a length ratio above {max_ratio:g}"] = int(lopsided.sum())
        keep &= ~lopsided
    return keep, cleaning.with_dropped(dropped)


def _sha256(arrays: dict[str, npt.NDArray[Any]], names: Sequence[str], cleaning: dict[str, Any] | None = None) -> str:
    digest = hashlib.sha256(json.dumps(cleaning).encode())
    for name in names:
        digest.update(f"{name} {arrays[name].dtype} {len(arrays[name])}".encode())
        digest.update(arrays[name].data)
    return digest.hexdigest()


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


# --- the cache: not essential, but for a text that is streamed


def default_cache_dir() -> Path:
    """Return $MINITX_CACHE, or ~/.cache/minitx."""
    return Path(expand_home(os.environ.get("MINITX_CACHE") or "~/.cache/minitx"))


def encode_cached(corpus: Corpus, split: str, tokenizers: TokenizerPair, max_length: int,
                  cache_dir: Path) -> EncodedSplit:
    """Encode a split, or take it from the cache; only "train" is cleaned and limited to `max_length`.

    The key is the content, so runs that write at once write the same. A cache that fails is warned of, never fatal.
    """
    path = _path(corpus, split, tokenizers, cache_dir)
    encoded = _load_cached(path)
    if encoded is None:
        encoded = _encode(corpus, split, tokenizers)
        _save_cached(encoded, path)
    corpus.forget()  # it may have been read for the vocabulary alone
    return encoded.limited(max_length, corpus.clean.max_ratio) if split == "train" else encoded


def extent_cached(corpus: Corpus, tokenizers: TokenizerPair, max_length: int,
                  cache_dir: Path) -> tuple[Extent, Cleaning]:
    """Have a shard's training split in the cache, and say how much of it is trained on, by its offsets alone.

    Errors: `UserError` where there is no cache to write.
    """
    path = _path(corpus, "train", tokenizers, cache_dir)
    try:
        with path.open("rb"), safe_open(path, "np") as file:
            about = json.loads(file.metadata()["about"])
            offsets = {name: file.get_tensor(name) for name in LENGTHS}
        if about["lengths"] != _sha256(offsets, LENGTHS):
            raise ValueError
        src_len, tgt_len = (np.diff(offsets[name]) + 1 for name in LENGTHS)
        cleaning = Cleaning.parse(about["cleaning"])
        keep, cleaning = _within(src_len, tgt_len, cleaning, max_length, corpus.clean.max_ratio)
        return Extent.of(src_len[keep], tgt_len[keep]), cleaning
    except UNREADABLE:  # or not there
        encoded = encode_cached(corpus, "train", tokenizers, max_length, cache_dir)
    if not os.access(path, os.R_OK):
        raise UserError(f"data.streaming=true: keeps the encoded text in {cache_dir}, where nothing can be written; "
                        "MINITX_CACHE names another folder", Exit.STORAGE)
    assert encoded.cleaning is not None
    return encoded.extent, encoded.cleaning


def _path(corpus: Corpus, split: str, tokenizers: TokenizerPair, cache_dir: Path) -> Path:
    key = [FORMAT, corpus.fingerprint, split, tokenizers.fingerprint]
    if split == "train":  # what it is cleaned of, and which sets it is compared with
        key += [str(corpus.clean.identical), str(corpus.clean.duplicates), *corpus.test_sets]
    return cache_dir / f"{hashlib.sha256(chr(0).join(key).encode()).hexdigest()}.safetensors"


def _load_cached(path: Path) -> EncodedSplit | None:
    try:
        return EncodedSplit.load(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        _warn_of_cache(path.parent, error)
    except UNREADABLE as error:
        notify(f"{path}: a damaged cache file ({error}); the text is encoded again", stacklevel=3)
    return None


def _save_cached(encoded: EncodedSplit, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        encoded.save(path)
    except (OSError, SafetensorError) as error:
        _warn_of_cache(path.parent, error)


def _warn_of_cache(folder: Path, error: Exception) -> None:
    """Warn once for all files of the cache: what refuses one refuses the others."""
    warn_once(f"{folder}: the cache cannot be used ({getattr(error, 'strerror', None) or error}), so text is encoded "
              "again; MINITX_CACHE names another folder")


def _encode(corpus: Corpus, split: str, tokenizers: TokenizerPair) -> EncodedSplit:
    pairs = corpus.pairs(split)
    cleaning = corpus.training[1] if split == "train" else None
    src, tgt = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    del pairs  # and the corpus's: the strings alone stay while they are encoded
    corpus.forget()
    return EncodedSplit(*_flat(src, tokenizers.src), *_flat(tgt, tokenizers.tgt), cleaning)
