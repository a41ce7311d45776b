"""From text to batches: the encoded corpus, its cache, and every rank's share of every update."""

import errno
import itertools
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import toys
from data.conftest import bytecodes, clean_config, data_config, needs_data
from data.test_tokenizer import PAIRS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightning.fabric.utilities.apply_func import move_data_to_device

from minitx.data.batch import Batch
from minitx.data.batching import epoch_plan
from minitx.data.cleaning import REASONS, Overlap
from minitx.data.corpus import Corpus
from minitx.data.datamodule import TranslationData
from minitx.data.encoded import EncodedSplit, default_cache_dir, encode_cached, extent_cached
from minitx.data.tokenizer import TokenizerPair
from minitx.utils.errors import Exit, UserError

TRAIN = [(f"{a} {'very ' * n}", f"{b} {'sehr ' * (n % 4)}") for n in range(5) for a, b in PAIRS]
TOKENIZERS = TokenizerPair.train(TRAIN, None, joint=True)


def corpus(train=tuple(TRAIN), valid=tuple(PAIRS), fingerprint="f" * 64, **clean) -> Corpus:
    texts = {"train": list(train), "valid": list(valid)}
    return Corpus("en", "de", ("train", "valid"), (), fingerprint, "here", clean_config(**clean), texts.__getitem__)


def config(tokens_per_update=200, seed=1, **data):
    data = {"max_tokens": 100, "max_length": 40} | data
    trainer = SimpleNamespace(tokens_per_update=tokens_per_update)
    return SimpleNamespace(seed=seed, data=data_config(**data), trainer=trainer)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MINITX_CACHE", str(folder))
    return folder


def take(data: TranslationData, n: int):
    return list(itertools.islice(data.train_dataloader(), n))


def sentences(batch: Batch) -> list[tuple[list[int], list[int]]]:
    return list(zip(toys.sentences(batch.src), toys.sentences(batch.tgt, batch.labels), strict=True))


def test_encoding_keeps_every_sentence(cache):
    encoded = encode_cached(corpus(), "valid", TOKENIZERS, 3, cache)
    assert len(encoded) == len(PAIRS)
    assert encoded.src_tokens.dtype == np.int32
    assert encoded.src_offsets.dtype == np.int64
    for row, (src, tgt) in enumerate(PAIRS):
        assert TOKENIZERS.src.decode(encoded.src(np.array([row]))[0]) == src
        assert TOKENIZERS.tgt.decode(encoded.tgt(np.array([row]))[0]) == tgt
        assert encoded.src_len[row] == len(TOKENIZERS.src.encode(src)) + 1


def test_only_training_pairs_are_left_out_and_counted(cache):
    odd = [("", "x"), ("x", "  \t"), ("x " * 50, "x"), ("x", "y " * 50), ("", "y " * 50)]
    train = encode_cached(corpus(TRAIN + odd), "train", TOKENIZERS, 40, cache)
    assert train.cleaning.dropped == dict.fromkeys(REASONS, 0) | {"with an empty side": 3, "longer than 40 tokens": 2}
    assert len(train) == len(TRAIN)
    assert max(train.src_len.max(), train.tgt_len.max()) <= 40
    rows = np.arange(len(train))
    assert TOKENIZERS.src.decode_batch(train.src(rows)) == [src for src, _ in TRAIN]
    assert TOKENIZERS.tgt.decode_batch(train.tgt(rows)) == [tgt for _, tgt in TRAIN]
    valid = encode_cached(corpus(valid=odd), "valid", TOKENIZERS, 40, cache)
    assert len(valid) == len(odd)
    assert valid.cleaning is None
    assert TOKENIZERS.tgt.decode_batch(valid.tgt(np.arange(5))) == [tgt for _, tgt in odd]


def test_the_limit_counts_eos(cache):
    n = len(TOKENIZERS.src.encode("the old dog")) + 1
    pairs = [("the old dog", "der"), ("dog", "der")]
    assert len(encode_cached(corpus(pairs), "train", TOKENIZERS, n, cache)) == 2
    assert len(encode_cached(corpus(pairs), "train", TOKENIZERS, n - 1, cache)) == 1


def test_a_lopsided_pair_is_one_so_many_times_as_long(cache):
    n = len(TOKENIZERS.src.encode("the old dog")) + 1
    pairs = [("the old dog", ""), ("the old dog", "the"), ("the", "the old dog"), ("the old dog " * 20, "the")]
    lengths = [(n, 2), (2, n)]
    for ratio, kept in ((n / 2, 2), (n / 2 - 0.01, 0), (None, 2)):
        text = corpus([*pairs, ("the", "the")], max_ratio=ratio)
        train = encode_cached(text, "train", TOKENIZERS, 40, cache)
        assert list(zip(train.src_len, train.tgt_len, strict=True)) == [*lengths[:kept], (2, 2)]
        told = {} if ratio is None else {f"with a length ratio above {ratio:g}": 2 - kept}
        assert train.cleaning.dropped == dict.fromkeys(REASONS, 0) | {
            "with an empty side": 1, "longer than 40 tokens": 1, **told}
        assert train.cleaning.pairs - sum(train.cleaning.dropped.values()) == train.cleaning.kept == len(train)


def test_the_report_of_a_cached_text_is_that_of_the_text(cache):
    text = corpus([*TRAIN, TRAIN[0], ("", "x")], valid=[*PAIRS, ("new", "neu")], duplicates=True)
    fresh = encode_cached(text, "train", TOKENIZERS, 40, cache).cleaning
    assert encode_cached(text, "train", TOKENIZERS, 40, cache).cleaning == fresh
    assert (fresh.pairs, fresh.kept) == (len(TRAIN) + 2, len(TRAIN))
    assert (fresh.dropped["repeated"], fresh.dropped["with an empty side"]) == (1, 1)
    assert fresh.overlap == {"valid": Overlap(len(PAIRS) + 1, [], [])}
    twice = corpus([*TRAIN, TRAIN[0], ("", "x")], valid=PAIRS)
    assert encode_cached(twice, "train", TOKENIZERS, 40, cache).cleaning.dropped["repeated"] == 0


def test_the_training_text_is_let_go_of_once_it_is_encoded(cache):
    read = []
    text = Corpus("en", "de", ("train",), (), "f" * 64, "here", clean_config(),
                  lambda split: read.append(split) or list(TRAIN))
    for times in (1, 2):  # encoded, and from the cache
        TokenizerPair.train(text.pairs("train"), None, joint=True)
        assert len(encode_cached(text, "train", TOKENIZERS, 40, cache)) == len(TRAIN)
        assert read == ["train"] * times
        assert "training" not in vars(text)


def test_too_many_pairs_left_out_stop_the_run():
    long = [("x " * 50, "x")] * len(TRAIN)
    cfg = config(clean=clean_config(max_dropped_pct=49))
    with pytest.raises(UserError, match=r"50.0 % of 160 training pairs are left out \(80 longer than 40 tokens\)"):
        TranslationData(cfg, corpus(TRAIN + long), TOKENIZERS)
    TranslationData(config(clean=clean_config(max_dropped_pct=50)), corpus(TRAIN + long), TOKENIZERS)
    with pytest.raises(UserError, match=r"50.0 % of 160 training pairs are left out \(80 with an empty side\)"):
        corpus(TRAIN + [("", "")] * len(TRAIN), max_dropped_pct=49).sample()


def test_nothing_left_is_refused():
    with pytest.raises(UserError) as caught:
        TranslationData(config(max_length=5), corpus([("", "x"), ("x " * 9, "x"), ("y " * 9, "x")]), TOKENIZERS)
    assert str(caught.value) == (
        "no training pair is left of 3 (1 with an empty side, 2 longer than 5 tokens): see data.max_length and "
        "data.clean")
    assert caught.value.code == Exit.DATA


def test_the_cache_is_used_and_keyed_by_content(cache):
    encode_cached(corpus(), "valid", TOKENIZERS, 40, cache)
    unread = Corpus("en", "de", ("train", "valid"), (), "f" * 64, "here", clean_config(),
                    lambda split: pytest.fail("text was read"))
    assert len(encode_cached(unread, "valid", TOKENIZERS, 7, cache)) == len(PAIRS)
    for other in (
        lambda: encode_cached(corpus(fingerprint="0" * 64), "valid", TOKENIZERS, 40, cache),
        lambda: encode_cached(corpus(), "train", TOKENIZERS, 40, cache),
        lambda: encode_cached(corpus(), "valid", TokenizerPair.train(TRAIN, 270, joint=True), 40, cache),
    ):
        before = len(list(cache.iterdir()))
        other()
        assert len(list(cache.iterdir())) == before + 1


def test_a_damaged_cache_file_is_replaced_with_a_warning(cache):
    encode_cached(corpus(), "valid", TOKENIZERS, 40, cache)
    (path,) = cache.iterdir()
    good = path.read_bytes()
    flipped = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in (-1, -9, len(good) // 2)]
    for bad in (b"", good[:-8], b"\xff" * 100, *flipped):
        path.write_bytes(bad)
        with pytest.warns(UserWarning, match="a damaged cache file .* the text is encoded again"):
            assert len(encode_cached(corpus(), "valid", TOKENIZERS, 40, cache)) == len(PAIRS)
        assert path.read_bytes() == good


def test_a_cache_that_cannot_be_read_is_no_obstacle_and_not_called_damaged(cache, monkeypatch):
    encode_cached(corpus(), "valid", TOKENIZERS, 40, cache)

    def refuse(path, *_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(EncodedSplit, "load", refuse)
    monkeypatch.setattr(EncodedSplit, "save", refuse)
    monkeypatch.setattr(Path, "exists", refuse)  # as in a folder that may not be searched
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for split in ("valid", "train", "valid"):
            assert len(encode_cached(corpus(), split, TOKENIZERS, 40, cache)) == len(corpus().pairs(split))
        with pytest.raises(UserError, match="data.streaming=true: keeps the encoded text in .* nothing can be written"):
            extent_cached(corpus(), TOKENIZERS, 40, cache / "unwritten")
    assert [str(warning.message) for warning in warned] == [
        f"{folder}: the cache cannot be used (Permission denied), so text is encoded again; MINITX_CACHE names another "
        "folder" for folder in (cache, cache / "unwritten")]


def test_others_may_read_the_cache_as_far_as_the_umask_lets_them(cache):
    before = os.umask(0o027)
    try:
        encode_cached(corpus(), "valid", TOKENIZERS, 40, cache)
    finally:
        os.umask(before)
    (path,) = cache.iterdir()
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_cache_that_cannot_be_written_is_no_obstacle(cache):
    (cache / "file").write_text("no folder")
    with pytest.warns(UserWarning, match="the cache cannot be used .* MINITX_CACHE names another folder"):
        assert len(encode_cached(corpus(), "valid", TOKENIZERS, 40, cache / "file")) == len(PAIRS)


def test_the_cache_is_safe_with_two_processes_at_once(cache):
    code = ("import sys; sys.path[:0] = sys.argv[2:]; from pathlib import Path; from hashlib import sha256\n"
            "from data.test_tokenizer import PAIRS, TokenizerPair; from minitx.data.encoded import encode_cached\n"
            "from minitx.data.corpus import Corpus; from data.conftest import clean_config\n"
            "pair = TokenizerPair.train(PAIRS, None, True)\n"
            "for n in range(30):\n"
            "    pairs = PAIRS * (n + 1)\n"
            "    corpus = Corpus('en', 'de', ('train',), (), str(n), '', clean_config(), lambda split: pairs)\n"
            "    split = encode_cached(corpus, 'train', pair, 99, Path(sys.argv[1]))\n"
            "    print(sha256(split.src_tokens.tobytes() + split.tgt_offsets.tobytes()).hexdigest())")
    run = [sys.executable, "-W", "error", "-c", code, str(cache), *filter(None, sys.path)]
    both = [subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    (one, error_one), (two, error_two) = (process.communicate() for process in both)
    assert error_one == error_two == ""
    assert one == two
    assert len(one.split()) == len(list(cache.iterdir())) == 30
    assert all(len(EncodedSplit.load(path)) for path in cache.iterdir())


def test_the_cache_folder(monkeypatch, cache):
    assert default_cache_dir() == cache
    monkeypatch.delenv("MINITX_CACHE")
    assert default_cache_dir().parts[-2:] == (".cache", "minitx")


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_an_epoch_holds_every_pair_once_whatever_the_world(world_size):
    whole = TranslationData(config(), corpus(), TOKENIZERS)
    n = whole.updates_per_epoch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ranks = [TranslationData(config(), corpus(), TOKENIZERS, rank=rank, world_size=world_size)
                 for rank in range(world_size)]
    hands = [take(data, n) for data in ranks]
    seen = []
    for one, *parts in zip(take(whole, n), *hands, strict=True):
        assert {(part.epoch, part.update, part.n_tokens) for part in parts} == {one[:3]}
        rounds = zip(*(part.turns for part in parts), strict=True)
        shard = [turn for turns in rounds for turn in turns if turn.weight == 1.0]
        assert [turn.number for turn in shard] == list(range(len(shard)))
        shard = [sentences(turn.batch) for turn in shard]
        assert shard == [sentences(turn.batch) for turn in one.turns]
        assert one.n_tokens == sum(turn.batch.n_tokens for turn in one.turns)
        for part in parts:
            for mine, whole_ in zip(part.lengths, one.lengths, strict=True):
                assert np.array_equal(mine, whole_), "they are those of all ranks"
        for _, batch, _ in one.turns:
            longest = max(batch.src.longest, batch.tgt.longest)
            assert len(sentences(batch)) * longest <= 100
            assert len(batch.src.rows) * longest <= 100 * 9 / 8, "idle sentences come on top"
            assert batch.src.longest % 4 == batch.tgt.longest % 4 == 0
        seen += [pair for sents in shard for pair in sents]
    eos = TOKENIZERS.src.eos_id
    ids = [([*TOKENIZERS.src.encode(src), eos], [*TOKENIZERS.tgt.encode(tgt), eos]) for src, tgt in TRAIN]
    assert sorted(seen) == sorted(ids)


@given(st.integers(0, 30))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_position_goes_on_as_the_whole_stream(skip):
    stream = take(TranslationData(config(), corpus(), TOKENIZERS), 33)
    epoch, update = stream[skip].epoch, stream[skip].update
    there = take(TranslationData(config(), corpus(), TOKENIZERS, start=(epoch, update)), 3)
    for expected, found in zip(stream[skip:], there, strict=False):
        assert found[:3] == expected[:3]
        assert [sentences(turn.batch) for turn in found.turns] == [sentences(turn.batch) for turn in expected.turns]


def test_epochs_follow_without_end_and_differ():
    data = TranslationData(config(), corpus(), TOKENIZERS)
    n = data.updates_per_epoch
    positions = [(update.epoch, update.update) for update in take(data, 2 * n + 1)]
    assert positions == [(0, i) for i in range(n)] + [(1, i) for i in range(n)] + [(2, 0)]
    stream = take(data, 2 * n)
    first, second = ([sentences(turn.batch) for u in part for turn in u.turns] for part in (stream[:n], stream[n:]))
    assert first != second
    assert 0.5 < data.padding_efficiency <= 1
    assert data.idle_share == 0


def test_a_plan_is_made_once_an_epoch(monkeypatch):
    from minitx.data import datamodule as module
    data = TranslationData(config(), corpus(), TOKENIZERS)
    made = []
    monkeypatch.setattr(module, "epoch_plan", lambda *args, **kw: made.append(kw["epoch"]) or epoch_plan(*args, **kw))
    take(data, 2 * data.updates_per_epoch)
    assert made == [1]


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_an_update_that_is_one_micro_batch_is_split_for_ranks(ranks):
    def data(**options):
        return TranslationData(config(max_tokens=4000), corpus(), TOKENIZERS, **options)

    assert {len(update.micro_batches) for update in data().window(0).plan} == {1}
    shared = data(rank=1, world_size=ranks)
    assert {len(update.micro_batches) for update in shared.window(0).plan} == {ranks}
    assert shared.idle_share == 0
    fewer_now = data(min_micro_batches=ranks)
    assert [[batch.rows.tolist() for batch in update.micro_batches] for update in fewer_now.window(0).plan] == [
        [batch.rows.tolist() for batch in update.micro_batches] for update in shared.window(0).plan]
    assert shared.splits_more_than(1)
    assert not shared.splits_more_than(ranks)


def test_ranks_split_no_update_that_memory_has_split_enough():
    data = TranslationData(config(max_tokens=125), corpus(), TOKENIZERS, world_size=2)
    assert all(len(update.micro_batches) >= 2 for update in data.window(0).plan)
    assert not data.splits_more_than(1)


def test_a_rank_that_would_never_work_is_refused():
    with pytest.raises(UserError) as caught:
        TranslationData(config(1, max_tokens=4000), corpus(), TOKENIZERS, rank=1, world_size=2)
    assert str(caught.value) == (
        "trainer.devices=2: no update has more than 1 pair, so some ranks would never work; "
        "raise trainer.tokens_per_update, or take fewer trainer.devices")
    with pytest.raises(UserError, match=r"^trainer.devices=99: no update has more than \d+ pairs, so some ranks"):
        TranslationData(config(max_tokens=4000), corpus(), TOKENIZERS, rank=1, world_size=99)


def test_idle_ranks_are_warned_of():
    with pytest.warns(UserWarning, match=r"^ranks are idle 33% of their turns; raise trainer.tokens_per_update, or "):
        data = TranslationData(config(), corpus(), TOKENIZERS, world_size=3)
    assert data.idle_share > 0.1
    alike = corpus([("a b c", "a b c")] * 64, fingerprint="a" * 64)
    length = len(TOKENIZERS.src.encode("a b c")) + 1
    many = {"tokens_per_update": 10**6, "max_length": length, "pad_to_multiple": 1}
    with pytest.warns(UserWarning, match=r"; lower data.max_tokens \(to (\d+)\), raise") as warned:
        TranslationData(config(**many, max_tokens=16 * length), alike, TOKENIZERS, world_size=3)
    to = int(str(warned[0].message).partition("(to ")[2].partition(")")[0])
    assert to == 2 * length, "32 micro-batches, and one turn of 33 is idle"
    assert TranslationData(config(**many, max_tokens=to), alike, TOKENIZERS, world_size=3).idle_share < 0.1


def test_lightning_moves_an_update_whole():
    (update,) = take(TranslationData(config(), corpus(), TOKENIZERS), 1)
    moved = move_data_to_device(update, torch.device("cpu"))
    assert type(moved) is type(update)
    assert moved[:3] == update[:3]
    assert sentences(moved.turns[0].batch) == sentences(update.turns[0].batch)


def test_an_update_is_made_without_work_in_python_token_by_token():
    work = []
    for words in (2, 60):
        data = TranslationData(config(10**6, max_tokens=10**6, max_length=400),
                               corpus([("x " * words, "y " * words)] * 200), TOKENIZERS)
        work.append(bytecodes(next, iter(data.train_dataloader())))
    assert work[1] < 1.2 * work[0]


@needs_data
def test_nothing_of_multi30k_is_left_out(multi30k, multi30k_cache, monkeypatch):
    monkeypatch.setenv("MINITX_CACHE", str(multi30k_cache))
    data = TranslationData(config(4096, max_tokens=3072, max_length=250), *multi30k)
    assert not any(data.cleaning.dropped.values())
