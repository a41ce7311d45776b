"""Text <-> ids: byte-level BPE, lossless on every string.

- `pad`, `bos`, `eos` are ids 0, 1, 2 and no entries of the BPE (its ids are shifted by 3): no text can match them.
- Text gets one leading space, which decoding takes off again: a word has the same tokens first in a line and inside it.
- Learned from the pairs it is given, by count and then by bytes: the same pairs give the same file on any machine.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from minitx.utils.errors import Exit, UserError
from minitx.utils.files import write_atomically

# Set, not left open: the library prints a warning at each later fork when it has to guess. Encoding uses all cores.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

PAD_ID, BOS_ID, EOS_ID = SPECIAL_IDS = (0, 1, 2)
N_SPECIALS = len(SPECIAL_IDS)
SPECIAL_NAMES = ("<pad>", "<s>", "</s>")  # where ids have to be strings, as in files of other toolkits
SPACE = "Ġ"  # as byte-level BPE writes it
MIN_VOCAB, DEFAULT_VOCAB, MAX_VOCAB = 260, 8_000, 65_536
MAX_WORD = 1_000  # characters: learning takes time in proportion to a word's length squared, so longer ones are cut
MIN_COUNT = 2  # a pair of tokens seen once in the training text is not worth an entry
ENTRIES_A_PAIR, FEW_ENTRIES = 0.4, 1_000  # of a text with few pairs: each entry has to be seen often to be learned


def entries_for(pairs: int) -> int:
    """Return the most entries that so many training pairs get where no number is asked for.

    Small texts are translated better with small vocabularies (Sennrich and Zhang 2019; Ding et al. 2019).
    """
    return min(DEFAULT_VOCAB, max(FEW_ENTRIES, int(ENTRIES_A_PAIR * pairs)))


class Tokenizer:
    """Encode text as ids in [3, vocab_size) and decode ids as text."""

    pad_id, bos_id, eos_id = SPECIAL_IDS

    def __init__(self, bpe: tokenizers.Tokenizer) -> None:
        self._bpe = bpe

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int | None, name: str = "training",
              at_most: int = DEFAULT_VOCAB) -> "Tokenizer":
        """Learn merges from `texts`; sizes count bytes and specials. `at_most`: where no `vocab_size` is asked for.

        Errors: `UserError` for a size out of range, or one the text cannot fill (`name` says which text).
        """
        if vocab_size is not None and not MIN_VOCAB <= vocab_size <= MAX_VOCAB:
            raise UserError(f"tokenizer.vocab_size={vocab_size}: must be {MIN_VOCAB} to {MAX_VOCAB:,}")
        bpe = tokenizers.Tokenizer(models.BPE())
        bpe.pre_tokenizer = _words()
        bpe.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=(vocab_size or at_most) - N_SPECIALS,
            min_frequency=MIN_COUNT,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        texts = [" " + text for text in texts]
        try:
            bpe.train_from_iterator([part for text in texts for part in _cut_long_words(text)], trainer)
        except Exception as error:
            raise _surrogate(texts) or error from error
        tokenizer = cls(bpe)
        if vocab_size is not None and tokenizer.vocab_size < vocab_size:
            raise UserError(f"tokenizer.vocab_size={vocab_size}: the {name} text supports {tokenizer.vocab_size:,} "
                            "entries at most; ask for no more, or for null (what the text supports)", Exit.DATA)
        return tokenizer

    @property
    def vocab_size(self) -> int:
        """Return the number of ids, those of specials included."""
        return self._bpe.get_vocab_size() + N_SPECIALS

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text` without bos and eos; [] for "".

        Errors: `UserError` for a lone surrogate, which is no text.
        """
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode many texts on all cores; same errors as `encode`."""
        spaced = [" " + text if text else "" for text in texts]
        try:
            encodings = self._bpe.encode_batch_fast(spaced)
        except Exception as error:
            raise _surrogate(spaced) or error from error
        return [[id_ + N_SPECIALS for id_ in encoding.ids] for encoding in encodings]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`, ignoring specials; bytes that are no UTF-8 become U+FFFD."""
        return self.decode_batch([ids])[0]

    def decode_batch(self, batch: Iterable[Iterable[int]]) -> list[str]:
        """Decode many id sequences."""
        texts = self._bpe.decode_batch([[int(id_) - N_SPECIALS for id_ in ids if id_ >= N_SPECIALS] for ids in batch])
        return [text.removeprefix(" ") for text in texts]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return each token's part of the text. A letter made of several goes to the last; the others are empty."""
        texts = self.decode_batch([ids[:n] for n in range(len(ids))])
        whole = [text.rstrip("\N{REPLACEMENT CHARACTER}") for text in texts] + [self.decode(ids)]
        return [after[len(before):] for before, after in pairwise(whole)]

    def description(self) -> dict[str, Any]:
        """Return what tokenizer.json says, for a file of another toolkit; its ids are those of the BPE."""
        description: dict[str, Any] = json.loads(self._bpe.to_str())
        return description

    @cached_property
    def tokens(self) -> list[str]:
        """The tokens by id, each a string of its own, as byte-level BPE writes them; a space is `SPACE` there.

        So one stands after the name of a special that is a token, too, in a text of markup.
        """
        entries = self._bpe.get_vocab()
        specials = [f"{name} " if name in entries else name for name in SPECIAL_NAMES]
        return specials + sorted(entries, key=entries.__getitem__)

    @cached_property
    def word_beginnings(self) -> frozenset[int]:
        """The ids of tokens that begin with a space: each word of a text has one of them, its first."""
        return frozenset(id_ + N_SPECIALS for token, id_ in self._bpe.get_vocab().items() if token[0] == SPACE)

    @cached_property
    def fingerprint(self) -> str:
        """Hash entries and merges (sha256, hex), not the library's file format."""
        model = self.description()["model"]
        return hashlib.sha256(json.dumps([model["vocab"], model["merges"]], sort_keys=True).encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write the file atomically."""
        write_atomically(path, self._bpe.to_str(pretty=True).encode())

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read what `save` wrote; errors: `UserError` for a damaged file."""
        try:
            return cls(tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8")))
        except Exception as error:  # the library raises bare Exceptions
            raise UserError(f"{path}: not a readable tokenizer ({error})", Exit.DATA) from error


class TokenizerPair:
    """The source's and the target's tokenizer: one and the same object if joint."""

    def __init__(self, src: Tokenizer, tgt: Tokenizer) -> None:
        self.src, self.tgt = src, tgt

    @classmethod
    def train(cls, pairs: Sequence[tuple[str, str]], vocab_size: int | None, joint: bool) -> "TokenizerPair":
        """Learn from training pairs; a `vocab_size` of None = `entries_for` them. Errors: as in `Tokenizer.train`."""
        most = entries_for(len(pairs))
        if joint:
            both = Tokenizer.train((text for pair in pairs for text in pair), vocab_size, at_most=most)
            return cls(both, both)
        return cls(Tokenizer.train((src for src, _ in pairs), vocab_size, "source", most),
                   Tokenizer.train((tgt for _, tgt in pairs), vocab_size, "target", most))

    @property
    def joint(self) -> bool:
        """Tell whether both languages share one vocabulary."""
        return self.src is self.tgt

    @cached_property
    def fingerprint(self) -> str:
        """Hash both sides (sha256, hex)."""
        return hashlib.sha256(f"{self.joint} {self.src.fingerprint} {self.tgt.fingerprint}".encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write tokenizer.json, or tokenizer.src.json and tokenizer.tgt.json."""
        for tokenizer, path in zip([self.src, self.tgt], _paths(folder, self.joint), strict=False):
            tokenizer.save(path)

    @staticmethod
    def saved_in(folder: Path) -> bool:
        """Tell whether the folder holds a whole pair."""
        return any(all(path.exists() for path in _paths(folder, joint)) for joint in (True, False))

    @classmethod
    def load(cls, folder: Path) -> "TokenizerPair":
        """Read what `save` wrote; errors: `UserError` for a missing or damaged file."""
        for joint in (True, False):
            paths = _paths(folder, joint)
            if all(path.exists() for path in paths):
                loaded = [Tokenizer.load(path) for path in paths]
                return cls(loaded[0], loaded[-1])
        raise UserError(f"{folder}: no tokenizer.json, and no tokenizer.src.json with tokenizer.tgt.json", Exit.DATA)


def _words() -> pre_tokenizers.ByteLevel:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _cut_long_words(text: str) -> Iterator[str]:
    """Yield the text as it is, or, if it may hold a word of more than `MAX_WORD` characters, its words cut to that.

    No word of real text is so long. Encoding needs no bound: its time is in proportion to the length.
    """
    if len(text) <= MAX_WORD:
        yield text
        return
    for _, (start, end) in _words().pre_tokenize_str(text):
        for begin in range(start, end, MAX_WORD):
            yield text[begin : min(begin + MAX_WORD, end)]


def _paths(folder: Path, joint: bool) -> list[Path]:
    names = ["tokenizer.json"] if joint else ["tokenizer.src.json", "tokenizer.tgt.json"]
    return [Path(folder, name) for name in names]


def _surrogate(texts: Sequence[str]) -> UserError | None:
    """Return the error for the first lone surrogate, which UTF-8 cannot hold and on which the library fails."""
    for number, text in enumerate(texts, 1):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return UserError(f"text {number} of {len(texts)}: character {error.start} is a lone surrogate "
                             f"(U+{ord(text[error.start]):04X}), which is no text: was the input UTF-8?", Exit.DATA)
    return None
