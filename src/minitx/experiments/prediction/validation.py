"""Predictions beside what others published: errors on trainings that no constant was fitted on, and what each part is
worth.

The code that was timed in 2020 is not ours: it padded sentences and kept attention's probabilities. So all rows are
predicted from kernels as our code launches them on a V100, which comes nearest.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from math import log
from statistics import median

import numpy as np

from minitx.config.compose import compose
from minitx.experiments.prediction.calibration import Floats, fit
from minitx.experiments.prediction.published import Training
from minitx.experiments.prediction.speed import without_weights
from minitx.experiments.prediction.update import record_update
from minitx.profiling.devices import by_name
from minitx.profiling.fleet import Fleet, mean_largest
from minitx.profiling.kernels import Kernel
from minitx.profiling.timeline import WHOLE, Constants, Model, Pace, timeline
from minitx.training.launch import resolve

PADDED = 7, 0  # capability of the path that pads
LOOP = "gnmt_cell_loop"  # was timed in TensorFlow, whose loop waits before each kernel
GPUS_OF_A_MACHINE = 16  # at most: a DGX-2
GUESS = Constants(tensor_intensity=20.0, plain_intensity=10.0, memory=0.8, product_us=5.0, kernel_us=2.0, step_us=10.0)
NO_LOSS = {"exposed": 0.0, "uneven": 0.0, "parameter_s": 0.0}
WITHOUT = {"tiles and waves": Model(tiles=False), "bytes": Model(memory=False), "the cache": Model(cache=False),
           "floors of kernels": Model(floors=False), "the host": Model(host=False)}


@dataclass(frozen=True)
class Fitted:
    """The constants of a prediction: of kernels, of TensorFlow's loop, and of several GPUs."""

    kernels: Constants
    loop: Constants
    fleet: Mapping[str, float]  # exposed, uneven and parameter_s of `Fleet`


@dataclass(frozen=True)
class Prediction:
    """A published training, and how long its updates should take."""

    training: Training
    predicted_s: float

    @property
    def error(self) -> float:
        """Return the predicted speed over the published one, less 1."""
        return self.training.update_s / self.predicted_s - 1

    @property
    def tokens_per_s(self) -> float:
        """Return the predicted speed."""
        return self.training.tokens_per_s * self.training.update_s / self.predicted_s


@cache
def recorded(words: tuple[str, ...], sentences: int, src_len: int, tgt_len: int, half: bool) -> tuple[
        tuple[Kernel, ...], int, int]:
    """Record an update of one micro-batch. Returns its kernels, the bytes of all gradients, and their number"""
    cfg = resolve(compose(["logger=none", "trainer.accelerator=cpu", "data.max_tokens=1000000", *words]))
    kernels = record_update(cfg, sentences, src_len, tgt_len, precision="bf16-mixed" if half else "32-true",
                            capability=PADDED)
    params = sum(p.numel() for p in without_weights(cfg).parameters())
    return tuple(kernels), params * (2 if half else 4), params


def kernels_of(training: Training) -> tuple[tuple[Kernel, ...], int, int]:
    """Return what `recorded` does, of a published training."""
    return recorded(training.words, training.sentences, training.src_len, training.tgt_len,
                    training.precision == "half")


def predict(trainings: Iterable[Training], fitted: Fitted, model: Model = WHOLE) -> Iterator[Prediction]:
    """Predict each training."""
    for training in trainings:
        kernels, gradient_bytes, params = kernels_of(training)
        device = by_name(training.device)
        constants = fitted.loop if training.system == LOOP else fitted.kernels
        one_s = timeline(kernels, Pace(device, constants, model, training.precision == "tf32")).seconds
        fleet = Fleet(device, GPUS_OF_A_MACHINE, **fitted.fleet)
        yield Prediction(training, fleet.update_s(one_s, gradient_bytes, params, training.gpus))


def fit_trainings(trainings: Sequence[Training], constants: Constants) -> Fitted:
    """Fit what whole trainings alone can tell: TensorFlow's loop, and what several GPUs lose."""
    fitted = Fitted(constants, replace(constants, gap_us=5.0), fit_fleet(trainings))
    loops = [training for training in trainings if training.system == LOOP]

    def residuals(trial: Constants) -> Floats:
        return np.array([log(1 + each.error) for each in predict(loops, replace(fitted, loop=trial))])

    return replace(fitted, loop=fit(fitted.loop, ("gap_us",), residuals)) if loops else fitted


def fit_fleet(trainings: Sequence[Training]) -> dict[str, float]:
    """Fit the constants of `Fleet` by what trainings of several GPUs lose against those of one; none is negative."""
    alone = {(t.system, t.device, t.precision): t.update_s for t in trainings if t.gpus == 1}
    slopes, lost = list[tuple[float, ...]](), list[float]()
    for t in trainings:
        if t.gpus > 1:
            one_s, (_, gradient_bytes, params) = alone[t.system, t.device, t.precision], kernels_of(t)
            exchange_s = Fleet(by_name(t.device), GPUS_OF_A_MACHINE).exchange_s(gradient_bytes, t.gpus)
            slopes.append((exchange_s / t.update_s, one_s * mean_largest(t.gpus) / t.update_s, params / t.update_s))
            lost.append(1 - one_s / t.update_s)
    return dict(zip(("exposed", "uneven", "parameter_s"), least_squares(np.array(slopes), np.array(lost)), strict=True))


def least_squares(a: Floats, b: Floats) -> list[float]:
    """Return what solves a x = b best without a negative number, by trying which are 0. a: [n, k], b: [n]"""
    best, found = float("inf"), [0.0] * a.shape[1]
    for size in range(1, a.shape[1] + 1):
        for chosen in combinations(range(a.shape[1]), size):
            x = np.zeros(a.shape[1])
            x[list(chosen)] = np.linalg.lstsq(a[:, chosen], b, rcond=None)[0]
            left = float(((a @ x - b) ** 2).sum())
            if x.min() >= 0 and left < best:
                best, found = left, x.tolist()
    return found


def errors(predictions: Sequence[Prediction]) -> tuple[float, float]:
    """Return the median and the largest size of errors."""
    sizes = [abs(prediction.error) for prediction in predictions]
    return median(sizes), max(sizes)


def refit(trainings: Sequence[Training]) -> Fitted:
    """Fit on whole trainings alone, of a device of which no kernels were published; plain units are then a guess."""
    alone = [training for training in trainings if training.gpus == 1 and training.system != LOOP]

    def residuals(trial: Constants) -> Floats:
        return np.array([log(1 + each.error) for each in predict(alone, Fitted(trial, trial, NO_LOSS))])

    return fit_trainings(trainings, fit(GUESS, ("tensor_intensity", "memory", "step_us"), residuals))
