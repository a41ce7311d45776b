"""The constants of the model of a device, fitted on kernels that others timed on one GPU (a V100).

What whole trainings took is not looked at here: that is what the model is tested on (`validation.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch

from minitx.experiments.prediction.published import LSTMLayer, Product
from minitx.profiling.devices import Device
from minitx.profiling.kernels import Kernel
from minitx.profiling.libraries import LSTMShape, cudnn_lstm_kernels
from minitx.profiling.timeline import BYTES, Constants, Pace

FITTED = ("tensor_intensity", "plain_intensity", "memory", "product_us", "step_us")
FORMATS = {"half": torch.float16, "float": torch.float32}
STEP = 0.02  # of a logarithm, for slopes
OUTLIER = 0.15  # residuals beyond it count by their size, not their square

Floats = npt.NDArray[np.float64]


def calibrate(products: Sequence[Product], layers: Sequence[LSTMLayer], device: Device,
              start: Constants | None = None) -> Constants:
    """Fit the constants of kernels on what a device took for them. start: where the search begins"""
    def residuals(constants: Constants) -> Floats:
        pace = Pace(device, constants)
        predicted = [*(product_us(product, pace) for product in products),
                     *chain.from_iterable(layer_us(layer, pace) for layer in layers)]
        measured = [*(product.us for product in products),
                    *chain.from_iterable((layer.forward_us, layer.backward_us, layer.weights_us) for layer in layers)]
        return np.log(predicted) - np.log(measured)

    return fit(start or Constants(), FITTED, residuals)


def product_us(product: Product, pace: Pace) -> float:
    """Return the predicted microseconds of a product by itself."""
    rows, columns, inner = product.rows, product.columns, product.inner
    moved = BYTES[product.dtype] * (rows * inner + inner * columns + rows * columns)
    kernel = Kernel("mm", "product", "forward", product.dtype, 2.0 * rows * columns * inner, moved,
                    (1, rows, columns, inner))
    return 1e6 * pace.kernel(kernel).seconds


def layer_us(layer: LSTMLayer, pace: Pace) -> tuple[float, float, float]:
    """Return the predicted microseconds of a layer's steps forwards, backwards, and of its weights' gradient."""
    shape = LSTMShape(layer.sentences, layer.steps, layer.hidden, layer.hidden, FORMATS[layer.dtype])

    def took(phase: str, names: tuple[str, ...]) -> float:
        kernels = cudnn_lstm_kernels(shape, phase, "standard")
        return 1e6 * sum(pace.kernel(kernel).seconds for kernel in kernels if kernel.name.rpartition(".")[2] in names)

    steps = ("state", "gates")
    return took("forward", steps), took("backward", steps), took("backward", ("d_weight_hh", "d_biases"))


def fit(start: Constants, names: Sequence[str], residuals: Callable[[Constants], Floats]) -> Constants:
    """Fit positive constants by Gauss and Newton's method on their logarithms, so that no outlier decides.

    residuals: of logarithms; shares ("memory") stay at 1 at most
    """
    def at(logs: Floats) -> Constants:
        return replace(start, **dict(zip(names, np.exp(logs).tolist(), strict=True)))

    logs = np.log([getattr(start, name) for name in names])
    caps = np.where([name == "memory" for name in names], 0.0, np.inf)
    damping, found = 0.01, residuals(at(logs))
    while damping < 1e4:
        slopes = np.stack([(residuals(at(logs + STEP * unit)) - found) / STEP for unit in np.eye(len(logs))], axis=1)
        weights = 1 / np.maximum(OUTLIER, abs(found))
        square = slopes.T @ (slopes * weights[:, None])
        move = np.linalg.solve(square + damping * np.diag(square).mean() * np.eye(len(logs)),
                               -slopes.T @ (weights * found))
        trial = np.minimum(logs + np.clip(move, -0.3, 0.3), caps)
        better = residuals(at(trial))
        if loss(better) < loss(found) - 1e-6:
            logs, found, damping = trial, better, damping / 2
        else:
            damping *= 4
    return at(logs)


def loss(residuals: Floats) -> float:
    """Return what `fit` makes small: the mean size of residuals, and of those up to `OUTLIER` their square (Huber)."""
    sizes = abs(residuals)
    return float(np.where(sizes < OUTLIER, sizes**2 / (2 * OUTLIER), sizes - OUTLIER / 2).mean())
