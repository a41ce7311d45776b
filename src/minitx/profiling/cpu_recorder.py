"""Operators recorded while code runs on the CPU: the same records as of a GPU's kernels, with numbers that are real."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
from torch.utils._python_dispatch import TorchDispatchMode

from minitx.profiling.kernels import Kernel
from minitx.profiling.libraries import LSTMShape, onednn_lstm_kernel
from minitx.profiling.operators import bytes_of, flop_of, format_of, kind_of, name_of, product_of, tensors_in

COMPUTES = {"aten"}  # namespaces; the others ask for a type or a device, or mark a place for profilers
RANDOM = "numpy.random_raw"
LSTM_SIGNS = {"mkldnn_rnn_layer": "forward", "mkldnn_rnn_layer_backward": "backward"}


class CPURecorder(TorchDispatchMode):
    """Note each operator on CPU tensors as a `Kernel`, which is run, too. `phase` is the caller's to set.

    Errors: NotImplementedError, with its name, for an operator that is not known
    """

    def __init__(self) -> None:
        """Start with nothing recorded."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.phase = "forward"
        self.kernels: list[Kernel] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.namespace in COMPUTES and any(True for _ in tensors_in((args, kwargs, result))):
            self.kernels.append(self.describe(func, args, kwargs, result))
        return result

    def describe(self, func: Any, args: Any, kwargs: Any, result: Any) -> Kernel:
        """Return the kernel of an operator that has run; an LSTM's layer is one with many steps."""
        name = name_of(func)
        if name in LSTM_SIGNS:
            steps, sentences, d_in = args[0].shape
            shape = LSTMShape(sentences, steps, d_in, args[2].shape[1], args[0].dtype)
            return onednn_lstm_kernel(shape, self.phase, LSTM_SIGNS[name])
        kind = kind_of(func)
        lists = [value for value in args[:1] if isinstance(value, (list, tuple))]  # one pass over each of its tensors
        return Kernel(f"aten.{name}", kind, self.phase, format_of(args, result), flop_of(func, args),
                      bytes_of(func, args, kwargs, result), product_of(func, args),
                      launches=0 if kind == "view" else len(lists[0]) if lists and name.startswith("_f") else 1)

    def note_random(self, words: int) -> None:
        """Note random numbers that numpy draws, of 64 bits each."""
        self.kernels.append(Kernel(RANDOM, "copy", self.phase, "int", 0.0, 8 * words))


@contextmanager
def recording_cpu() -> Iterator[CPURecorder]:
    """Record inside the block, what numpy's generator draws included."""
    recorder = CPURecorder()

    class Noted(np.random.SFC64):
        def random_raw(self, size: Any = None, *more: Any, **named: Any) -> Any:
            recorder.note_random(1 if size is None else int(np.prod(size)))
            return super().random_raw(size, *more, **named)

    with patch("numpy.random.SFC64", Noted), recorder:
        yield recorder
