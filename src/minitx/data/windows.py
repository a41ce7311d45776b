"""The training text in windows: pairs that are in memory together and are shuffled together.

A text that fits into memory is one window. Of a streamed text, each window holds some shards: the seed decides which,
so every epoch has the same windows and as many updates, and each epoch orders them anew.
"""

from collections.abc import Callable
from dataclasses import dataclass

from minitx.config.schema import Config
from minitx.data.batching import windows_of
from minitx.data.cleaning import Cleaning
from minitx.data.corpus import Corpus
from minitx.data.encoded import EncodedSplit, Extent, default_cache_dir, encode_cached, extent_cached
from minitx.data.tokenizer import TokenizerPair
from minitx.utils.progress import Eta

Progress = Callable[[str], None]


@dataclass(frozen=True)
class TrainingText:
    """The extent of each window, and what became of the whole text's pairs; `load` reads a window's pairs."""

    windows: list[Extent]
    cleaning: Cleaning
    load: Callable[[int], EncodedSplit]

    def describe(self) -> str:
        """Describe the number of windows and their size."""
        return f"1 of {len(self.windows)} at a time, of at most {max(window.pairs for window in self.windows):,} pairs"


def training_text(cfg: Config, corpus: Corpus, tokenizers: TokenizerPair, progress: Progress) -> TrainingText:
    """Encode the training text, or load it from the cache: the whole text at once, or no window before `load`.

    `progress` is called with lines that say how far encoding is. Errors: `UserError` for text that cannot be read or
    trained on.
    """
    if corpus.shards:
        return _streamed(cfg, corpus, tokenizers, progress)
    whole = encode_cached(corpus, "train", tokenizers, cfg.data.max_length, default_cache_dir())
    assert whole.cleaning is not None
    return TrainingText([whole.extent], whole.cleaning, lambda _: whole)


def _streamed(cfg: Config, corpus: Corpus, tokenizers: TokenizerPair, progress: Progress) -> TrainingText:
    shards, max_length, cache_dir = corpus.shards, cfg.data.max_length, default_cache_dir()
    found: list[tuple[Extent, Cleaning]] = []
    eta = Eta(len(shards))
    for done, shard in enumerate(shards):
        progress(f"encoding shard {done + 1} of {len(shards)}{eta(done)}")
        found.append(extent_cached(shard, tokenizers, max_length, cache_dir))
    some = [i for i, (extent, _) in enumerate(found) if extent.pairs]  # nothing may be left of a shard
    windows = [[some[i] for i in window] for window in windows_of(len(some), cfg.data.window_shards, cfg.seed)]

    def load(number: int) -> EncodedSplit:
        return EncodedSplit.concatenate([encode_cached(shards[i], "train", tokenizers, max_length, cache_dir)
                                         for i in windows[number]])

    def extent(window: list[int]) -> Extent:
        pairs, tgt_tokens, longest = zip(*(found[i][0] for i in window), strict=True)
        return Extent(sum(pairs), sum(tgt_tokens), max(longest))

    return TrainingText(list(map(extent, windows)), Cleaning.combine([cleaning for _, cleaning in found]), load)
