"""Two systems compared: sacreBLEU's own verdict for two runs, and seeds counted where there are several."""

from random import Random

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.significance import PairedTest

from minitx.evaluation.metrics import bleu_from_sentences, sentence_statistics
from minitx.evaluation.significance import NEITHER, Comparison, compare, rounded

WORDS = ["the", "old", "dog", "sees", "a", "small", "cat", "and", "runs", "to", "every", "house", "near", "our"]


def texts(seed: int, errors: tuple[float, ...], n: int = 200) -> tuple[list[list[str]], list[str]]:
    """Write references, and for each system a copy with so many of its words replaced."""
    draw = Random(seed)
    references = [[draw.choice(WORDS) for _ in range(draw.randint(4, 20))] for _ in range(n)]
    systems = [[" ".join(draw.choice(WORDS) if draw.random() < share else word for word in words)
                for words in references] for share in errors]
    return systems, [" ".join(words) for words in references]


def rows(seed: int, *errors: float, n: int = 200) -> list[list[list[int]]]:
    systems, references = texts(seed, errors, n)
    return [sentence_statistics(system, references) for system in systems]


@pytest.mark.parametrize(("errors", "seed"), [
    ((0.30, 0.32), 1), *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        ((0.30, 0.34), 2), ((0.3, 0.4), 3), ((0.5, 0.5), 4)))])
def test_one_run_against_one_has_sacrebleu_s_p_values(errors: tuple[float, float], seed: int) -> None:
    systems, references = texts(seed, errors)
    found = compare(*[[sentence_statistics(system, references)] for system in systems], resamples=4_000)
    for kind, mine in (("bs", found.p_bootstrap), ("ar", found.p_randomisation)):
        theirs = PairedTest([("a", systems[0]), ("b", systems[1])], {"BLEU": BLEU(references=[references])}, None,
                            test_type=kind, n_samples=2_000)()[1]["BLEU"][1]
        p = theirs.p_value
        assert p is not None
        error = 4 * np.sqrt(max(p * (1 - p), 1e-3) / 2_000) + 1e-3  # of the resampling of both, four deviations
        assert mine == pytest.approx(p, abs=error), kind
    assert found.difference == pytest.approx(
        bleu_from_sentences(sentence_statistics(systems[1], references))
        - bleu_from_sentences(sentence_statistics(systems[0], references)))


def test_a_large_difference_is_significant_and_its_interval_holds_it() -> None:
    worse, better = rows(5, 0.5, 0.2)
    found = compare([worse], [better])
    assert found.verdict == "significant"
    assert 0 < found.interval[0] < found.difference < found.interval[1]
    back = compare([better], [worse])
    assert back.difference == -found.difference


def test_a_system_does_not_differ_from_itself() -> None:
    same, = rows(6, 0.3)
    found = compare([same], [same])
    assert (found.difference, found.p_bootstrap, found.p_randomisation) == (0, 1, 1)
    assert found.verdict == "not significant"


def test_what_few_sentences_cannot_show_is_underpowered() -> None:
    few = rows(7, 0.30, 0.31, n=40)
    found = compare([few[0]], [few[1]], resamples=2_000)
    assert found.verdict == "underpowered"
    assert found.detectable > 0.5


def test_seeds_that_scatter_widen_the_interval_and_take_the_verdict_back() -> None:
    scattered = rows(8, 0.20, 0.32, 0.44, 0.28, 0.40, 0.52)
    first, second = scattered[:3], scattered[3:]
    alone = compare(first[1:2], second[1:2], resamples=2_000)
    found = compare(first, second, resamples=2_000)
    assert alone.verdict == "significant", "of these two runs' sentences"
    assert found.seeds == (3, 3)
    assert found.p_bootstrap > 0.05
    assert np.diff(found.interval) > 2 * np.diff(alone.interval)
    assert found.bleu[0] == pytest.approx(np.mean([bleu_from_sentences(run) for run in first]))


def test_seeds_widen_by_what_seeds_vary() -> None:
    """With one kind of sentence alone, what is left is the mean of four seeds: its error is sd / 2, and t has 3.18."""
    line = [10, 10, 9, 7, 5, 3]
    worse = [10, 10, 7, 5, 3, 1]
    runs = [[line] * k + [worse] * (40 - k) for k in (10, 20, 30, 40)]
    bleus = [bleu_from_sentences(run) for run in runs]
    same = [[[*line]] * 40] * 4
    found = compare([[line] * 40], runs, resamples=20_000)
    error = np.std(bleus, ddof=1) / 2
    assert np.diff(found.interval)[0] / 2 == pytest.approx(3.18 * error, rel=0.15)
    assert compare(same, same).difference == 0


@pytest.mark.slow
def test_without_a_difference_one_test_in_twenty_finds_one() -> None:
    found = [compare([a], [b], resamples=300, seed=seed) for seed in range(60)
             for a, b in [rows(seed, 0.3, 0.3, n=100)]]
    for false in (sum(result.p_randomisation < 0.05 for result in found),
                  sum(result.verdict == "significant" for result in found)):
        assert false <= 8, "three in sixty, and some luck"


@pytest.mark.parametrize(("p", "told"), [(1.0, "1.000"), (0.0512, "0.051"), (0.001, "0.001"), (0.0009, "< 0.001")])
def test_no_p_is_nothing(p: float, told: str) -> None:
    assert rounded(p, 3) == told


def test_seeds_that_both_systems_have_may_be_paired() -> None:
    """Seeds scatter far more than the systems differ, but in each of them the second is better."""
    scattered = [rows(7, error, error - 0.08) for error in (0.2, 0.25, 0.3, 0.35, 0.4, 0.45)]
    first, second = ([pair[side] for pair in scattered] for side in (0, 1))
    apart, paired = compare(first, second, resamples=2_000), compare(first, second, resamples=2_000, paired=True)
    assert (apart.difference, apart.bleu) == (paired.difference, paired.bleu)
    assert (apart.paired, paired.paired) == (False, True)
    assert paired.interval[0] > 0 > apart.interval[0]
    assert paired.verdict == "significant" != apart.verdict
    same = compare(first, first, resamples=500, paired=True)
    assert (same.difference, same.interval, same.p_randomisation) == (0, (0, 0), 1)


def test_pairs_of_one_seed_are_those_of_one_run_each() -> None:
    """The two ways to mix translations are the same where there is one seed."""
    worse, better = rows(8, 0.34, 0.3)
    apart, paired = (compare([worse], [better], resamples=4_000, paired=choice) for choice in (False, True))
    assert paired.p_randomisation == pytest.approx(apart.p_randomisation, abs=0.03)
    assert paired.p_bootstrap == apart.p_bootstrap


# --- what to make of it


def of_tokens(*matched: int, n: int = 100) -> list[list[int]]:
    """Sentences of ten tokens, all alike but for a few without a match, so that resampling has something to draw."""
    return [[10, 10, *(matched if i % 5 else (0, 0, 0, 0))] for i in range(n)]


def test_where_neither_has_learned_no_difference_is_significant() -> None:
    found = compare([of_tokens(1, 0, 0, 0)], [of_tokens(2, 0, 0, 0)])
    assert max(found.bleu) < 1
    assert max(found.p_bootstrap, found.p_randomisation) < 0.05, "by the tests alone it would be"
    assert found.verdict == NEITHER
    assert compare([of_tokens(1, 0, 0, 0)], [of_tokens(9, 8, 7, 6)]).verdict == "significant", "one of them has"


def test_runs_that_scatter_more_than_sentences_do_are_not_judged_by_their_sentences() -> None:
    """Randomisation finds that these runs' outputs differ; the bootstrap, that runs of other seeds need not."""
    scattered = rows(8, 0.20, 0.32, 0.44, 0.28, 0.40, 0.52)
    found = compare(scattered[:3], scattered[3:], resamples=2_000)
    assert found.p_randomisation < 0.05 < found.p_bootstrap
    assert str(found.which_p).startswith("believe the bootstrap: it also asks what other seeds would give")


@pytest.mark.parametrize(("bootstrap", "randomisation", "seeds", "which"), [
    (0.04, 0.06, 1, "believe randomisation: with one run each the bootstrap's p is one-sided"),
    (0.06, 0.04, 1, "believe the bootstrap: it asks what other sentences would give"),
    (0.06, 0.04, 3, "believe the bootstrap: it also asks what other seeds"),
    (0.04, 0.06, 3, "believe randomisation: the two resample in different ways"),
    (0.04, 0.001, 3, None), (0.06, 0.9, 1, None)])
def test_of_two_p_that_disagree_the_larger_is_believed(bootstrap: float, randomisation: float, seeds: int,
                                                       which: str | None) -> None:
    found = Comparison((20.0, 21.0), (seeds, seeds), 100, 1.0, (0.1, 1.9), bootstrap, randomisation, 2.0)
    assert found.which_p is None if which is None else str(found.which_p).startswith(which)
    assert found.verdict == ("significant" if max(bootstrap, randomisation) < 0.05 else "underpowered")
