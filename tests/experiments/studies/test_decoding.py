"""The next token: a state that is grown is as large as one that was read; claims can come out either way."""

import json
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
import torch
from experiments.studies.conftest import families
from hypothesis import given
from hypothesis import strategies as st

from minitx.config.schema import Config
from minitx.experiments.reports.study_plots import FIGURES
from minitx.experiments.studies import decoding
from minitx.experiments.studies.common import run_study
from minitx.experiments.studies.decoding import (
    Decoder,
    Sizes,
    added,
    build_decoder,
    claims,
    n_bytes,
    slower,
    with_cache,
    without_cache,
)
from minitx.utils.console import Console

NAMES = ("transformer", "transformer_window", "linear_rnn_attention", "linear_rnn", "lstm_attention", "lstm")
TINY = Sizes(d_model=16, source=8, shortest=4, longest=64, repeats=1, translation=6)


def configs() -> dict[str, Config]:
    return families(*NAMES)


def decoder(name: str) -> Decoder:
    return build_decoder(name, configs()[name], TINY, torch.device("cpu"), "64-true")


# --- states


@pytest.mark.parametrize("name", NAMES)
@given(length=st.integers(1, 60))
def test_a_state_that_was_grown_has_the_size_of_one_that_was_read(name: str, length: int) -> None:
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        model = decoder(name)
        read = model.first
        for _ in range(length):
            read = model.step(read)
        patch.setattr(decoding, "READ", 40)
        grown = model.state_at(length)
        assert grown.position == read.position == length
        assert [t.shape for t in grown.carried] == [t.shape for t in read.carried]
        assert n_bytes(grown.carried) == n_bytes(read.carried)
        assert model.step(grown).position == length + 1


def test_a_window_that_would_not_be_full_is_an_error() -> None:
    cfg = configs()["transformer_window"]
    wide = replace(cfg, model=replace(cfg.model, window=decoding.READ))  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="not full after 256 tokens"):
        build_decoder("wide", wide, TINY, torch.device("cpu"), "32-true")


def test_bytes_of_what_is_shared_count_once() -> None:
    x = torch.ones(10)
    assert n_bytes([x, x]) == x.nbytes
    assert n_bytes([x, x + 1]) == 2 * x.nbytes


@pytest.mark.parametrize("name", NAMES)
def test_a_translation_is_the_same_with_a_cache_and_without(name: str) -> None:
    with torch.inference_mode():
        model = decoder(name)
        model.model.eval()
        assert with_cache(model, 12) == without_cache(model, 12)


# --- all of it


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "SIZES", {"tiny": TINY})
        return run_study(decoding, configs(), "tiny", Console(StringIO()))


def test_each_family_carries_what_it_should(found: dict[str, Any]) -> None:
    more = {name: family["a_token"] for name, family in found["families"].items()}
    layers, width, number = 1, TINY.d_model, 4
    assert more["transformer"] == 2 * layers * width * number
    assert more["linear_rnn"] == more["linear_rnn_attention"] == more["lstm"] == more["lstm_attention"] == 0
    assert 0 < more["transformer_window"] < more["transformer"], "its cache was filling up to its window"
    for family in found["families"].values():
        assert [point["length"] for point in family["points"]] == TINY.lengths
        assert all(0 < p["fastest_s"] <= p["seconds"] <= p["slowest_s"] for p in family["points"])
    assert found["families"]["linear_rnn"]["source_bytes"] == 0


def test_it_is_stored_shown_and_drawn(found: dict[str, Any]) -> None:
    stored = json.loads(json.dumps(found))
    assert FIGURES["decoding"](stored) == FIGURES["decoding"](found)
    assert sum("more with each token" in line for line in decoding.table(found)) == len(NAMES)
    assert len(found["claims"]) == 9
    assert all(claim["predicted"] for claim in found["claims"])


# --- what follows


def family(a_token: float, ratio: float) -> dict[str, Any]:
    points = [{"length": n, "seconds": s, "fastest_s": 0.95 * s, "slowest_s": 1.05 * s, "state_bytes": a_token * n + 9}
              for n, s in ((64, 1.0), (1_024, ratio))]
    return {"a_token": added(points), "points": points}


@pytest.mark.parametrize("grows", [True, False])
def test_claims_follow_the_figures_not_the_names(grows: bool) -> None:
    figures = dict.fromkeys(NAMES, family(1_024, 20) if grows else family(0, 1))
    cache = {"tokens": 64, "kept": {"seconds": 1.0, "fastest_s": 1.0, "slowest_s": 1.0},
             "anew": {"seconds": 2.5, "fastest_s": 2.4, "slowest_s": 2.6}}
    holds = [claim.holds for claim in claims(figures, cache)]
    assert holds == [not grows] * 6 + [grows] * 2 + [True]


@pytest.mark.parametrize(("ratio", "holds"), [(4.0, True), (1.0, False), (2.0, None)])
def test_a_step_is_compared_with_the_first_between_extremes(ratio: float, holds: bool | None) -> None:
    assert slower("", family(0, ratio)["points"], (2, float("inf"))).holds is holds
