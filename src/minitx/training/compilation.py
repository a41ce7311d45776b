"""The layers as compiled code while they train (`trainer.compile`): one code for all sizes, and what it took."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from minitx.data.batch import Packed
from minitx.models.base import Attention, Seq2Seq, evaluating
from minitx.utils.console import notify

BACKEND = "inductor"  # torch's own compiler: Triton for GPUs, C++ for CPUs
MOST_VARIANTS = 16  # of one layer's code; more would mean that a size was taken for a constant


class Made(NamedTuple):
    """Count what the compiler made: graphs, of a forward pass and its backward pass each, and the seconds it took."""

    graphs: int
    seconds: float


class Compiled:
    """Call a model whose layers are compiled code here, and nowhere else; as it is, with a warning, where that fails.

    Layers that are alike share their code, and sizes are symbols: an epoch has about as many shapes as micro-batches.
    Compiled is what GPUs run, on a CPU too. The model keeps its parameters, and their names.
    """

    def __init__(self, model: Seq2Seq) -> None:
        self.model, self.output, self.made = model, model.output, Made(0, 0.0)
        self.is_warm = self.is_on = self.has_failed = False
        found = parts(model)
        for part in found:
            part.forward = MethodType(self._either(type(part).forward), part)
        if not found:
            notify("trainer.compile=true does nothing: all that this model's layers do are recurrences, which are one "
                   "call of a library each", stacklevel=2)

    def __call__(self, src: Packed, tgt: Packed) -> Tensor:
        """Compute what the model does. --> [N, D]"""
        if not self.is_warm:  # what it keeps from batch to batch is made now: code for its making would serve once
            self.is_warm = True
            with torch.no_grad(), evaluating(self.model):  # draws no random numbers
                self.model(src, tgt)
        with self._compiling():
            features: Tensor = self.model(src, tgt)
        return features

    def _either(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """Return a kind of layer's forward pass: compiled where it is asked for, and as long as that works."""
        code = torch.compile(plain, backend=BACKEND, dynamic=True, fullgraph=True)

        def forward(*inputs: Any, **options: Any) -> Any:
            if not self.is_on or self.has_failed:
                return plain(*inputs, **options)
            try:
                return code(*inputs, **options)
            except (torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit) as error:
                self.has_failed = True
                reason = " ".join(str(error).split())[:200]
                notify("trainer.compile=true: layers cannot be compiled here, so they are trained as they are: "
                       f"{reason}", stacklevel=2)
                return plain(*inputs, **options)

        return forward

    @contextmanager
    def _compiling(self) -> Iterator[None]:
        """Compile in this block, backward passes with their forward pass, and note what that takes."""
        from torch import _dynamo
        from torch._functorch import config
        from torch.fx.experimental import _config as symbols

        stats, handler = _dynamo.utils.counters["stats"], _dynamo.callback.callback_handler
        before, began, spent_s = stats["unique_graphs"], 0.0, 0.0

        def start(_: Any) -> None:
            nonlocal began
            began = perf_counter()

        def end(_: Any) -> None:
            nonlocal spent_s
            spent_s += perf_counter() - began

        handler.register_start_callback(start)
        handler.register_end_callback(end)
        self.is_on = True
        try:
            # DDP's optimizer takes no function with a gradient of its own; sizes that are equal now may differ soon,
            # but numbers of a layer (dropout, epsilon) never do, and as symbols they had each graph traced twice
            with (_dynamo.config.patch(recompile_limit=MOST_VARIANTS, fail_on_recompile_limit_hit=True,
                                       optimize_ddp=False, specialize_float=True),
                  config.patch(force_non_lazy_backward_lowering=True),
                  symbols.patch(use_duck_shape=False)):  # type: ignore[attr-defined]
                yield
        finally:
            self.is_on = False
            handler.remove_start_callback(start)
            handler.remove_end_callback(end)
            self.made = Made(self.made.graphs + stats["unique_graphs"] - before, self.made.seconds + spent_s)


def parts(model: nn.Module) -> list[nn.Module]:
    """Return what is worth compiling: layers and attention, the outermost ones, but what is one call of a library."""
    found: list[nn.Module] = []
    for child in model.children():
        layers = list(child) if isinstance(child, nn.ModuleList) else [child]
        for layer in layers:
            if any(isinstance(part, nn.LSTM) for part in layer.modules()):
                continue
            if isinstance(layer, Attention) or layer is not child and len(list(layer.modules())) > 1:
                found.append(layer)
    return found
