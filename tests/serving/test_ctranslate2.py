"""CTranslate2 as a backend gives what our own search gives, to the token where their rules are the same."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from exportable import random_ids, write_drawn_run
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx.decoding.backend import Sampling, SearchOptions
from minitx.decoding.torch_backend import TorchBackend
from minitx.decoding.translator import Translator
from minitx.export.manifest import read_manifest
from minitx.export.writing import export_run
from minitx.runs.checkpoint import load_model
from minitx.serving.ctranslate2 import CTranslate2Backend, open_backend
from minitx.utils.errors import Exit, UserError

GREEDY = SearchOptions(1, 0.0)
LIMITS = [4, 9, 3, 12, 7]
PREFIXES = [[10], [11, 12], [], [5, 6, 7], [8]]


class Both(NamedTuple):
    """The same model behind two backends, and sources for it."""

    theirs: CTranslate2Backend
    own: TorchBackend
    sources: list[list[int]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    export_run(write_drawn_run(folder / "run", "model.num_layers=2"), "ctranslate2", folder / "out")
    return folder


@pytest.fixture(scope="module")
def both(folder: Path) -> Both:
    model, pair, _ = load_model(folder / "run")
    return Both(open_backend(folder / "out", read_manifest(folder / "out")), TorchBackend([model]),
                random_ids(pair.src.vocab_size))


@pytest.mark.parametrize("options", [
    GREEDY, replace(GREEDY, scored=False), replace(GREEDY, prefixes=PREFIXES), replace(GREEDY, no_repeat_ngram=2),
    replace(GREEDY, no_repeat_ngram=1, prefixes=PREFIXES)])
def test_greedy_search_is_the_same(options: SearchOptions, both: Both) -> None:
    theirs, own = (backend.search(both.sources, LIMITS, options) for backend in (both.theirs, both.own))
    assert [h.ids for h, in theirs] == [h.ids for h, in own]
    if options.scored:
        assert [h.log_prob for h, in theirs] == pytest.approx([h.log_prob for h, in own], abs=1e-4)


@settings(deadline=None, max_examples=25)
@given(beam_size=st.integers(2, 6), penalty=st.sampled_from([0.0, 0.6, 1.0]), data=st.data())
def test_of_a_beam_scores_and_order_are_ours(beam_size: int, penalty: float, data: st.DataObject, both: Both) -> None:
    n_best = data.draw(st.integers(1, beam_size))
    limits = data.draw(st.lists(st.integers(4, 12), min_size=5, max_size=5))
    prefixes = data.draw(st.sampled_from([None, PREFIXES]))
    options = SearchOptions(beam_size, penalty, n_best=n_best, prefixes=prefixes)
    found = both.theirs.search(both.sources, limits, options)
    for source, limit, prefix, best in zip(both.sources, limits, prefixes or [[]] * 5, found, strict=True):
        assert 1 <= len(best) <= n_best
        assert [h.score for h in best] == sorted((h.score for h in best), reverse=True)
        assert len({tuple(h.ids) for h in best}) == len(best)
        for h in best:
            assert h.ids[:len(prefix)] == prefix
            assert len(h.ids) <= limit
            whole = both.own.score([source], [h.ids])[0]  # with EOS, which an output that was cut has not
            cut = len(h.ids) == limit
            assert cut or h.log_prob == pytest.approx(whole, abs=1e-3)
            assert not cut or h.log_prob >= whole - 1e-3
            assert h.score == pytest.approx(h.log_prob / ((5 + len(h.ids) + (not cut)) / 6) ** penalty)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_of_a_beam_the_best_is_mostly_ours(penalty: float, both: Both) -> None:
    options = SearchOptions(5, penalty)
    pairs = zip(*(backend.search(both.sources, LIMITS, options) for backend in (both.theirs, both.own)), strict=True)
    assert sum(theirs[0].ids == own[0].ids for theirs, own in pairs) >= 4


def test_no_sequence_comes_twice_where_that_is_asked_for(both: Both) -> None:
    for best in both.theirs.search(both.sources, [12] * 5, SearchOptions(4, 1.0, no_repeat_ngram=2)):
        pairs = list(zip(best[0].ids, best[0].ids[1:], strict=False))
        assert len(set(pairs)) == len(pairs)


def test_an_output_as_long_as_can_be_is_scored(tmp_path: Path) -> None:
    run = write_drawn_run(tmp_path / "run", "decode.max_source_length=8", "decode.max_length_ratio=1",
                          "decode.max_length_extra=1")
    manifest = export_run(run, "ctranslate2", tmp_path / "out")
    backend, most = open_backend(tmp_path / "out", manifest), manifest.max_target_length
    assert most == 9
    sources = [ids[:7] for ids in random_ids(len(backend.src_tokens))]
    for beam_size in (1, 3):
        found = backend.search(sources, [most] * len(sources), SearchOptions(beam_size, 1.0, no_repeat_ngram=1))
        assert any(len(one.ids) == most for outputs in found for one in outputs)


def test_given_targets_are_scored(both: Both) -> None:
    targets = [[5, 6], [7], [], [8, 9, 10], [4]]
    assert both.theirs.score(both.sources, targets) == pytest.approx(both.own.score(both.sources, targets), abs=1e-4)


def test_what_is_drawn_by_line_is_refused(both: Both) -> None:
    options = replace(GREEDY, scored=False, sampling=Sampling(1.0, 0, seeds=range(5)))
    with pytest.raises(UserError, match="cannot draw each line by a seed of its own"):
        both.theirs.search(both.sources, LIMITS, options)


def test_a_translator_takes_it(folder: Path, both: Both) -> None:
    lines = ["the dog sees the cat", "", "the cat", "a very strange line that is longer than most"]
    _, pair, cfg = load_model(folder / "run")
    theirs, own = (Translator(backend, pair, cfg.decode) for backend in (both.theirs, both.own))
    options = {"beam_size": 1, "warn": lambda row, what: None}
    assert theirs.translate(lines, **options) == own.translate(lines, **options)
    assert len(theirs.n_best(lines, 3, **options | {"beam_size": 4})) == len(lines)


def test_an_export_that_the_engine_refuses_is_one_line(folder: Path, tmp_path: Path) -> None:
    manifest = read_manifest(folder / "out")
    for name in manifest.files:
        (tmp_path / name).write_bytes((folder / "out" / name).read_bytes())
    (tmp_path / "model.bin").write_bytes(b"of a later version")
    with pytest.raises(UserError, match="CTranslate2 cannot load it") as refused:
        open_backend(tmp_path, manifest)
    assert "\n" not in str(refused.value)
    assert refused.value.code == Exit.USAGE
