"""What torch leaves to libraries on a GPU and a CPU build of it lacks: cuDNN's LSTM, and attention in one kernel.

Which of them it takes follows ATen/native/cudnn/RNN.cpp and ATen/native/transformers/cuda/sdp_utils.cpp. B sentences,
T steps, D width of the input, R of the state, H heads, L queries, S keys, d width of a head.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from minitx.profiling.kernels import Kernel
from minitx.profiling.operators import FORMATS
from minitx.utils.autograd import apply_function

HALF = (torch.float16, torch.bfloat16)
MASK_MULTIPLE = 8  # to which attention's mask is padded, and the width of heads for flash attention


# --- LSTM


@dataclass(frozen=True)
class LSTMShape:
    """One layer in one direction, as one call of cuDNN runs it."""

    sentences: int
    steps: int
    d_in: int
    d_hidden: int
    dtype: torch.dtype


def cudnn_lstm_algorithm(shape: LSTMShape, phase: str, capability: tuple[int, int], packed: bool = False) -> str:
    """Return how cuDNN is asked to run it: "standard", or "persistent", the weights of the recurrence on chip.

    phase: "forward" or "backward"; packed: sentences come as a `PackedSequence`. GPUs of a large capability with few
    multiprocessors (A30) are taken for large ones.
    """
    sentences, steps = shape.sentences, shape.steps
    if packed or shape.dtype is torch.float64:
        return "standard"
    if shape.d_hidden <= (192 if phase == "forward" else 128) and capability >= (6, 0):
        return "persistent"
    fits = shape.d_hidden <= 1024 and shape.d_hidden % 128 == 0 and shape.d_in % 128 == 0
    if shape.dtype is not torch.float16 or not fits:
        return "standard"
    if capability[0] == 7:
        whole = sentences == 8 or (sentences % 16 == 0 and sentences not in (80, 112))
        limits = ((40, 128), (20, 96), (10, 32))  # so many steps at least, so many sentences at most
        some = any(steps >= least and sentences <= most for least, most in limits)
        return "persistent" if capability != (7, 5) and whole and some else "standard"
    large = capability >= (8, 0) and capability[1] != 6
    return "persistent" if large and sentences % 8 == 0 and sentences <= 128 else "standard"


def cudnn_lstm_kernels(shape: LSTMShape, phase: str, algorithm: str) -> list[Kernel]:
    """Return what one call of cuDNN launches.

    Forwards: a product for all inputs, then the recurrence; "standard" takes a product and a pass over the gates for
    each step. Backwards: the recurrence, then the gradients of the inputs and of all weights, in products over all
    steps. Sources: Appleyard et al. 2016; persistent: Diamos et al. 2016.
    """
    B, T, D, R, G = shape.sentences, shape.steps, shape.d_in, shape.d_hidden, 4 * shape.d_hidden
    size, number_format = shape.dtype.itemsize, FORMATS[shape.dtype]

    def product(name: str, rows: int, columns: int, inner: int) -> Kernel:
        read = rows * inner + inner * columns + rows * columns
        return Kernel(f"cudnn.lstm.{name}", "product", phase, number_format, 2.0 * rows * columns * inner,
                      size * read, (1, rows, columns, inner), launched_by="library")

    def gates(name: str, elements: int) -> Kernel:
        return Kernel(f"cudnn.lstm.{name}", "elementwise", phase, number_format, 0.0, size * elements,
                      launched_by="library")

    if phase == "forward":  # products of x and h, biases, c; writes h, c, gates for the backward pass
        step = [product("state", B, G, R), gates("gates", 3 * B * G + 2 * G + 3 * B * R)]
        kernels = [product("inputs", T * B, G, D), *recurrence(step, T, algorithm, size * R * G)]
    else:  # reads dh from above and from the step after, dc, c, gates; writes dc and the gates' gradients
        step = [gates("gates", 2 * B * G + 5 * B * R), product("state", B, R, G)]
        kernels = [*recurrence(step, T, algorithm, size * R * G), product("d_inputs", T * B, D, G),
                   product("d_weight_ih", G, D, T * B), product("d_weight_hh", G, R, T * B),
                   Kernel("cudnn.lstm.d_biases", "reduction", phase, number_format, 0.0,
                          size * (T * B * G + 2 * G), launched_by="library")]
    first, *others = kernels
    return [replace(first, launched_by="operator"), *others]


def recurrence(step: Sequence[Kernel], steps: int, algorithm: str, weight: int) -> list[Kernel]:
    """Return a step's kernels for each step, or one for all that reads the weights (bytes) once."""
    if algorithm == "standard":
        return [*step] * steps
    state = next(kernel for kernel in step if kernel.product is not None)
    nbytes = steps * (sum(kernel.nbytes for kernel in step) - weight) + weight
    return [Kernel("cudnn.lstm.persistent", "product", state.phase, state.dtype, steps * state.flop, nbytes,
                   state.product, launched_by="library", steps=steps)]


def onednn_lstm_kernel(shape: LSTMShape, phase: str, way: str) -> Kernel:
    """Return a layer of oneDNN's LSTM on a CPU, one call for all steps. way: "forward" or "backward"

    Its products: of inputs and states with the weights, and backwards of the gates' gradients with both.
    """
    B, T, D, R, G = shape.sentences, shape.steps, shape.d_in, shape.d_hidden, 4 * shape.d_hidden
    products = 1 if way == "forward" else 2
    weights, passes = G * (D + R), T * B * (D + G + 3 * R)
    return Kernel(f"onednn.lstm.{way}", "product", phase, FORMATS[shape.dtype], 2.0 * products * T * B * weights,
                  shape.dtype.itemsize * products * (weights + passes), (1, B, G, D + R), steps=T)


class _CudnnLSTM(torch.autograd.Function):
    """One layer, one direction, as torch calls cuDNN. x: [B, T, D], h, c: [1, B, R] --> y: [B, T, R], h, c

    cuDNN wants steps first, and each of its calls has its inputs copied so.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, h: Tensor, c: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor,
                record: Callable[[str], None]) -> tuple[Tensor, Tensor, Tensor]:
        ctx.record = record
        ctx.save_for_backward(x, w_ih, w_hh, b_ih, b_hh)
        steps_first(x)
        y = x.new_empty(x.shape[1], x.shape[0], h.shape[2]).transpose(0, 1)
        record("forward")
        return y, torch.empty_like(h), torch.empty_like(c)

    @staticmethod
    def backward(ctx: Any, dy: Tensor, dh: Tensor, dc: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        steps_first(x)
        steps_first(dy)
        dx = torch.empty_like(x.transpose(0, 1), memory_format=torch.contiguous_format).transpose(0, 1)
        steps_first(x)  # once for what comes from the recurrence, once for the gradients of the weights
        buffer = x.new_zeros(sum(w.numel() for w in weights))
        ctx.record("backward")
        parts = buffer.split([w.numel() for w in weights])
        return (dx, torch.empty_like(dh), torch.empty_like(dc),
                *(part.view(w.shape) for part, w in zip(parts, weights, strict=True)), None)


def steps_first(x: Tensor) -> Tensor:
    """[B, T, .] --> [T, B, .], copied unless it lay so"""
    return x.transpose(0, 1).contiguous()


# --- attention


def attention_backend(q: Tensor, k: Tensor, mask: Tensor | None, capability: tuple[int, int]) -> str:
    """Return which kernel takes q, k and v of one width, without dropout: "cudnn", "flash", "efficient" or "math".

    q: [B, H, L, d], k: [B, H, S, d]. Of a torch with cuDNN 9.15.1 or later.
    """
    major, width, is_half = capability[0], q.shape[-1], q.dtype in HALF
    if is_half and major in (9, 10) and width <= 128 and width % 8 == 0 and k.shape[2] != 1:
        return "cudnn"
    if is_half and major >= 8 and width <= 256 and mask is None:
        return "flash"
    tensor_units = is_half and major >= 7 or major >= 8
    multiple = max(4 if major >= 8 else 1, (8 if is_half else 4) if tensor_units else 1)
    known = q.dtype is torch.float16 or q.dtype is torch.float32 or (q.dtype is torch.bfloat16 and major >= 8)
    return "efficient" if known and width % multiple == 0 else "math"


def fused_attention(backend: str, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
    """Call the operator of a backend as torch does on a GPU, its inputs padded as they are there."""
    aten, width = torch.ops.aten, q.shape[-1]
    if backend == "flash":
        spare, scale = -width % MASK_MULTIPLE, width ** -0.5
        q, k, v = (F.pad(t, (0, spare)) if spare else t for t in (q, k, v))
        out, *_ = aten._scaled_dot_product_flash_attention(q, k, v, 0.0, is_causal, False, scale=scale)
        return cast(Tensor, out[..., :width] if spare else out)
    if mask is not None and backend == "efficient":
        spare = -mask.shape[-1] % MASK_MULTIPLE
        mask = F.pad(mask, (0, spare))[..., :mask.shape[-1]] if spare else mask
        mask = mask.expand(*q.shape[:3], k.shape[2])
    if backend == "math":
        out, _ = aten._scaled_dot_product_attention_math(q, k, v, mask, 0.0, is_causal)
    else:
        operator = getattr(aten, f"_scaled_dot_product_{backend}_attention")
        out, *_ = operator(q, k, v, mask, True, 0.0, is_causal)
    return cast(Tensor, out)


# --- both


class GPULibraries(TorchFunctionMode):
    """Let `torch.lstm` and scaled dot-product attention on fake CUDA tensors go the way that they go on a GPU.

    record: is called with what cuDNN launches; the other kernels are operators, which a dispatch mode sees.
    """

    def __init__(self, record: Callable[[list[Kernel]], None], capability: tuple[int, int],
                 packed: bool = False) -> None:
        """packed: as in `cudnn_lstm_algorithm`: sentences of an LSTM come as a `PackedSequence`"""
        super().__init__()
        self.record, self.capability, self.packed = record, capability, packed

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.lstm and args[0].device.type == "cuda":
            return self.lstm(*args, **kwargs)
        if func is F.scaled_dot_product_attention and args[0].device.type == "cuda":
            return self.attention(*args, **kwargs)
        return func(*args, **kwargs)

    def lstm(self, x: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor], has_biases: bool, num_layers: int,
             dropout: float, train: bool, bidirectional: bool, batch_first: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Stand in for `torch.lstm`. Errors: NotImplementedError for what no model here asks of one call."""
        if num_layers > 1 or bidirectional or dropout or not has_biases or not batch_first:
            raise NotImplementedError("several layers, both directions, or steps first, in one call of cuDNN's LSTM")
        h, c = state
        if torch.is_autocast_enabled("cuda"):  # to fp16, whatever format was asked for (AutocastRNN.cpp)
            x, h, c = (t.to(torch.float16) for t in (x, h, c))
            torch.zeros(sum(w.numel() for w in weights), dtype=x.dtype, device=x.device)
            weights = [torch.empty_like(w, dtype=x.dtype).copy_(w) for w in weights]
        shape = LSTMShape(x.shape[0], x.shape[1], x.shape[2], h.shape[2], x.dtype)

        def record(phase: str) -> None:
            algorithm = cudnn_lstm_algorithm(shape, phase, self.capability, self.packed)
            self.record(cudnn_lstm_kernels(shape, phase, algorithm))

        found: tuple[Tensor, Tensor, Tensor] = apply_function(_CudnnLSTM, x, h, c, *weights, record)
        return found

    def attention(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
                  is_causal: bool = False) -> Tensor:
        """Stand in for `scaled_dot_product_attention`."""
        if dropout_p:
            raise NotImplementedError("attention with dropout on its weights")
        backend = attention_backend(q, k, attn_mask, self.capability)
        return fused_attention(backend, q, k, v, attn_mask, is_causal)
