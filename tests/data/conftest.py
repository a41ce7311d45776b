"""What the tests of data/ share: a `DataConfig` to vary, real text where $MINITX_DATA has it, a measure of work."""

import os
import sys

import pytest

from minitx.config.schema import CleanConfig, DataConfig, RecommendsConfig
from minitx.data.corpus import load_corpus
from minitx.data.encoded import encode_cached
from minitx.data.tokenizer import TokenizerPair

needs_data = pytest.mark.skipif("MINITX_DATA" not in os.environ, reason="needs MINITX_DATA: a folder with multi30k/")


def bytecodes(function, *args, **kwargs) -> int:
    """Count the bytecodes that a call runs: work in Python, which a busy machine does not change as it does seconds."""
    count = 0

    def trace(frame, event, arg):
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function(*args, **kwargs)
    finally:
        sys.settrace(before)
    return count


def clean_config(**changes) -> CleanConfig:
    """Leave out nothing but what is broken or empty."""
    return CleanConfig(**{"identical": False, "duplicates": False, "max_ratio": None, "max_dropped_pct": 100} | changes)


def data_config(**changes) -> DataConfig:
    recommends = RecommendsConfig(
        model_size="tiny", vocab_size=None, tokens_per_update=64, max_steps=1, lr=1e-3, warmup_steps=0, dropout=0.0)
    values = {
        "source": "files", "src": "en", "tgt": "de", "dir": None, "folder": None, "hub_id": None,
        "hub_name": None, "hub_revision": None, "hold_out": None, "max_pairs": None, "streaming": False,
        "window_shards": 4, "clean": clean_config(), "seed": 1,
        "train_size": 100, "train_words": 16, "test_sets": None, "max_tokens": 64, "max_length": 32,
        "pad_to_multiple": 4,
        "recommends": recommends,
    }
    return DataConfig(**values | changes)


@pytest.fixture(scope="session")
def multi30k():
    """Return the corpus and a joint vocabulary of 8,000."""
    corpus = load_corpus(data_config(source="hub", folder="multi30k"))
    return corpus, TokenizerPair.train(corpus.pairs("train"), 8000, joint=True)


@pytest.fixture(scope="session")
def multi30k_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("multi30k")


@pytest.fixture(scope="session")
def multi30k_split(multi30k, multi30k_cache):
    """Return the encoded training split."""
    return encode_cached(multi30k[0], "train", multi30k[1], 250, multi30k_cache)
