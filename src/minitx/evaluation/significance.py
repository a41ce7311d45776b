"""Is one system's BLEU higher than another's, or could the choice of sentences and seeds explain the difference?

- *Paired bootstrap* (Koehn 2004): draw test sentences with replacement, the same for both systems, and, if a system has
  several seeds, the error of their mean from Student's t. The spread of the difference gives an interval and a p-value:
  sacreBLEU's for one run each (about half of the two-sided one), else the two-sided one.
- *Approximate randomisation* (Riezler and Maxwell 2005; over seeds as Clark et al. 2011): if the two were the same, it
  would not matter which of them wrote which translation of a sentence. How often does a random mixture differ as much?

With one seed each, both are sacreBLEU's tests and say nothing about other seeds. A system's BLEU is the mean over its
seeds. Seeds may be paired, where both systems have the same: runs of one seed share the order of sentences and, where
their shapes are equal, the first weights. Then the error is that of the mean of their differences, and only runs of one
seed change places. N sentences, S seeds, R resamples; counts: [S, N, 10], rows as `metrics.with_totals` returns them
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from minitx.evaluation.metrics import LEARNED_BLEU, Counts, Floats, corpus_bleu, with_totals

RESAMPLES = 10_000
AT_ONCE = 500  # resamples in memory
LEVEL = 0.05
POWER_SE = 1.960 + 0.842  # standard errors of a difference that is detected at 5 % eight times in ten
MATTERS = 0.5  # BLEU; a test that may miss a difference this large is underpowered
NEITHER = "neither has learned to translate"


@dataclass(frozen=True)
class Comparison:
    """Hold the difference between two systems, second minus first, in BLEU (0 to 100), and how sure it is."""

    bleu: tuple[float, float]
    seeds: tuple[int, int]  # how many
    sentences: int
    difference: float
    interval: tuple[float, float]  # 95 %, by bootstrap
    p_bootstrap: float
    p_randomisation: float
    detectable: float  # a true difference that is detected eight times in ten
    paired: bool = False  # by seed

    @property
    def verdict(self) -> str:
        """Return "significant" if both tests and the interval agree, else "underpowered" or "not significant".

        Where both systems are below `LEARNED_BLEU`, a difference means nothing, and the verdict is `NEITHER`.
        """
        if max(self.bleu) < LEARNED_BLEU:
            return NEITHER
        beyond_zero = self.interval[0] > 0 or self.interval[1] < 0
        if beyond_zero and max(self.p_bootstrap, self.p_randomisation) < LEVEL:
            return "significant"
        return "underpowered" if self.detectable > MATTERS else "not significant"

    @property
    def which_p(self) -> str | None:
        """Say which p to believe, and why, where one of them alone is below `LEVEL`: the larger. None = they agree."""
        if (self.p_bootstrap < LEVEL) == (self.p_randomisation < LEVEL):
            return None
        several = max(self.seeds) > 1
        if self.p_bootstrap > self.p_randomisation:
            return ("believe the bootstrap: it also asks what other seeds would give, and randomisation takes these "
                    "runs as they are" if several else
                    "believe the bootstrap: it asks what other sentences would give, and randomisation takes these as "
                    "they are")
        return ("believe randomisation: the two resample in different ways, and a difference counts that both find"
                if several else
                "believe randomisation: with one run each the bootstrap's p is one-sided, about half of the other")


def compare(first: npt.ArrayLike, second: npt.ArrayLike, *, resamples: int = RESAMPLES, seed: int = 1,
            paired: bool = False) -> Comparison:
    """Compare two systems on one test set. first, second: [S, N, 6], `metrics.SENTENCE_COLUMNS` of its sentences

    paired: the seeds are the same, in the same order, and several
    """
    first, second = with_totals(first), with_totals(second)
    rng = np.random.Generator(np.random.PCG64(seed))
    bleu = float(corpus_bleu(first.sum(1)).mean()), float(corpus_bleu(second.sum(1)).mean())
    difference = bleu[1] - bleu[0]
    drawn = bootstrap(first, second, resamples, rng, paired)
    mixed = (randomised_pairs if paired else randomised)(first, second, resamples, rng)
    low, high = map(float, np.quantile(drawn, (LEVEL / 2, 1 - LEVEL / 2)))
    if len(first) == len(second) == 1:
        p_bootstrap = _p_value(np.abs(drawn) - np.abs(drawn).mean(), difference)
    else:
        p_bootstrap = min(1.0, 2 * (1 + int(min((drawn <= 0).sum(), (drawn >= 0).sum()))) / (len(drawn) + 1))
    return Comparison(bleu, (len(first), len(second)), first.shape[1], difference, (low, high), p_bootstrap,
                      _p_value(np.abs(mixed), difference), POWER_SE * (high - low) / (2 * 1.960), paired)


def interval(system: npt.ArrayLike, *, resamples: int = RESAMPLES, seed: int = 1) -> tuple[float, float, float]:
    """Return a system's BLEU and its 95 % interval, by bootstrap. system: [S, N, 6], as `compare` takes it"""
    counts, rng = with_totals(system), np.random.Generator(np.random.PCG64(seed))
    drawn = np.concatenate([_over_seeds(bleu, rng) for (bleu,) in _resampled([counts], resamples, rng)])
    low, high = map(float, np.quantile(drawn, (LEVEL / 2, 1 - LEVEL / 2)))
    return float(corpus_bleu(counts.sum(1)).mean()), low, high


def bootstrap(first: Counts, second: Counts, resamples: int, rng: np.random.Generator, paired: bool = False) -> Floats:
    """Resample sentences and the error of the seeds' mean. --> the difference, [R]"""
    return np.concatenate([
        _over_seeds(after - before, rng) if paired else _over_seeds(after, rng) - _over_seeds(before, rng)
        for after, before in _resampled([second, first], resamples, rng)])


def _resampled(systems: Sequence[Counts], resamples: int, rng: np.random.Generator) -> Iterator[list[Floats]]:
    """Yield each system's BLEU on the same draws of sentences, a few hundred draws at a time. --> [r, S] each"""
    n = systems[0].shape[1]
    for size in _portions(resamples):
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=size).astype(float)  # --> [r, N]
        sums = ((drawn @ counts.transpose(1, 0, 2).reshape(n, -1)).reshape(size, len(counts), -1) for counts in systems)
        yield [corpus_bleu(counts) for counts in sums]


def _over_seeds(bleu: Floats, rng: np.random.Generator) -> Floats:
    """Return the mean over seeds plus a draw of its error; few seeds have heavy tails. bleu, or differences: [r, S]"""
    size, seeds = bleu.shape
    mean: Floats = bleu.mean(1)
    if seeds > 1:
        mean += bleu.std(1, ddof=1) / np.sqrt(seeds) * rng.standard_t(seeds - 1, size)
    return mean


def randomised(first: Counts, second: Counts, resamples: int, rng: np.random.Generator) -> Floats:
    """Assign each sentence's translations to the systems' seeds at random. --> the difference, [R]"""
    counts = np.concatenate([first, second]).transpose(1, 0, 2)  # --> [N, S + S', 10]
    n, runs = counts.shape[:2]
    differences = []
    for size in _portions(resamples, runs * 10):
        order = rng.random((size, n, runs)).argsort(-1)
        sums = np.take_along_axis(counts[None], order[..., None], 2).sum(1)  # --> [r, S + S', 10]
        bleu = corpus_bleu(sums)
        differences.append(bleu[:, len(first):].mean(1) - bleu[:, :len(first)].mean(1))
    return np.concatenate(differences)


def randomised_pairs(first: Counts, second: Counts, resamples: int, rng: np.random.Generator) -> Floats:
    """Let the translations of a sentence by runs of one seed change places at random. --> the difference, [R]"""
    seeds, n = first.shape[:2]
    gain, before, after = (second - first).astype(float), first.sum(1), second.sum(1)
    differences = []
    for size in _portions(resamples, seeds):
        changed = (rng.random((size, seeds, n)) < 0.5).astype(float)
        moved = np.einsum("rsn,snk->rsk", changed, gain)
        differences.append(corpus_bleu(after - moved).mean(1) - corpus_bleu(before + moved).mean(1))
    return np.concatenate(differences)


def _portions(resamples: int, width: int = 1) -> list[int]:
    """Return the sizes of blocks of resamples that fit in memory. width: numbers per resample, as a multiple"""
    most = max(1, AT_ONCE // width)
    return [min(most, resamples - done) for done in range(0, resamples, most)]


def _p_value(deviations: Floats, difference: float) -> float:
    """Return the share of deviations this large, counting the observed one (as sacreBLEU does, except for ties)."""
    return float((np.sum(deviations >= abs(difference)) + 1) / (len(deviations) + 1))


def rounded(p: float, places: int) -> str:
    """Write a p-value, which is never 0."""
    least = 10.0 ** -places
    return f"{p:.{places}f}" if p >= least else f"< {least:.{places}f}"
