"""What an update of a config should take on a GPU that is not here: a prediction, whose error `validation.py` gives."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import ceil

import numpy as np
import torch

from minitx.config.schema import Config
from minitx.data.batching import epoch_plan
from minitx.experiments.prediction.update import record_update, vocabulary
from minitx.models.base import Seq2Seq
from minitx.models.registry import build_model
from minitx.profiling.devices import Device
from minitx.profiling.fleet import Fleet
from minitx.profiling.kernels import Kernel
from minitx.profiling.limits import seconds_by_limit
from minitx.profiling.timeline import Constants, Model, Pace, Timeline, peak_flops, timeline

FORMATS = {"bf16-mixed": "half", "bf16-true": "half", "16-mixed": "half", "32-true": "float", "64-true": "double"}
WEIGHT_BYTES = {"bf16-true": 2, "bf16-mixed": 4, "16-mixed": 4, "32-true": 4, "64-true": 8}  # of one, or its gradient
# Standard deviation of the logarithm of predicted over published speeds: trainings on A100, constants of V100. It is
# what `minitx study gpu` finds ("v100 to a100" in results/studies/gpu.json).
EXPECTED_ERROR = 0.15


@dataclass(frozen=True)
class Work:
    """One update of one GPU: what it launches, and what that is worth."""

    kernels: Sequence[Kernel]  # of the GPU that has most to do
    tgt_tokens: float  # the mean of all GPUs
    flop: float | None  # of products on real tokens, the mean of all GPUs; None = the family does not count them
    params: int
    gradient_bytes: float  # that GPUs exchange
    precision: str  # as of `trainer.precision`


@dataclass(frozen=True)
class Speed:
    """An update as predicted, of one GPU or of several that share the work of several."""

    gpus: int
    seconds: float
    one: Timeline  # of one GPU's share
    graphed: Timeline  # the same, launched as a CUDA graph: the host is never waited for
    tgt_tokens_per_s: float
    mfu_pct: float | None
    graphed_s: float  # of an update launched as a CUDA graph, by all GPUs
    by_limit_s: dict[str, float]  # seconds of one GPU's share by what they are lost to

    @property
    def busy_pct(self) -> float:
        """Return the share of the time in which some kernel runs, in %, at most: the waits of small kernels count."""
        return 100 * self.one.busy_s / self.seconds

    @property
    def surely_busy_pct(self) -> float:
        """Return the same at least."""
        return 100 * self.one.surely_busy_s / self.seconds

    @property
    def occupied_pct(self) -> float:
        """Return the mean share of the multiprocessors that have work, in %."""
        return 100 * self.one.occupied_s / self.seconds


def precision_on(cfg: Config, device: Device) -> str:
    """Return the number format that a training takes there."""
    if cfg.trainer.precision != "auto":
        return cfg.trainer.precision
    return "bf16-mixed" if device.has_bf16 else "32-true"


def work(cfg: Config, device: Device, sentences: int, length: int, precision: str, gpus: int = 1) -> Work:
    """Record what one of several GPUs does of an update of `sentences` of `length` tokens on both sides, EOS included.

    Two micro-batches are recorded at most: the others launch what the second does. Errors: as in `micro_batches`
    """
    sizes = micro_batches(cfg, sentences, length, gpus)
    turns = ceil(len(sizes) / gpus)
    kernels = repeated(record_update(cut_after(cfg, max(sizes), length), min(turns, 2) * max(sizes), length, length,
                                     precision=precision, capability=device.capability), turns)
    model, lengths = without_weights(cfg), np.full(sentences, length)
    forward, params = model.flops(lengths, lengths), sum(p.numel() for p in model.parameters())
    size = 2 if cfg.trainer.compress == "bf16" else WEIGHT_BYTES[precision]
    return Work(kernels, sentences * length / gpus, None if forward is None else 3 * forward / gpus, params,
                size * params, precision)


def without_weights(cfg: Config) -> Seq2Seq:
    """Build a config's model on a device that holds no numbers."""
    with torch.device("meta"):
        return build_model(cfg.model, src_vocab_size=vocabulary(cfg), tgt_vocab_size=vocabulary(cfg))


def micro_batches(cfg: Config, sentences: int, length: int, gpus: int = 1) -> list[int]:
    """Return the sentences of each micro-batch of an update. Errors: `UserError` if one fits no micro-batch"""
    lengths = np.full(sentences, length)
    update, = epoch_plan(lengths, lengths, tokens_per_update=sentences * length, max_tokens=cfg.data.max_tokens,
                         pad_to_multiple=cfg.data.pad_to_multiple, seed=cfg.seed, epoch=0,
                         min_micro_batches=gpus)
    return [len(micro_batch.rows) for micro_batch in update.micro_batches]


def cut_after(cfg: Config, sentences: int, length: int) -> Config:
    """Return the config with micro-batches of as many sentences of `length` tokens as these."""
    width = ceil(length / cfg.data.pad_to_multiple) * cfg.data.pad_to_multiple
    return replace(cfg, data=replace(cfg.data, max_tokens=sentences * width))


def repeated(kernels: Sequence[Kernel], turns: int) -> Sequence[Kernel]:
    """Return the kernels of an update of so many micro-batches, given those of one of at most two.

    The first differs from all that follow, which add to its gradients.
    """
    if turns <= 2:
        return kernels
    phases = [kernel.phase for kernel in kernels]
    begin = phases.index("forward", phases.index("backward"))
    end = len(phases) - phases[::-1].index("backward")
    return [*kernels[:end], *chain.from_iterable([kernels[begin:end]] * (turns - 2)), *kernels[end:]]


def predict_speed(done: Work, device: Device, gpus: int = 1, constants: Constants | None = None,
                  fleet: Fleet | None = None) -> Speed:
    """Predict an update in which each of several GPUs does such work. fleet: default, as published trainings lost"""
    constants, fleet = constants or Constants(), fleet or Fleet(device)
    tf32 = torch.get_float32_matmul_precision() != "highest"
    eager, graph = (Pace(device, constants, Model(host=host), tf32) for host in (True, False))
    one, graphed = timeline(done.kernels, eager), timeline(done.kernels, graph)
    seconds, graphed_s = (fleet.update_s(found.seconds, done.gradient_bytes, done.params, gpus)
                          for found in (one, graphed))
    peak, _ = peak_flops(device, FORMATS[done.precision], tf32)
    return Speed(gpus, seconds, one, graphed, gpus * done.tgt_tokens / seconds,
                 None if done.flop is None else 100 * done.flop / seconds / peak, graphed_s,
                 seconds_by_limit(done.kernels, eager, one))
