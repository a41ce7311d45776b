"""The loss of Transformers over their size, at equal tokens, and over the amount of text, at equal updates.

Two laws are fitted with errors, L(N) = a N^-alpha and the same plus a floor c, and tested by predicting the largest
point from the others. N counts weights without those of the vocabulary; for text, target tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from statistics import mean
from typing import Any

import lightning.pytorch as pl
from torch import nn
from typing_extensions import override

from minitx.config.schema import Config
from minitx.data.corpus import load_corpus
from minitx.data.datamodule import TranslationData
from minitx.data.tokenizer import TokenizerPair
from minitx.experiments.costs.complexity import width_of, with_width
from minitx.experiments.costs.dry_run import fit_until_stopped
from minitx.experiments.fits import (
    EXPONENTS,
    Claim,
    Interval,
    confidence_interval,
    fit_law,
    judge,
    law_errors,
    prediction_error,
    undecided,
)
from minitx.models.base import Seq2Seq
from minitx.training.build import build_task, build_trainer, choose_device, choose_precision
from minitx.training.state import RunState
from minitx.training.task import TranslationTask
from minitx.training.validation import Validator
from minitx.utils.console import Console
from minitx.utils.progress import Progress
from minitx.utils.tables import aligned

SETS = ("valid", "test")  # to choose the best update, and to score it
FLOOR = {"power": False, "power and floor": True}
MAX_MISS = 0.02  # of the largest one's loss: how far a prediction may be off
PUBLISHED = [  # of language models, not translation; constant None = a law without a floor
    {"source": "Kaplan et al. 2020 (arXiv:2001.08361), L(N)", "of": "size", "exponent": 0.076, "constant": None},
    {"source": "Kaplan et al. 2020 (arXiv:2001.08361), L(D)", "of": "text", "exponent": 0.095, "constant": None},
    {"source": "Hoffmann et al. 2022 (arXiv:2203.15556), L(N, D)", "of": "size", "exponent": 0.34, "constant": 1.69},
    {"source": "Hoffmann et al. 2022 (arXiv:2203.15556), L(N, D)", "of": "text", "exponent": 0.28, "constant": 1.69},
]


@dataclass(frozen=True)
class Sizes:
    """Which models are trained, on how much text, and for how long."""

    widths: tuple[int, ...] = (16, 24, 32, 48, 64, 96, 128)  # d_model, on all of the text
    pairs: tuple[int, ...] = (500, 1_000, 2_000, 4_000, 8_000, 16_000)  # for a model of `width`
    width: int = 64
    updates: int = 250
    score_every: int = 50  # updates
    seeds: int = 2


SIZES = {"smoke": Sizes(), "full": Sizes(widths=(16, 24, 32, 48, 64, 96, 128, 192, 256), updates=1_500, seeds=3)}


def measure(families: Mapping[str, Config], sizes: Sizes, console: Console) -> dict[str, Any]:
    """Train every model as the config says. families: one, whose width varies"""
    cfg = next(iter(families.values()))
    console.live("reading the text and learning its vocabulary ...")
    corpus = load_corpus(cfg.data)
    tokenizers = TokenizerPair.train(corpus.sample(), cfg.tokenizer.vocab_size, cfg.tokenizer.joint)
    validators = {name: Validator(corpus.pairs(name), tokenizers, cfg.decode, sentences=1, samples=0,
                                  max_tokens=cfg.decode.max_tokens) for name in SETS}
    runs = [(width, cfg.data.train_size) for width in sizes.widths] + [(sizes.width, pairs) for pairs in sizes.pairs]
    progress = Progress(console, sizes.updates * sizes.seeds * sum(update_work(width) for width, _ in runs))
    texts, points = dict[int, TranslationData](), list[dict[str, Any]]()
    for width, pairs in runs:
        data = replace(cfg.data, train_size=pairs)
        if pairs not in texts:
            texts[pairs] = TranslationData(replace(cfg, data=data), load_corpus(data), tokenizers)
        sized = replace(cfg, model=with_width(cfg.model, width))
        points.append(train_model(sized, texts[pairs], tokenizers, validators, sizes, progress))
    laws = {name: {"points": part, "fits": fit_laws([point[x] for point in part], [point["losses"] for point in part])}
            for name, x, part in (("size", "weights", points[:len(sizes.widths)]),
                                  ("text", "text_tokens", points[len(sizes.widths):]))}
    return {"data": cfg.choices.data, "vocab_size": tokenizers.tgt.vocab_size, "optim": asdict(cfg.optim),
            "tokens_per_update": cfg.trainer.tokens_per_update, "laws": laws, "published": PUBLISHED,
            "claims": [asdict(claim) for claim in claims(laws)]}


def train_model(cfg: Config, data: TranslationData, tokenizers: TokenizerPair, validators: Mapping[str, Validator],
                sizes: Sizes, progress: Progress) -> dict[str, Any]:
    """Train a model with each seed, and score it at the update of its lowest validation loss."""
    device, runs = choose_device(cfg.trainer), list[LossRecorder]()
    precision = choose_precision(cfg.trainer, device)
    for seed in range(cfg.seed, cfg.seed + sizes.seeds):
        task = build_task(replace(cfg, seed=seed), tokenizers, RunState(precision=precision,
                                                                        horizon_steps=sizes.updates))
        runs.append(LossRecorder(validators, sizes, progress))
        fit_until_stopped(build_trainer(device, [runs[-1]]), task, data)
    best = [min(run.scores, key=lambda score: score["valid"]) for run in runs]
    return {"d_model": width_of(cfg), "params": sum(p.numel() for p in task.model.parameters()),
            "weights": n_weights(task.model), "text_tokens": sum(window.tgt_tokens for window in data.text.windows),
            "trained_tokens": mean(run.tokens for run in runs), "updates": [score["update"] for score in best],
            "losses": [score["test"] for score in best], "loss": mean(score["test"] for score in best)}


class LossRecorder(pl.Callback):
    """Score the held-out sets every `score_every` updates, and stop after the last one."""

    def __init__(self, validators: Mapping[str, Validator], sizes: Sizes, progress: Progress) -> None:
        """validators: by the names of `SETS`"""
        self.validators, self.sizes, self.progress = validators, sizes, progress
        self.scores: list[dict[str, float]] = []
        self.tokens = 0

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any,
                           batch_idx: int) -> None:
        assert isinstance(pl_module, TranslationTask)
        task, updates = pl_module, self.sizes.updates
        task.state.step += 1
        self.tokens += batch.n_tokens
        if task.state.step % self.sizes.score_every == 0 or task.state.step == updates:
            losses = {name: validator.loss(task, task.model) for name, validator in self.validators.items()}
            self.scores.append({"update": task.state.step, **losses})
        width = task.model.output.in_features
        self.progress(f"d_model {width}: update {task.state.step}/{updates}", update_work(width))
        trainer.should_stop = task.state.step == updates


def n_weights(model: Seq2Seq) -> int:
    """Count the weights of a model without those of the vocabulary."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding) or m is model.output}
    return sum(p.numel() for p in model.parameters() if id(p) not in tables)


def update_work(width: int) -> float:
    """Return about how long an update takes, in arbitrary units: measured on a CPU with two cores."""
    return 32.0 + width


# --- what follows


def fit_laws(n: Sequence[float], losses: Sequence[Sequence[float]]) -> dict[str, dict[str, Any]]:
    """Fit both forms of law, and predict the last loss from the others, for the mean of the seeds and for each.

    losses: of each size, those of its seeds. Errors and intervals are None where the jackknife has none.
    """
    laws, loss = dict[str, dict[str, Any]](), [mean(seeds) for seeds in losses]
    for name, floor in FLOOR.items():
        fit = fit_law(n, loss, floor=floor)._asdict()
        errors, freedom = law_errors(n, loss, floor=floor) or (None, None), len(n) - (3 if floor else 2)
        for what, error in zip(("exponent", "constant"), errors, strict=True):
            fit |= {f"{what}_error": error,
                    f"{what}_interval": None if error is None else confidence_interval(fit[what], error, freedom)}
        laws[name] = fit | {"miss": prediction_error(n, loss, floor=floor),
                            "misses": [prediction_error(n, seed, floor=floor) for seed in zip(*losses, strict=True)]}
    return laws


def claims(laws: Mapping[str, Any]) -> Iterator[Claim]:
    """Decide what is commonly said about scaling. laws: points and fits, by size and by text"""
    for name, of in (("size", "model"), ("text", "text")):
        power, floored = (laws[name]["fits"][form] for form in FLOOR)
        yield judge_exponent(f"the loss falls with the {name}", power, (0.01, inf))
        yield judge_prediction(f"a power of the {name}, fitted to the others, predicts the loss of the largest {of}",
                               power)
        yield judge_prediction(f"a power of the {name} and a floor, fitted to the others, predict it", floored)
    power, floored = (laws["size"]["fits"][form] for form in FLOOR)
    yield judge_exponent("the exponent of size is that of Kaplan et al., 0.076", power, (0.056, 0.096))
    yield judge_exponent("with a floor it is that of Hoffmann et al., 0.34", floored, (0.29, 0.39))
    yield judge_estimate("there is a loss that no size of model goes below, of 0.1 nats a token or more", floored,
                         "constant", (0.1, inf))


def judge_exponent(claim: str, fit: Mapping[str, Any], bounds: Interval) -> Claim:
    """Decide a claim about an exponent."""
    return judge_estimate(claim, fit, "exponent", bounds)


def judge_estimate(claim: str, fit: Mapping[str, Any], what: str, bounds: Interval) -> Claim:
    """Decide a claim about one parameter of a law by its interval."""
    if fit[f"{what}_interval"] is None:
        return undecided(claim, bounds, "a fit that the error is taken from lies at the edge of what is tried")
    return judge(claim, fit[what], fit[f"{what}_interval"], bounds)


def judge_prediction(claim: str, fit: Mapping[str, Any]) -> Claim:
    """Decide whether the prediction of the largest is off by at most `MAX_MISS` of its loss, with every seed."""
    bounds = (-MAX_MISS, MAX_MISS)
    if len(misses := fit["misses"]) < 2:
        return undecided(claim, bounds, f"{fit['miss']:+.3f} with one seed, and how far apart seeds are is not known")
    return judge(claim, fit["miss"], (min(misses), max(misses)), bounds)


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield each model, the fits, and published exponents. found: as `measure` returns it"""
    rows = [["", "d_model", "weights", "tokens of text", "tokens trained on", "loss", "at update"]]
    exponents = list[tuple[str, str, str]]()
    for name in ("size", "text"):
        rows += [[name, str(point["d_model"]), f"{point['weights']:,}", f"{point['text_tokens']:,}",
                  f"{point['trained_tokens']:,.0f}", f"{point['loss']:.3f}", ", ".join(map(str, point["updates"]))]
                 for point in found["laws"][name]["points"]]
        for form, fit in found["laws"][name]["fits"].items():
            exponents.append((name, form, f"{law_text(fit, floor=FLOOR[form])}, leaves {100 * fit['residual']:.2f} % "
                                          f"(rms); fitted to the others it misses the largest by "
                                          f"{100 * fit['miss']:+.2f} %"))
        for other in found["published"]:
            if other["of"] == name:
                floor = "none" if other["constant"] is None else f"{other['constant']:g}"
                exponents.append((name, "published",
                                  f"exponent {other['exponent']:g}, floor {floor}: {other['source']}"))
    yield from aligned(rows)
    yield from aligned(exponents, "<")


def law_text(fit: Mapping[str, Any], *, floor: bool) -> str:
    """Say what a fit to all points found. floor: whether it could have one; a negative constant is none"""
    if fit["exponent"] in EXPONENTS[floor]:
        return f"no estimate: the exponent lies at the edge of those tried, {fit['exponent']:g}"
    exponent = f"exponent {with_error(fit, 'exponent')}"
    if not floor:
        return exponent
    return f"{exponent}, " + (f"floor {with_error(fit, 'constant')}" if fit["constant"] > 0 else
                              f"no floor (constant {with_error(fit, 'constant')})")


def with_error(fit: Mapping[str, Any], what: str) -> str:
    """Return a parameter of a law with its error, if there is one."""
    error = fit[f"{what}_error"]
    return f"{fit[what]:.3f}" + (" (no error)" if error is None else f" +- {error:.3f}")
