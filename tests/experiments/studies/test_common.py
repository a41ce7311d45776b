"""The task that asks for one memory, and readers: what they see, that they learn it, and which a seed makes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
import pytest
import torch
from experiments.studies.conftest import families
from hypothesis import given
from hypothesis import strategies as st
from toys import sentences

from minitx.config.schema import Config
from minitx.data.batch import Packed, pack
from minitx.data.tokenizer import EOS_ID, N_SPECIALS, PAD_ID
from minitx.experiments.studies.common import (
    FILLERS,
    KEYS,
    STAGES,
    SYSTEMS,
    VOCAB,
    Lesson,
    Reader,
    build_reader,
    draw_latch_batch,
    run_study,
    single_layer,
    train_reader,
    train_readers,
)
from minitx.utils.console import Console
from minitx.utils.progress import Progress

DISTANCES = st.lists(st.integers(1, 12), min_size=1, max_size=5)
WIDTH = 32


def configs() -> dict[str, Config]:
    return families("lstm", "linear_rnn_attention", "transformer", **{"optim.lr": 0.01, "optim.warmup_steps": 10})


@given(DISTANCES, st.integers(0, 2**32))
def test_a_key_comes_first_and_nowhere_else(distances: list[int], seed: int) -> None:
    batch = draw_latch_batch(distances, np.random.default_rng(seed))
    rows = sentences(batch.src)
    assert [row[0] - N_SPECIALS for row in rows] == batch.keys.tolist()
    assert [len(row) - 1 for row in rows] == distances
    for row in rows:
        assert row[-1] == EOS_ID
        assert all(N_SPECIALS + KEYS <= token < VOCAB for token in row[1:-1])


def test_every_key_and_filler_is_drawn() -> None:
    batch = draw_latch_batch([50] * 500, np.random.default_rng(0))
    assert set(batch.src.ids.tolist()) >= set(range(N_SPECIALS, N_SPECIALS + KEYS + FILLERS))


@pytest.mark.parametrize("system", SYSTEMS)
@given(distances=DISTANCES)
def test_a_state_is_that_of_its_sentence_alone(system: str, distances: list[int]) -> None:
    reader = build_reader(system, configs(), WIDTH, 0).eval()
    batch = draw_latch_batch(distances, np.random.default_rng(1))
    with torch.no_grad():
        together = reader(batch.src)
        for state, ids in zip(together, sentences(batch.src), strict=True):
            torch.testing.assert_close(state, reader(one(ids))[0], atol=1e-5, rtol=1e-5)


def one(ids: list[int]) -> Packed:
    return pack([ids], PAD_ID)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_token_reaches_the_state(system: str) -> None:
    reader = build_reader(system, configs(), WIDTH, 0).eval()
    ids = [N_SPECIALS, *[N_SPECIALS + KEYS] * 4, EOS_ID]
    with torch.no_grad():
        state = reader(one(ids))
        for place in range(5):
            other = [*ids[:place], ids[place] + 1, *ids[place + 1:]]
            assert not torch.equal(reader(one(other)), state)


def test_families_are_brought_to_one_layer_that_reads_forwards() -> None:
    lstm, transformer = (vars(single_layer(configs()[name].model, WIDTH)) for name in ("lstm", "transformer"))
    assert (lstm["num_layers"], lstm["d_model"], lstm["d_hidden"], lstm["bidirectional"]) == (1, WIDTH, WIDTH, False)
    assert (transformer["num_layers"], transformer["d_model"]) == (1, WIDTH)
    linear = vars(single_layer(configs()["linear_rnn_attention"].model, WIDTH))
    assert (linear["num_layers"], linear["d_model"], linear["d_hidden"]) == (1, WIDTH, 2 * WIDTH), "half read backwards"


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_short_memory_is_learned(system: str) -> None:
    lesson = Lesson(width=WIDTH, longest=3, sentences=64, updates=150)
    reader = build_reader(system, configs(), WIDTH, 0)
    assert list(train_reader(reader, configs()["lstm"].optim, lesson, 0)) == list(range(1, 151))
    batch = draw_latch_batch([1, 2, 3] * 100, np.random.default_rng(5))
    with torch.no_grad():
        assert reader.n_correct(reader.eval()(batch.src), batch.keys) > 270


def test_readers_come_as_drawn_and_as_taught_and_a_seed_says_which() -> None:
    lesson = Lesson(width=WIDTH, longest=3, sentences=4, updates=2, seeds=2)
    seen: dict[tuple[str, str, int], torch.Tensor] = {}
    for _ in range(2):
        progress = Progress(Console(StringIO()), lesson.work)
        for system, stage, seed, reader in train_readers(configs(), lesson, progress):
            weight = reader.output.weight.detach().clone()
            assert not reader.training
            assert torch.equal(seen.setdefault((system, stage, seed), weight), weight)
        assert progress.done == lesson.work
    first = configs()["lstm"].seed
    assert set(seen) == {(system, stage, seed) for system in SYSTEMS for stage in STAGES for seed in (first, first + 1)}
    for system in SYSTEMS:
        weights = [seen[system, stage, first] for stage in STAGES] + [seen[system, STAGES[0], first + 1]]
        assert not any(torch.equal(weights[0], other) for other in weights[1:])


def test_an_update_that_is_not_finite_is_skipped() -> None:
    reader = build_reader("rnn", configs(), WIDTH, 0)
    reader.output.weight.register_hook(lambda grad: grad * torch.nan)
    before = reader.output.weight.detach().clone()
    assert list(train_reader(reader, configs()["lstm"].optim, Lesson(width=WIDTH, longest=2, updates=1), 0)) == [1]
    assert torch.equal(reader.output.weight, before)


@dataclass(frozen=True)
class Sizes:
    much: int


class Stub:
    SIZES: Mapping[str, Any] = {"tiny": Sizes(7)}

    def measure(self, families: Mapping[str, Config], sizes: Sizes, console: Console) -> dict[str, Any]:
        return {"found": sizes.much * len(families), "claims": []}

    def table(self, found: Mapping[str, Any]) -> Iterator[str]:
        yield str(found["found"])


def test_what_was_found_is_kept_with_its_conditions() -> None:
    found = run_study(Stub(), configs(), "tiny", Console(StringIO()))
    assert (found["size"], found["sizes"], found["found"]) == ("tiny", {"much": 7}, 21)
    conditions = found["conditions"]
    assert (conditions["device"], conditions["precision"], conditions["seed"]) == ("cpu", "32-true", 1)
    assert conditions["threads"] == torch.get_num_threads()
    assert conditions["versions"]["torch"] == torch.__version__
    assert {"cpu", "cores"} < conditions["hardware"].keys()


def test_a_reader_needs_nothing_but_an_encoder() -> None:
    class Blind(torch.nn.Module):
        def encode(self, src: Any) -> torch.Tensor:
            return torch.ones(len(src.ids), 4)

    batch = draw_latch_batch([1, 2], np.random.default_rng(0))
    assert Reader(Blind(), 4)(batch.src).shape == (2, 4)
