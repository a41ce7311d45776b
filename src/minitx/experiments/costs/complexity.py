"""How the time of one micro-batch grows with sentence length and with width, family by family.

A micro-batch is forward, loss and backward, without the optimizer. All hold the same number of tokens, so a family
whose work is linear in the length takes equally long at every length, except for steps that wait for one another.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import product
from math import log
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minitx.config.schema import Config, ModelConfig
from minitx.data.batch import Batch, collate
from minitx.data.corpus import load_corpus
from minitx.data.tokenizer import N_SPECIALS, TokenizerPair
from minitx.experiments.fits import fit_line
from minitx.profiling.peak import Peak, peak, synchronize
from minitx.profiling.provenance import environment, git_state, hardware, versions
from minitx.profiling.utilisation import Watch
from minitx.training.build import build_task, build_tokenizers, choose_device, choose_precision
from minitx.training.state import RunState
from minitx.training.task import TranslationTask, seed_dropout
from minitx.utils.console import Console
from minitx.utils.errors import UserError
from minitx.utils.progress import Progress


@dataclass(frozen=True)
class Grid:
    """Points to measure: every length at the config's own width, and every width at one length."""

    lengths: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    widths: tuple[int, ...] = (128, 256, 512, 1024)
    length: int = 32  # at which the width varies
    tokens: int = 4096  # target tokens a micro-batch, and as many source tokens
    repeats: int = 9  # after one round of warm-up


FULL, QUICK = Grid(), Grid(lengths=(16, 32, 64), widths=(128, 256), repeats=3)


@dataclass(eq=False)
class TimedBatch:
    """One family's micro-batch of sentences of one length on both sides, and the seconds of each round."""

    name: str
    task: TranslationTask
    batch: Batch
    length: int
    d_model: int
    seconds: list[float] = field(default_factory=list)

    @property
    def sentences(self) -> int:
        """The number of sentences in the batch."""
        return self.batch.n_tokens // self.length

    @cached_property
    def flop(self) -> float | None:
        """Operations on real tokens, the backward pass counted as two forward ones; None = the family counts none."""
        lengths = np.full(self.sentences, self.length)
        forward = self.task.model.flops(lengths, lengths)
        return None if forward is None else 3 * forward

    def time_once(self) -> None:
        """Run the batch as `TranslationTask.training_step` does, and add its seconds to the list."""
        device = self.task.device
        seed_dropout(len(self.seconds))
        synchronize(device)
        began = perf_counter()
        self.loss().backward()
        synchronize(device)
        self.seconds.append(perf_counter() - began)
        self.task.zero_grad()

    def loss(self) -> Tensor:
        """Run the batch forwards. --> its loss a token"""
        model = self.task.model
        batch = self.batch.to(model.output.weight.device)
        loss_sum, _ = self.task.losses(model, batch, self.task.optim.label_smoothing)
        return loss_sum / self.batch.n_tokens

    def record(self, device_peak: Peak) -> dict[str, Any]:
        """Return median, extremes and rates of all rounds but the first."""
        measured = self.seconds[1:]
        seconds, flop = median(measured), self.flop
        return {"length": self.length, "d_model": self.d_model, "sentences": self.sentences,
                "params": sum(p.numel() for p in self.task.model.parameters()),
                "seconds": seconds, "fastest_s": min(measured), "slowest_s": max(measured),
                "sentence_s": seconds / self.sentences, "token_s": seconds / self.batch.n_tokens, "flop": flop,
                "tflops": None if flop is None else 1e-12 * flop / seconds,
                "mfu_pct": device_peak.mfu_pct(flop, seconds)}


class FamilyBenchmark:
    """Time families side by side on this machine. Nothing is written."""

    def __init__(self, families: Mapping[str, Config], grid: Grid, console: Console) -> None:
        """families: resolved configs by name that differ only in the model"""
        self.families, self.grid, self.console = families, grid, console
        self.cfg = next(iter(families.values()))
        self.device = choose_device(self.cfg.trainer)
        self.precision = choose_precision(self.cfg.trainer, self.device)

    def measure(self) -> dict[str, Any]:
        """Return conditions, points and fits, ready for JSON.

        Errors: `UserError` for a config that does not allow these models, or a GPU too small for them.
        """
        self.console.live("reading the text and learning its vocabulary ...")
        tokenizers = self.tokenizers()
        points = list(self.points(tokenizers))
        device_peak = peak(self.device, self.precision)
        other_cpu_pct = self.time_all(points)
        records = {(point.name, point.length, point.d_model): point.record(device_peak) for point in points}
        by_length, by_width = dict[str, Any](), dict[str, Any]()
        for name, cfg in self.families.items():
            at_own = [records[name, length, width_of(cfg)] for length in self.grid.lengths]
            at_one = [records[name, self.grid.length, width] for width in self.grid.widths]
            by_length[name] = fit_curve(at_own, "length", "sentence_s")
            by_width[name] = fit_curve(at_one, "d_model", "token_s")
        return {"conditions": self.conditions(tokenizers, device_peak) | {"other_cpu_pct": other_cpu_pct},
                "models": {name: asdict(cfg.model) for name, cfg in self.families.items()},
                "by_length": by_length, "by_width": by_width}

    def conditions(self, tokenizers: TokenizerPair, device_peak: Peak) -> dict[str, Any]:
        """Return what the measured times depend on: machine, settings, code."""
        git_sha, git_dirty = git_state()
        return {"device": str(self.device), "precision": self.precision, "threads": torch.get_num_threads(),
                "data": self.cfg.choices.data, "vocab_size": [tokenizers.src.vocab_size, tokenizers.tgt.vocab_size],
                "tokens": self.grid.tokens, "repeats": self.grid.repeats, "peak_tflops": device_peak.tflops,
                "peak_source": device_peak.source, "git_sha": git_sha, "git_dirty": git_dirty,
                "versions": versions(), "hardware": hardware(self.device), "environment": environment()}

    def tokenizers(self) -> TokenizerPair:
        """Learn the vocabulary as a run would: its size decides what embeddings and loss cost."""
        with TemporaryDirectory() as folder:
            return build_tokenizers(self.cfg, load_corpus(self.cfg.data), Path(folder))

    def points(self, tokenizers: TokenizerPair) -> Iterator[TimedBatch]:
        """Build every model once, and yield the batches to time: by length, then by width, then by family."""
        tasks = {(name, width): self.task(cfg, width, tokenizers)
                 for name, cfg in self.families.items() for width in sorted({width_of(cfg), *self.grid.widths})}
        for length in sorted({*self.grid.lengths, self.grid.length}):
            batch = random_batch(self.grid.tokens, length, tokenizers)
            for (name, width), task in sorted(tasks.items(), key=lambda item: item[0][1]):
                own = width == width_of(self.families[name])
                if own and length in self.grid.lengths or width in self.grid.widths and length == self.grid.length:
                    yield TimedBatch(name, task, batch, length, width)

    def task(self, cfg: Config, width: int, tokenizers: TokenizerPair) -> TranslationTask:
        """Build the family's model at a width, in training mode."""
        self.console.live(f"building {cfg.choices.model} of d_model {width:,} ...")
        model = with_width(cfg.model, width)
        model.check(cfg.data)
        state = RunState(precision=self.precision)
        task = build_task(replace(cfg, model=model, init_from=None), tokenizers, state)
        limits = [limit for limit in (task.model.max_source_length, task.model.max_target_length) if limit is not None]
        if limits and min(limits) < max(self.grid.lengths):
            raise UserError(f"model={cfg.choices.model}: reads at most {min(limits):,} tokens, and sentences of up to "
                            f"{max(self.grid.lengths):,} are timed; raise model.max_positions")
        return task.to(self.device).train()

    def time_all(self, points: list[TimedBatch]) -> float | None:
        """Time every batch once a round, so that a machine that slows down slows all of them.

        Returns the share of the cores that other processes took meanwhile, in %; None = unknown.
        """
        total = 1 + self.grid.repeats
        progress = Progress(self.console, total * sum(point.flop or 1.0 for point in points))
        try:
            with Watch(self.device) as watch:
                for number, point in product(range(1, total + 1), points):
                    point.time_once()
                    progress(f"round {number}/{total}: {point.name}, {point.sentences} sentences of {point.length} "
                             f"tokens, d_model {point.d_model}", point.flop or 1.0)
                return watch.usage().other_cpu_pct
        except torch.OutOfMemoryError as error:
            raise UserError(f"the GPU is too small for {self.grid.tokens:,} tokens of the largest model; lower "
                            "model.num_layers, or set trainer.accelerator=cpu") from error


def width_of(cfg: Config) -> int:
    """Return the d_model of a resolved config."""
    assert cfg.model.d_model is not None
    return cfg.model.d_model


def with_width(model: ModelConfig, d_model: int) -> ModelConfig:
    """Scale all widths of a model with its d_model; heads keep their width and grow in number, the depth stays.

    So families keep the ratio of their parameters, apart from those of the vocabulary.
    """
    assert model.d_model is not None
    scale = d_model / model.d_model
    widths: dict[str, int] = {name: getattr(model, name) for name in model.sizes[model.size] if name != "num_layers"}
    grown = {name: max(1, round(width * scale)) if name == "n_heads" else 2 * max(1, round(width * scale / 2))
             for name, width in widths.items()}
    return replace(model, **grown | {"d_model": d_model})  # type: ignore[arg-type]


def random_batch(tokens: int, length: int, tokenizers: TokenizerPair) -> Batch:
    """Draw `tokens // length` pairs of sentences of `length` tokens, EOS included, and pack them as in training."""
    rng, ids = np.random.default_rng(0), tokenizers.tgt
    src, tgt = (rng.integers(N_SPECIALS, side.vocab_size, (tokens // length, length - 1)).tolist()
                for side in (tokenizers.src, tokenizers.tgt))
    return collate(src, tgt, pad_id=ids.pad_id, bos_id=ids.bos_id, eos_id=ids.eos_id, recurring=True)


def fit_curve(points: list[dict[str, Any]], x: str, y: str) -> dict[str, Any]:
    """Fit a power law to y over x, and take the exponent of the last step by itself."""
    xs, ys = ([float(point[name]) for point in points] for name in (x, y))
    exponent, error = power_law(xs, ys)
    last = log(ys[-1] / ys[-2]) / log(xs[-1] / xs[-2])
    return {"x": x, "y": y, "exponent": exponent, "standard_error": error, "last_exponent": last, "points": points}


def power_law(x: Sequence[float], y: Sequence[float]) -> tuple[float, float | None]:
    """Fit y = c x^a by least squares of the logarithms.

    Returns a and its standard error; the error is None for two points, which leave no residual.
    """
    log_x, log_y = list(map(log, x)), list(map(log, y))
    if len(x) < 3:
        return (log_y[1] - log_y[0]) / (log_x[1] - log_x[0]), None
    fit = fit_line(log_x, log_y)
    return fit.slope, fit.standard_error
