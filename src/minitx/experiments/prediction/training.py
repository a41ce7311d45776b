"""What a whole training should take on GPUs that are not here: the updates that end it, times the seconds of one."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, exp

from minitx.config.schema import Config
from minitx.experiments.prediction.speed import (
    EXPECTED_ERROR,
    WEIGHT_BYTES,
    Speed,
    Work,
    micro_batches,
    precision_on,
    predict_speed,
    work,
)
from minitx.profiling.devices import Device
from minitx.profiling.timeline import FAST, SLOW, Constants
from minitx.utils.errors import Exit, UserError

SENTENCE = 30  # tokens on either side, EOS included: about the mean of news text


@dataclass(frozen=True)
class Estimate:
    """A training as predicted: evaluation, checkpoints and reading the text are left out."""

    cfg: Config
    device: Device
    length: int  # tokens of a sentence
    sentences: int  # of an update
    micro_batches: int  # of an update, all GPUs together
    work: Work
    speed: Speed
    fast: Speed  # with the fastest host, and the fastest small kernels, that are likely
    slow: Speed  # with the slowest
    updates: float | None  # None = it cannot be told when the training ends
    ended_by: str  # the key that ends it

    @property
    def turns(self) -> int:
        """Return the micro-batches that the GPU with most of them runs through, one after the other."""
        return ceil(self.micro_batches / self.speed.gpus)

    @property
    def hours(self) -> float | None:
        """Return the hours of all updates."""
        return None if self.updates is None else self.updates * self.speed.seconds / 3600

    @property
    def factors(self) -> tuple[float, float]:
        """Return the factors on `speed.seconds` in between which an update should be.

        To the interval of the error of predictions is added what they do not test: how fast host and small kernels are.
        """
        error = exp(1.96 * EXPECTED_ERROR)
        return self.fast.seconds / self.speed.seconds / error, self.slow.seconds / self.speed.seconds * error

    @property
    def state_bytes(self) -> float:
        """Return the bytes of weights, gradients, two moments and, if it is kept, the moving average on one GPU."""
        copies = 4 + (self.cfg.optim.ema_decay is not None)
        return copies * WEIGHT_BYTES[self.work.precision] * self.work.params


def estimate(cfg: Config, device: Device, gpus: int = 1, length: int = SENTENCE) -> Estimate:
    """Predict a training that shares each of its updates among several GPUs. cfg: resolved

    Errors: `UserError` for sentences that fit no micro-batch, fewer of them in an update than there are GPUs, a
    model whose parts are spread over GPUs, compiled code, and layers to be computed again in a family that has none.
    """
    if cfg.trainer.strategy != "ddp" and gpus > 1:
        raise UserError(f"trainer.strategy={cfg.trainer.strategy}: its exchange is not predicted yet; leave it out")
    if cfg.trainer.compile:
        raise UserError("trainer.compile=true: what compiled code launches is not predicted yet; leave it out")
    sentences = max(1, round(cfg.trainer.tokens_per_update / length))
    check_shares(cfg, gpus, sentences, length)
    done = work(cfg, device, sentences, length, precision_on(cfg, device), gpus)
    speed, fast, slow = (predict_speed(done, device, gpus, constants) for constants in (Constants(), FAST, SLOW))
    updates, ended_by = end(cfg, speed.seconds, None if done.flop is None else gpus * done.flop)
    return Estimate(cfg, device, length, sentences, len(micro_batches(cfg, sentences, length, gpus)), done, speed, fast,
                    slow, updates, ended_by)


def check_shares(cfg: Config, gpus: int, sentences: int, length: int) -> None:
    """Refuse sentences that fit no micro-batch, and fewer of them than GPUs. Errors: `UserError`"""
    if (width := ceil(length / cfg.data.pad_to_multiple) * cfg.data.pad_to_multiple) > cfg.data.max_tokens:
        raise UserError(f"data.max_tokens={cfg.data.max_tokens}: a sentence of {length} tokens takes {width} padded "
                        "positions; raise it to that, or lower --length", Exit.DATA)
    if sentences < gpus:
        raise UserError(f"trainer.tokens_per_update={cfg.trainer.tokens_per_update}: an update has {sentences} "
                        f"sentences of {length} tokens, so some of {gpus} GPUs would never work; raise it, or take "
                        "fewer")


def end(cfg: Config, update_s: float, update_flop: float | None) -> tuple[float | None, str]:
    """Return after how many updates a training ends, and the key that says so; None if its text decides."""
    trainer = cfg.trainer
    ends: Mapping[str, float | None] = {
        "max_steps": trainer.max_steps,
        "max_minutes": trainer.max_minutes and 60 * trainer.max_minutes / update_s,
        "max_pflop": trainer.max_pflop and update_flop and 1e15 * trainer.max_pflop / update_flop}
    known = {key: updates for key, updates in ends.items() if updates is not None}
    if not known:
        return None, ""
    key = min(known, key=known.__getitem__)
    return known[key], f"trainer.{key}={getattr(trainer, key)}"
