"""What a step holds: counted without data as it is counted with it, and claims that can come out either way."""

import json
from io import StringIO
from typing import Any

import pytest
from experiments.studies.conftest import families
from hypothesis import given
from hypothesis import strategies as st
from toys import ROOT

from minitx.cli.study import STUDIES, compose_families
from minitx.config.schema import Config
from minitx.experiments.costs.complexity import TimedBatch
from minitx.experiments.reports.study_plots import FIGURES
from minitx.experiments.studies import memory
from minitx.experiments.studies.common import run_study
from minitx.experiments.studies.growth import count_bytes, family_task, sentence_batch
from minitx.experiments.studies.memory import (
    GB,
    OF_TRANSFORMERS,
    WAYS,
    Shape,
    Sizes,
    Way,
    build_system,
    claims,
    faster,
    held_at,
    held_without_data,
    shape_claims,
    steps_without_data,
)
from minitx.models import cpu_attention
from minitx.training.build import choose_device
from minitx.utils.console import Console

SMALL = {"d_model": 16, "d_ff": 64, "n_heads": 4, "num_layers": 2}
TINY = Sizes(d_model=16, shortest=8, longest=1_024, pass_s=3_600.0, layers_length=32, shape=Shape(2, 32, 1))


def configs() -> dict[str, Config]:
    return families("transformer", "lstm", "linear_rnn")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size `big`, but small enough to run, and blocks that sentences of a few hundred tokens have several of."""
    monkeypatch.setitem(configs()["transformer"].model.sizes, "big", SMALL)
    monkeypatch.setattr(cpu_attention, "LONG", 2**14)


# --- counted without data


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", OF_TRANSFORMERS)
@pytest.mark.parametrize("length", [20, 300])
def test_what_is_counted_without_data_is_what_a_step_that_runs_holds(name: str, length: int) -> None:
    shape, way = Shape(sentences=2, length=length, layers=2), WAYS[name]
    cfg = memory.big(way.config(configs()), shape)
    task = family_task(cfg, SMALL["d_model"], "32-true")
    with way.holds():
        ran = count_bytes(TimedBatch(name, task, sentence_batch(length, 2), length, SMALL["d_model"]))
    assert held_without_data(way, configs(), shape, [2]) == [ran[0]]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", OF_TRANSFORMERS)
@pytest.mark.parametrize("length", [20, 300])
def test_backward_passes_without_data_hold_as_much_as_those_that_run(name: str, length: int) -> None:
    cfg = WAYS[name].config(configs())
    with steps_without_data(WAYS[name], cfg, 16, length, [1]) as (step,):
        counted = count_bytes(step)
    with WAYS[name].holds():
        ran = count_bytes(TimedBatch(name, family_task(cfg, 16, "32-true"), sentence_batch(length), length, 16))
    assert counted == ran


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_two_counts_give_that_of_any_number_of_sentences(name: str) -> None:
    shape = Shape(sentences=5, length=300, layers=2)
    assert [held_at(WAYS[name], configs(), shape)] == held_without_data(WAYS[name], configs(), shape, [5])


@pytest.mark.usefixtures("small")
def test_what_stored_weights_leave_to_the_backward_pass_is_what_the_arithmetic_says() -> None:
    shape = Shape(sentences=3, length=300, layers=2)
    stored, blocks = (held_at(WAYS[name], configs(), shape) for name in ("transformer, stored", "transformer"))
    more = (stored - blocks) / GB
    assert more == pytest.approx(3 * shape.layers * shape.scores_gb(SMALL["n_heads"]), rel=0.05)


def test_the_arithmetic_is_that_of_the_lecture() -> None:
    assert Shape(sentences=32, length=2_048).scores_gb(heads=16) == pytest.approx(8.6, abs=0.05)


@pytest.mark.parametrize("name", ["transformer, stored", "transformer", "transformer, recomputed"])
def test_published_counts_are_those_of_this_code(name: str) -> None:
    """At 8,192 tokens, where nothing is allocated; another torch may hold a little more or less."""
    found = json.loads((ROOT / "results" / "studies" / "memory.json").read_text(encoding="utf-8"))
    published = {point["length"]: point["peak_bytes"] for point in found["counted"][name]["points"]}
    families_ = compose_families([*STUDIES["memory"].overrides, "seed=1"])
    cfg = WAYS[name].config(families_)
    with steps_without_data(WAYS[name], cfg, found["sizes"]["d_model"], 8_192, [1]) as (step,):
        assert count_bytes(step)[1] == pytest.approx(published[8_192], rel=0.02)


# --- ways


@pytest.mark.parametrize("name", WAYS)
def test_a_way_changes_what_it_says_and_nothing_else(name: str) -> None:
    way, plain = WAYS[name], configs()[WAYS[name].family]
    cfg = way.config(configs())
    assert bool(cfg.trainer.activation_checkpointing) is way.recomputed
    assert {key: getattr(cfg.model, key) for key in way.model} == dict(way.model)
    model = build_system(name, configs(), TINY, choose_device(cfg.trainer)).task.model
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for p in family_task(plain, TINY.d_model, "32-true").model.parameters())


def test_a_family_or_a_key_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError, match="lstm"):
        Way("lstm").config(families("transformer"))
    with pytest.raises(TypeError, match="window"):
        Way("lstm", {"window": 3}).config(configs())


# --- all of it


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "SIZES", {"tiny": TINY})
        patch.setitem(configs()["transformer"].model.sizes, "big", SMALL)
        patch.setattr(cpu_attention, "LONG", 2**14)
        patch.setattr(cpu_attention, "SCORES", 2**14)
        return run_study(memory, configs(), "tiny", Console(StringIO()))


def test_every_way_is_measured_at_every_length_and_with_every_number_of_layers(found: dict[str, Any]) -> None:
    assert list(found["by_length"]) == list(found["by_layers"]) == list(WAYS)
    assert list(found["at_shape"]) == list(found["counted"]) == OF_TRANSFORMERS
    for name in WAYS:
        assert [point["length"] for point in found["by_length"][name]["points"]] == TINY.lengths
        assert [point["layers"] for point in found["by_layers"][name]["points"]] == list(TINY.layers)
        assert all(0 < point["held_bytes"] <= point["peak_bytes"] for point in found["by_length"][name]["points"])


def test_what_is_counted_at_a_length_is_what_is_measured_there(found: dict[str, Any]) -> None:
    """Both are of a step of one sentence in fp32, one without data."""
    for name, way in found["counted"].items():
        measured = {point["length"]: point["peak_bytes"] for point in found["by_length"][name]["points"]}
        assert {point["length"]: point["peak_bytes"] for point in way["points"]}.items() <= measured.items(), name


def test_squares_are_held_where_they_are_stored_and_nowhere_else(found: dict[str, Any]) -> None:
    power = {name: system["memory"]["exponent"] for name, system in found["by_length"].items()}
    for name, way in WAYS.items():
        assert (power[name] > 1.4) is way.stored, name
        assert way.stored or power[name] < 1.15, name


def test_layers_that_are_recomputed_leave_their_inputs(found: dict[str, Any]) -> None:
    inputs = 2 * TINY.layers_length * TINY.d_model * 4
    held = {name: system["held_a_layer"] for name, system in found["by_layers"].items()}
    assert held["transformer, recomputed"] == pytest.approx(inputs, rel=0.2)
    assert held["transformer"] > 5 * inputs


def test_it_is_stored_shown_and_drawn(found: dict[str, Any]) -> None:
    stored = json.loads(json.dumps(found))
    assert FIGURES["memory"](stored) == FIGURES["memory"](found)
    lines = list(memory.table(found))
    assert sum("grows as L^" in line for line in lines) == 2 * len(WAYS) + len(OF_TRANSFORMERS)
    assert {claim["holds"] for claim in found["claims"]} <= {True, False, None}
    assert all(claim["predicted"] for claim in found["claims"])


# --- what follows


def system(time: float, memory_: float) -> dict[str, Any]:
    def fit(exponent: float) -> dict[str, Any]:
        return {"exponent": exponent, "interval": (exponent - 0.02, exponent + 0.02)}

    points = [{"length": n, "seconds": n**time, "fastest_s": 0.95 * n**time, "slowest_s": 1.05 * n**time}
              for n in (64, 128)]
    return {"points": points, "time": fit(time), "memory": fit(memory_)}


def figures(stored: float = 13.0) -> dict[str, Any]:
    """stored: GB, as many as 12 attentions of 1 GB and what is left without them"""
    lengths = {name: system(2.0, 2.0 if way.stored else 1.0) for name, way in WAYS.items()}
    inputs = 2 * TINY.layers_length * TINY.d_model * 4
    layers = {name: {"held_a_layer": 30.0 * inputs, "points": [
        {"seconds": 1.0, "fastest_s": 1.0, "slowest_s": 1.0}]} for name in WAYS}
    layers["transformer, recomputed"] = {"held_a_layer": inputs, "points": [
        {"seconds": 1.33, "fastest_s": 1.3, "slowest_s": 1.4}]}
    at_shape = dict.fromkeys(OF_TRANSFORMERS, GB) | {"transformer, stored": stored * GB}
    return {"by_length": lengths, "by_layers": layers, "at_shape": at_shape, "scores_gb": 1.0,
            "shape": {"sentences": 2, "length": 32, "layers": 4, "heads": 4}}


def test_claims_follow_the_figures() -> None:
    verdicts = [claim.holds for claim in claims(figures(), TINY)]
    assert verdicts == [True, True, False, True, False, True, False, False, True, True, True, True, True, True, False]


@pytest.mark.parametrize(("stored", "holds"), [(13.0, (True, False)), (5.0, (False, True)), (1.0, (False, False))])
def test_the_arithmetic_is_held_against_what_is_counted(stored: float, holds: tuple[bool, bool]) -> None:
    assert tuple(claim.holds for claim in shape_claims(figures(stored=stored))) == holds


@given(st.floats(1.2, 8))
def test_speeds_are_compared_at_the_longest_sentence_that_both_were_given(factor: float) -> None:
    one, other = system(1.0, 1.0), system(1.0, 1.0)
    for point in other["points"]:
        for key in ("seconds", "fastest_s", "slowest_s"):
            point[key] *= factor
    claim = faster("it is faster", one, other, (2, 4))
    assert claim.claim == "it is faster, at 128 tokens"
    assert float(claim.measured) == pytest.approx(factor, rel=0.01)
    other["points"].pop()
    assert faster("it is faster", one, other, (2, 4)).claim.endswith("at 64 tokens")
    other["points"].clear()
    assert faster("it is faster", one, other, (2, 4)).holds is None
