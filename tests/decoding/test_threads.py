"""Threads translate at the same time, with one model or with several: each gets what it would get alone."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier, Event

import pytest
import torch
from decoding.test_translator import DECODE, Letters, translate_with
from toys import FAMILIES

from minitx.decoding.scoring import PairScore, score_pairs
from minitx.decoding.translator import Translation, Translator
from minitx.models.base import Seq2Seq
from minitx.models.layers import Linear
from minitx.models.precision import compute_dtype

LINES = ["a dog", "the cat sees", "b", "zebra"]
SHORT = replace(DECODE, max_length_ratio=0.1, max_length_extra=3)
TESTED = pytest.mark.parametrize("family", ["transformer rope", "lstm dot fed"])
WAIT_S = 60  # no measure of anything: a thread that failed must not leave the others waiting


@pytest.fixture(autouse=True, scope="module")
def one_core_a_thread() -> Iterator[None]:
    """Several teams of threads would spin for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build(family: str, seed: int = 9) -> Seq2Seq:
    vocab = Letters.vocab_size
    return FAMILIES[family](seed, src_vocab_size=vocab, tgt_vocab_size=vocab, tie_embeddings=False, dropout=0.5)


def translator(model: Seq2Seq, precision: str | None) -> Translator:
    return translate_with(model, decode=replace(SHORT, precision=precision))


Outputs = tuple[list[list[Translation]], list[PairScore]]


def work(one: Translator, pause: Callable[[], object] = lambda: None) -> Outputs:
    """Search and score; pause between batches."""
    def progress(done: int, total: int) -> None:
        pause()

    return (one.n_best(LINES, 2, beam_size=2, progress=progress),
            score_pairs(one, LINES, LINES[::-1], progress=progress))


def together(translators: list[Translator]) -> list[Outputs]:
    """Let each work in a thread of its own, all inside their blocks at each pause."""
    barrier = Barrier(len(translators))
    with ThreadPoolExecutor(len(translators)) as pool:
        return list(pool.map(lambda one: work(one, lambda: barrier.wait(WAIT_S)), translators))


@TESTED
def test_threads_share_a_model_in_two_number_formats(family: str) -> None:
    model = build(family)
    translators = [translator(model, precision) for precision in (None, "bf16-mixed", "bf16-mixed")]
    alone = [work(one) for one in translators]
    assert alone[0][0] != alone[1][0], "the format shows in the scores"
    model.train()
    assert together(translators) == alone
    assert all(module.training for module in model.modules())


def test_threads_have_models_of_their_own() -> None:
    translators = [translator(build("transformer rope", seed), precision)
                   for seed, precision in ((1, None), (2, "bf16-mixed"), (3, "bf16-mixed"))]
    alone = [work(one) for one in translators]
    assert len({str(outputs) for outputs in alone}) == 3
    assert together(translators) == alone


@pytest.mark.parametrize("precision", [None, "bf16-mixed"])
def test_a_translation_that_ends_before_another_leaves_nothing_behind(precision: str | None) -> None:
    """Each format and each cast ends with its block, in whatever order the blocks end."""
    model = build("transformer sinusoidal").train()
    first_runs, second_runs, first_is_over = Event(), Event(), Event()
    modes: list[bool] = []

    def first(*_: int) -> None:
        first_runs.set()
        assert second_runs.wait(WAIT_S)

    def second(*_: int) -> None:
        second_runs.set()
        assert first_is_over.wait(WAIT_S)
        modes.append(model.training)

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(translator(model, precision).translate, ["a"], progress=first)
        assert first_runs.wait(WAIT_S)
        other = pool.submit(translator(model, precision).translate, ["a"], progress=second)
        one.result()
        first_is_over.set()
        other.result()
    assert modes == [False]
    assert model.training
    assert compute_dtype() is None
    layer, x = Linear(4, 4, bias=False), torch.ones(1, 4).bfloat16()
    with torch.inference_mode():
        assert layer(x).any()
    with torch.no_grad():
        layer.weight.zero_()
    with torch.inference_mode():
        assert not layer(x).any()


@TESTED
@pytest.mark.parametrize("precision", [None, "bf16-mixed"])
def test_weights_changed_after_a_translation_are_used(family: str, precision: str | None) -> None:
    model, changed = build(family), build(family, seed=3)
    before, expected = work(translator(model, precision)), work(translator(changed, precision))
    model.load_state_dict(changed.state_dict())
    assert work(translator(model, precision)) == expected != before
