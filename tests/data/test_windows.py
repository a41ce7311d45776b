"""A text in shards: every pair once an epoch, from any position on, and no more in memory than a window."""

import gzip
import io
import itertools
import json
import shutil
import warnings
import weakref
from functools import partial
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet
import pytest
import toys
from data.conftest import clean_config, data_config
from data.test_tokenizer import PAIRS
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx.data import corpus as sources
from minitx.data import encoded
from minitx.data.batching import window_order, windows_of
from minitx.data.corpus import load_corpus
from minitx.data.datamodule import TranslationData
from minitx.data.encoded import EncodedSplit
from minitx.data.tokenizer import TokenizerPair
from minitx.training.signals import Signals
from minitx.utils.console import Console
from minitx.utils.errors import Exit, UserError

TEXT = [(f"{a} {n}{' old' * (n % 3)}", f"{b} {n}{' alt' * (n % 3)}") for n in range(20) for a, b in PAIRS]
SIZES = (40, 3, 55, 31, 60, 22, 1)  # of shards
SHARDS = [TEXT[sum(SIZES[:i]):sum(SIZES[:i + 1])] for i in range(len(SIZES))]
TRAIN = [pair for shard in SHARDS for pair in shard]
TOKENIZERS = TokenizerPair.train(TRAIN, None, joint=True)
FORMATS = ("en", "tsv", "tsv.gz", "jsonl", "parquet")


def write(folder, shards, kind="tsv", split="train"):
    """Write a split in so many shards."""
    folder.mkdir(exist_ok=True)
    for number, pairs in enumerate(shards):
        path = folder / f"{split}-{number:05}-of-{len(shards):05}.{kind}"
        lines = {"tsv": ["de\ten", *(f"{tgt}\t{src}" for src, tgt in pairs)],
                 "jsonl": [json.dumps({"en": src, "de": tgt}) for src, tgt in pairs]}
        if kind == "parquet":
            pa.parquet.write_table(pa.Table.from_pylist([{"en": src, "de": tgt} for src, tgt in pairs]), path)
        elif kind == "en":
            path.write_text("".join(f"{src}\n" for src, _ in pairs))
            path.with_suffix(".de").write_text("".join(f"{tgt}\n" for _, tgt in pairs))
        else:
            data = "".join(line + "\n" for line in lines[kind.removesuffix(".gz")]).encode()
            path.write_bytes(gzip.compress(data) if kind.endswith(".gz") else data)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MINITX_CACHE", str(folder))
    return folder


@pytest.fixture
def folder(tmp_path):
    """A text of seven shards, and a validation set in two."""
    return write(write(tmp_path / "text", SHARDS), [[("so new", "so neu")], [TRAIN[0]]], split="val")


def config(folder, window_shards=2, seed=1, **data):
    data = {"dir": str(folder), "streaming": True, "window_shards": window_shards, "max_tokens": 64} | data
    return SimpleNamespace(seed=seed, data=data_config(**data), trainer=SimpleNamespace(tokens_per_update=120))


def served(cfg, **words) -> TranslationData:
    return TranslationData(cfg, load_corpus(cfg.data), TOKENIZERS, **words)


def take(data, n):
    return list(itertools.islice(data.train_dataloader(), n))


def trained_on(updates) -> list[str]:
    """Return the sources of these updates, as text."""
    return [TOKENIZERS.src.decode(ids) for update in updates for turn in update.turns if turn.weight
            for ids in toys.sentences(turn.batch.src)]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_text_in_shards_is_read_whole_too(tmp_path, kind):
    folder = write(write(tmp_path / "text", SHARDS, kind), [PAIRS], kind, "val")
    corpus = load_corpus(data_config(dir=str(folder)))
    assert corpus.read("train") == TRAIN
    assert corpus.read("valid") == PAIRS
    assert load_corpus(data_config(dir=str(folder), max_pairs=45)).read("train") == TRAIN[:45]
    streamed = load_corpus(data_config(dir=str(folder), streaming=True))
    assert [shard.read("train") for shard in streamed.shards] == SHARDS
    assert streamed.read("valid") == PAIRS


def test_a_shard_that_is_missing_is_named(folder):
    (folder / "train-00002-of-00007.tsv").unlink()
    with pytest.raises(UserError, match=r"6 of its shards, not all; missing: train-00002-of-00007\.tsv$"):
        load_corpus(config(folder).data)
    for number in (0, 1, 4, 5):
        (folder / f"train-{number:05}-of-00007.tsv").unlink()
    with pytest.raises(UserError, match=r"missing: train-00000-of-00007\.tsv, .*-00001-.*, .*-00002-.* and 2 more$"):
        load_corpus(config(folder).data)


def test_a_shard_without_its_other_side_is_named(tmp_path):
    folder = write(tmp_path / "text", SHARDS, "en")
    write(folder, [PAIRS], split="val")
    shutil.move(folder / "train-00003-of-00007.de", folder / "train-00003-of-00007.fr")
    with pytest.raises(UserError, match=r"6 of its shards, not all; missing: train-00003-of-00007\.de"):
        load_corpus(config(folder).data)
    for path in folder.glob("train-*.de"):
        path.unlink()
    with pytest.raises(UserError, match=r"train-00000-of-00007\.en: its other side, .*-00007\.de, is missing"):
        load_corpus(config(folder).data)


@pytest.mark.parametrize(("changes", "line"), [
    ({"source": "synthetic", "dir": None}, "data.streaming=true: reads shards of files or of the hub"),
    ({"hold_out": 3}, "data.streaming=true data.hold_out=3: exclude each other, since"),
    ({"max_pairs": 3}, "data.streaming=true data.max_pairs=3: exclude each other, since"),
])
def test_what_takes_the_text_as_a_whole_is_refused(folder, changes, line):
    with pytest.raises(UserError) as caught:
        sources.check_text(config(folder, **changes).data)
    assert str(caught.value).startswith(line)


def test_a_text_in_one_piece_is_refused_with_names_for_its_pieces(tmp_path):
    folder = write(tmp_path / "text", [PAIRS], split="val")
    for lang in ("en", "de"):
        (folder / f"train.{lang}.gz").write_bytes(gzip.compress(b"a\n"))
    with pytest.raises(UserError) as caught:
        load_corpus(config(folder).data)
    assert "named train-00000-of-00016.en.gz and train-00000-of-00016.de.gz" in str(caught.value)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_an_epoch_holds_every_pair_once_whatever_the_world(folder, world_size):
    whole = served(config(folder))
    n = whole.updates_per_epoch
    assert n > len(whole.text.windows) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some ranks are idle
        hands = [take(served(config(folder), rank=rank, world_size=world_size), 3 * n) for rank in range(world_size)]
    for parts in zip(take(whole, 3 * n), *hands, strict=True):
        assert len({part[:3] for part in parts}) == 1
    for epoch in range(3):
        one_epoch = [update for hand in hands for update in hand[epoch * n:(epoch + 1) * n]]
        assert {(update.epoch, update.update) for update in one_epoch} == {(epoch, i) for i in range(n)}
        assert sorted(trained_on(one_epoch)) == sorted(src for src, _ in TRAIN)
        assert sum(update.n_tokens for update in hands[0][epoch * n:(epoch + 1) * n]) == sum(
            len(TOKENIZERS.tgt.encode(tgt)) + 1 for _, tgt in TRAIN)


def test_any_position_goes_on_as_the_whole_stream(folder):
    stream = take(served(config(folder)), 80)
    for skip in range(0, 70, 3):
        epoch, update = stream[skip].epoch, stream[skip].update
        for there, expected in zip(take(served(config(folder), start=(epoch, update)), 5), stream[skip:], strict=False):
            assert there[:3] == expected[:3]
            assert trained_on([there]) == trained_on([expected])
    n = served(config(folder)).updates_per_epoch
    assert take(served(config(folder), start=(0, n)), 1)[0][:2] == (1, 0), "the end of an epoch is a position too"


def test_a_window_keeps_its_shards_and_epochs_their_order(folder):
    data = served(config(folder))
    n, shard_of = data.updates_per_epoch, {src: i for i, shard in enumerate(SHARDS) for src, _ in shard}
    epochs = [take(data, 4 * n)[k * n:(k + 1) * n] for k in range(4)]
    orders = []
    for updates in epochs:
        runs = [window for window, _ in itertools.groupby(
            frozenset(window) for update in updates for window in windows_of(7, 2, 1)
            if {shard_of[src] for src in trained_on([update])} <= set(window))]
        assert len(runs) == 4, "one window after the other"
        orders.append(tuple(runs))
    assert len(set(map(frozenset, orders))) == 1
    assert len(set(orders)) > 1
    assert len({tuple(trained_on(updates)) for updates in epochs}) == 4


@given(n_shards=st.integers(1, 200), shards=st.integers(1, 12), seed=st.integers(0, 10**12))
def test_windows_hold_every_shard_once_and_are_alike(n_shards, shards, seed):
    windows = windows_of(n_shards, shards, seed)
    assert sorted(shard for window in windows for shard in window) == list(range(n_shards))
    sizes = {len(window) for window in windows}
    assert max(sizes) <= shards
    assert max(sizes) - min(sizes) <= 1
    assert sorted(window_order(len(windows), seed, 3)) == list(range(len(windows)))


def test_one_window_is_in_memory_at_a_time(folder, monkeypatch):
    data = served(config(folder, window_shards=1))
    alive: list[weakref.ref[EncodedSplit]] = []
    inner = data.text.load

    def load(number):
        assert [ref() for ref in alive] == [None] * len(alive), "a window outlives the next one's reading"
        split = inner(number)
        alive.append(weakref.ref(split))
        return split

    data._held = None
    object.__setattr__(data.text, "load", load)
    for _ in itertools.islice(data.train_dataloader(), 2 * data.updates_per_epoch):
        pass
    assert len(alive) == 2 * 7


def test_a_shard_is_encoded_once_and_read_as_it_is_wanted(folder, monkeypatch):
    served(config(folder))
    monkeypatch.setattr(encoded, "_encode", None)
    lengths = [max(len(TOKENIZERS.src.encode(src)), len(TOKENIZERS.tgt.encode(tgt))) + 1 for src, tgt in TRAIN]
    limit = sorted(lengths)[len(lengths) // 2]
    kept = [src for (src, _), length in zip(TRAIN, lengths, strict=True) if length <= limit]
    data = served(config(folder, window_shards=7, max_length=limit))
    assert 0 < data.cleaning.kept == len(kept) < len(TRAIN)
    assert sorted(trained_on(take(data, data.updates_per_epoch))) == sorted(kept)


def test_shards_are_cleaned_one_by_one_and_counted_together(tmp_path, folder):
    shards = [[*SHARDS[0], SHARDS[0][0], ("", "x")], *SHARDS[1:6], [SHARDS[0][0], ("", ""), ("", "")]]
    folder = write(write(tmp_path / "odd", shards), [[TRAIN[0], ("x", "y"), (TRAIN[50][0], "y")]], split="val")
    cfg = config(folder, clean=clean_config(duplicates=True))
    data = served(cfg)
    assert data.cleaning.pairs == len(TRAIN) + 4
    assert data.cleaning.dropped["repeated"] == 1, "what two shards share is not looked for"
    twice = write(write(tmp_path / "twice", [SHARDS[0]] * 3), [PAIRS], split="val")
    strict = config(twice, clean=clean_config(duplicates=True, max_dropped_pct=0))
    assert len(load_corpus(strict.data).sample()) == 3 * len(SHARDS[0]), "nor for the vocabulary"
    assert data.cleaning.dropped["with an empty side"] == 3
    assert data.cleaning.counts()["overlap"] == {"valid": {"sources": 2, "pairs": 1, "sentences": 3}}
    with pytest.raises(UserError, match=r"1\.9 % of 216 training pairs are left out"):
        served(config(folder, clean=clean_config(duplicates=True, max_dropped_pct=1)))


@pytest.mark.parametrize("tensor", ["src_tokens", "tgt_tokens", "src_offsets", "tgt_offsets"])
def test_a_shard_damaged_in_the_cache_is_encoded_anew(folder, cache, tensor):
    data = served(config(folder))
    expected = trained_on(take(data, data.updates_per_epoch))
    for path in cache.iterdir():
        content = bytearray(path.read_bytes())
        header = int.from_bytes(content[:8], "little")
        content[8 + header + json.loads(content[8:8 + header])[tensor]["data_offsets"][1] - 8] ^= 1
        path.write_bytes(content)
    with pytest.warns(UserWarning, match="a damaged cache file .* the text is encoded again"):
        assert trained_on(take(served(config(folder)), data.updates_per_epoch)) == expected


def test_a_text_that_changes_under_a_run_is_refused(folder, cache):
    data = served(config(folder, window_shards=1))
    for path in cache.iterdir():
        path.unlink()
    for path in folder.glob("train-*"):
        path.write_text("de\ten\nx\ty\n")
    with pytest.raises(UserError, match=r"train-0000\d-of-00007\.tsv: has changed since the run began") as caught:
        take(data, data.updates_per_epoch)
    assert caught.value.code == Exit.DATA
    assert not list(cache.iterdir()), "nothing is kept under the old text's name"


def test_a_shard_of_which_nothing_is_left_is_passed_over(tmp_path):
    shards = [SHARDS[0], [], [("", "x")], [("word " * 40, "x")], SHARDS[1]]
    folder = write(write(tmp_path / "text", shards, "en"), [PAIRS], split="val")
    data = served(config(folder, window_shards=1, max_length=30))
    assert len(data.text.windows) == 2
    assert sorted(trained_on(take(data, data.updates_per_epoch))) == sorted(src for src, _ in SHARDS[0] + SHARDS[1])
    folder = write(write(tmp_path / "nothing", [[("", "x")], [("y", " ")]]), [PAIRS], split="val")
    with pytest.raises(UserError, match=r"no training pair is left of 2 \(2 with an empty side\)"):
        served(config(folder))
    with pytest.raises(UserError, match=r"no training pair is left of 2 \(2 with an empty side\)"):
        load_corpus(config(folder).data).sample()
    folder = write(write(tmp_path / "empty", [[], []], "en"), [PAIRS], split="val")
    with pytest.raises(UserError, match="the training text is empty"):
        load_corpus(config(folder).data).sample()


def test_shards_of_two_cuts_are_told_from_shards_that_are_missing(folder):
    shutil.copy(folder / "train-00000-of-00007.tsv", folder / "train-00000-of-00008.tsv")
    with pytest.raises(UserError, match=r"the train split is there more than once \(train-00000-of-00007"):
        load_corpus(config(folder).data)


def test_a_header_in_some_shards_alone_is_refused(folder):
    (folder / "train-00004-of-00007.tsv").write_text("ein Hund\ta dog\n")
    with pytest.raises(UserError, match=r"train-00004-of-00007\.tsv: has no header, and train-00000-of-00007\.tsv has"):
        load_corpus(config(folder).data)


def test_a_pair_that_fits_no_micro_batch_is_refused_before_anything_is_trained(folder):
    longest = max(len(TOKENIZERS.src.encode(src)) + 1 for src, _ in TRAIN)
    with pytest.raises(UserError, match="the longest pair takes"):
        served(config(folder, window_shards=1, max_tokens=longest - 1, pad_to_multiple=1))


def test_a_small_window_does_not_refuse_ranks(tmp_path):
    folder = write(write(tmp_path / "text", [SHARDS[0], SHARDS[6], SHARDS[2]]), [PAIRS], split="val")
    for start in range(20):
        served(config(folder, window_shards=1), rank=1, world_size=2, start=(0, start))
    with pytest.raises(UserError, match="some ranks would never work"):
        served(config(folder, window_shards=1, max_tokens=10_000), rank=1, world_size=200)


def test_a_signal_stops_the_encoding_between_two_shards(folder):
    from minitx.training.prepare import show_or_stop

    console, signals = Console(io.StringIO()), Signals()
    show_or_stop(console, signals, "shard 1")
    signals.noted = "terminated"
    with pytest.raises(UserError, match="the shards that are done stay in the cache") as caught:
        served(config(folder), progress=partial(show_or_stop, console, signals))
    assert caught.value.code == Exit.TERMINATED


@pytest.mark.filterwarnings("ignore:.*cannot be cached")
def test_without_a_cache_there_is_no_streaming(folder, cache, monkeypatch):
    (cache / "file").write_text("")
    monkeypatch.setenv("MINITX_CACHE", str(cache / "file" / "below"))
    with pytest.raises(UserError, match="MINITX_CACHE names another folder") as caught:
        served(config(folder))
    assert caught.value.code == Exit.STORAGE


def test_progress_of_encoding_is_reported(folder):
    said: list[str] = []
    served(config(folder), progress=said.append)
    assert said[0] == "encoding shard 1 of 7"
    assert said[6].startswith("encoding shard 7 of 7  eta ")


def test_a_vocabulary_is_learned_from_the_first_pairs_of_every_shard(folder, monkeypatch):
    corpus = load_corpus(config(folder, clean=clean_config(identical=True)).data)
    assert corpus.sample() == TRAIN
    monkeypatch.setattr(sources, "SAMPLE", 21)
    assert corpus.sample() == [pair for shard in SHARDS for pair in shard[:3]]


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 30), min_size=2, max_size=9), window_shards=st.integers(1, 4),
       seed=st.integers(0, 99), stop=st.data())
def test_whatever_the_shards_a_run_cut_in_two_sees_every_pair_once(tmp_path_factory, sizes, window_shards, seed, stop):
    tmp_path = tmp_path_factory.mktemp("cut")
    text = [(f"a {n}", f"b {n} {'c ' * (n % 7)}") for n in range(sum(sizes))]
    shards = [text[sum(sizes[:i]):sum(sizes[:i + 1])] for i in range(len(sizes))]
    folder = write(write(tmp_path / "text", shards), [PAIRS], split="val")
    cfg = config(folder, window_shards, seed)
    begun = served(cfg)
    cut = stop.draw(st.integers(0, begun.updates_per_epoch))
    rest = served(cfg, start=(0, cut))
    seen = trained_on(take(begun, cut)) + trained_on(take(rest, begun.updates_per_epoch - cut))
    assert sorted(seen) == sorted(src for src, _ in text)
