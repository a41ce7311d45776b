"""What an update of a config should take on a GPU that is not here: a prediction, whose error `validation.py` gives."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from minitx.config.schema import Config
from minitx.experiments.prediction.update import record_update, vocabulary
from minitx.models.registry import build_model
from minitx.profiling.devices import Device
from minitx.profiling.fleet import Fleet
from minitx.profiling.kernels import Kernel
from minitx.profiling.timeline import Constants, Model, Pace, Timeline, peak_flops, timeline

FORMATS = {"bf16-mixed": "half", "bf16-true": "half", "16-mixed": "half", "32-true": "float", "64-true": "double"}


@dataclass(frozen=True)
class Work:
    """One update of one GPU: what it launches, and what that is worth."""

    kernels: Sequence[Kernel]
    tgt_tokens: int
    flop: float | None  # of products on real tokens; None = the family does not count them
    params: int
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

    @property
    def busy_pct(self) -> float:
        """Return the share of the time in which some kernel runs, in %."""
        return 100 * self.one.busy_s / self.seconds

    @property
    def occupied_pct(self) -> float:
        """Return the mean share of the multiprocessors that have work, in %."""
        return 100 * self.one.occupied_s / self.seconds


def precision_on(cfg: Config, device: Device) -> str:
    """Return the number format that a training takes there."""
    if cfg.trainer.precision != "auto":
        return cfg.trainer.precision
    return "bf16-mixed" if device.has_bf16 else "32-true"


def work(cfg: Config, device: Device, sentences: int, length: int, precision: str) -> Work:
    """Record an update of `sentences` of `length` tokens on both sides, EOS included."""
    kernels = record_update(cfg, sentences, length, length, precision=precision, capability=device.capability)
    with torch.device("meta"):
        model = build_model(cfg.model, src_vocab_size=vocabulary(cfg), tgt_vocab_size=vocabulary(cfg))
    lengths = np.full(sentences, length)
    forward = model.flops(lengths, lengths)
    return Work(kernels, sentences * length, None if forward is None else 3 * forward,
                sum(p.numel() for p in model.parameters()), precision)


def predict_speed(done: Work, device: Device, gpus: int = 1, constants: Constants | None = None) -> Speed:
    """Predict an update in which each of several GPUs does such work."""
    constants = constants or Constants()
    tf32 = torch.get_float32_matmul_precision() != "highest"
    one, graphed = (timeline(done.kernels, Pace(device, constants, Model(host=host), tf32)) for host in (True, False))
    seconds = Fleet(device).update_s(one.seconds, 4 * done.params, gpus)
    peak, _ = peak_flops(device, FORMATS[done.precision], tf32)
    return Speed(gpus, seconds, one, graphed, gpus * done.tgt_tokens / seconds,
                 None if done.flop is None else 100 * done.flop / seconds / peak)
