"""The loss over size: what counts as size, that all models see as much, and claims judged either way."""

import json
from io import StringIO
from typing import Any

import numpy as np
import pytest
from experiments.studies.conftest import families
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx.data.synthetic import text as synthetic
from minitx.experiments.costs.complexity import with_width
from minitx.experiments.fits import EXPONENTS
from minitx.experiments.reports.study_plots import FIGURES
from minitx.experiments.studies import scaling_law
from minitx.experiments.studies.common import run_study
from minitx.experiments.studies.scaling_law import (
    FLOOR,
    Sizes,
    claims,
    fit_laws,
    judge_estimate,
    judge_exponent,
    judge_prediction,
    law_text,
    n_weights,
)
from minitx.models.registry import build_model
from minitx.utils.console import Console

SCALE = [10_000.0 * 2**i for i in range(7)]


@pytest.mark.parametrize("tied", ["true", "false"])
def test_size_is_not_a_matter_of_the_vocabulary(tied: str) -> None:
    (cfg,) = families("transformer", **{"model.tie_embeddings": tied}).values()
    small, large = (build_model(cfg.model, src_vocab_size=n, tgt_vocab_size=n) for n in (100, 1_000))
    assert n_weights(small) == n_weights(large)
    tables = 1 if tied == "true" else 3
    assert sum(p.numel() for p in small.parameters()) - n_weights(small) == tables * 100 * small.output.in_features


def test_widths_of_a_study_make_models_that_grow() -> None:
    (cfg,) = families("transformer", **{"model.size": "tiny"}).values()
    for sizes in scaling_law.SIZES.values():
        for width in sizes.widths:
            with_width(cfg.model, width).check(cfg.data)
        models = [build_model(with_width(cfg.model, w), src_vocab_size=99, tgt_vocab_size=99) for w in sizes.widths[:7]]
        counts = [n_weights(model) for model in models]
        assert counts == sorted(counts)
        assert counts[-1] > 30 * counts[0]
        assert len(sizes.widths) >= 6


# --- what follows


def measured(loss: Any, noise: float = 0.0, seeds: int = 2) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    return fit_laws(SCALE, [[loss(n) * float(np.exp(noise * draw.normal())) for _ in range(seeds)] for n in SCALE])


@settings(max_examples=5)
@given(st.floats(0.02, 1.0))
def test_a_power_is_found_with_its_error_and_predicts(alpha: float) -> None:
    found = measured(lambda n: 9.0 * n**-alpha)["power"]
    assert found["exponent"] == pytest.approx(alpha, abs=1e-4)
    assert found["exponent_error"] < 1e-3
    assert abs(found["miss"]) < 1e-3


@pytest.mark.parametrize(("loss", "noise", "holds"), [
    (lambda n: 9.0 * n**-0.2, 1e-3, True), (lambda n: 9.0, 1e-4, False), (lambda n: 9.0 * n**-0.03, 5e-2, None)])
def test_an_exponent_is_judged(loss: Any, noise: float, holds: bool | None) -> None:
    assert judge_exponent("", measured(loss, noise, seeds=1)["power"], (0.01, float("inf"))).holds is holds


@pytest.mark.parametrize(("form", "holds"), [("power", False), ("power and floor", True)])
def test_a_prediction_is_judged_by_what_it_misses(form: str, holds: bool) -> None:
    assert judge_prediction("", measured(lambda n: 500 * n**-0.5 + 1.0)[form]).holds is holds


def test_a_prediction_is_not_judged_by_one_seed_nor_by_seeds_that_disagree() -> None:
    assert judge_prediction("", measured(lambda n: 9.0 * n**-0.2, seeds=1)["power"]).holds is None
    assert judge_prediction("", measured(lambda n: 9.0 * n**-0.2, noise=0.05, seeds=5)["power"]).holds is None


def test_an_estimate_at_the_edge_of_what_is_tried_is_not_judged() -> None:
    bent = measured(lambda n: 5.0 - 0.3 * float(np.log(n / SCALE[0])) ** 1.2)["power and floor"]
    assert bent["exponent"] == EXPONENTS[True][0]
    assert bent["constant_interval"] is None
    assert judge_estimate("", bent, "constant", (0.1, float("inf"))).holds is None


@pytest.mark.parametrize(("alpha", "floor", "expected"), [
    (0.076, 0.0, {"that of Kaplan": True, "that of Hoffmann": False, "no size of model goes below": False}),
    (0.34, 1.69, {"that of Hoffmann": True, "no size of model goes below": True})])
def test_published_exponents_are_recognised_and_others_are_not(alpha: float, floor: float,
                                                               expected: dict[str, bool]) -> None:
    one = {"fits": measured(lambda n: 5.0 * (n / SCALE[0]) ** -alpha + floor)}
    said = {claim.claim: claim.holds for claim in claims({"size": one, "text": one})}
    assert len(said) == 9
    for words, holds in expected.items():
        (found,) = (verdict for claim, verdict in said.items() if words in claim)
        assert found is holds


# --- all of it

TINY = Sizes(widths=(8, 16, 24, 32), pairs=(100, 200, 300, 400), width=8, updates=3, score_every=2, seeds=2)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINITX_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(scaling_law, "SIZES", {"tiny": TINY})
        patch.setattr(synthetic, "EVALUATION_SIZE", 100)
        (cfg,) = families("transformer", **{"data.train_size": 400, "trainer.tokens_per_update": 256,
                                            "data.max_tokens": 256}).values()
        return run_study(scaling_law, {"transformer": cfg}, "tiny", Console(StringIO()))


def test_models_of_all_sizes_see_the_same_tokens(found: dict[str, Any]) -> None:
    assert found["size"] == "tiny"
    points = found["laws"]["size"]["points"]
    assert [point["d_model"] for point in points] == [8, 16, 24, 32]
    assert len({(point["trained_tokens"], point["text_tokens"]) for point in points}) == 1
    assert points[0]["trained_tokens"] == pytest.approx(3 * 256, rel=0.1)
    assert all(0 < point["loss"] < 20 and len(point["losses"]) == 2 for point in points)
    assert all(set(point["updates"]) <= {2, 3} for point in points)


def test_one_model_sees_more_and_more_text(found: dict[str, Any]) -> None:
    points = found["laws"]["text"]["points"]
    assert len({point["weights"] for point in points}) == 1
    tokens = [point["text_tokens"] for point in points]
    assert tokens == sorted(tokens)
    assert tokens[-1] > 3 * tokens[0]
    assert found["laws"]["size"]["points"][0]["losses"] == points[-1]["losses"]  # of the same width, text and seeds


def test_it_is_stored_shown_and_drawn(found: dict[str, Any]) -> None:
    stored = json.loads(json.dumps(found))
    assert FIGURES["scaling-law"](stored) == FIGURES["scaling-law"](found)
    lines = list(scaling_law.table(found))
    assert sum("misses the largest by" in line for line in lines) == 2 * len(FLOOR)
    assert sum("published" in line for line in lines) == len(scaling_law.PUBLISHED)


def test_a_fit_without_an_estimate_or_a_floor_is_said_to_have_none() -> None:
    fit = {"exponent": 0.3, "exponent_error": 0.05, "constant": 1.2, "constant_error": None}
    assert law_text(fit, floor=True) == "exponent 0.300 +- 0.050, floor 1.200 (no error)"
    assert law_text(fit | {"constant": -1.2}, floor=True) == (
        "exponent 0.300 +- 0.050, no floor (constant -1.200 (no error))")
    assert law_text(fit | {"exponent": 0.01}, floor=True) == (
        "no estimate: the exponent lies at the edge of those tried, 0.01")
    assert law_text(fit | {"exponent": 0.01, "constant": 0.0}, floor=False) == "exponent 0.010 +- 0.050"
