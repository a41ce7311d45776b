"""A GPU that is played: every tensor says that it lies on CUDA, and is computed with here.

What only CUDA takes then runs with real numbers, which are compared with those of a CPU's own way; a test that asks for
`played_gpu` has one. What it does not show: mixed devices and waits of the host, which `fake_cuda.py` sees; and what
CUDA's kernels round or refuse, which takes a GPU and `gpu_check.py`.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

CUDA = torch.device("cuda", 0)
NAME, UUID = "NVIDIA H100 80GB HBM3", "12345678-1234-1234-1234-123456789abc"
GIB = 2**30
ANSWERS = {Tensor.device.__get__: CUDA, Tensor.is_cuda.__get__: True, Tensor.is_cpu.__get__: False}  # type: ignore[attr-defined]


class OnCuda(TorchFunctionMode):
    """Answer for every tensor that it lies on CUDA, and put what is to be made there here."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in ANSWERS:
            return ANSWERS[func]
        if func in (torch.device, torch._C._nn._parse_to):  # type: ignore[attr-defined]  # it names a device, no more
            return func(*args, **(kwargs or {}))
        args, kwargs = tree_map(here, (args, kwargs or {}))
        return func(*args, **kwargs)


def here(leaf: Any) -> Any:
    """Return the CPU in place of a CUDA device."""
    is_device = isinstance(leaf, torch.device) or (isinstance(leaf, str) and leaf.partition(":")[0] == "cuda")
    return torch.device("cpu") if is_device and torch.device(leaf).type == "cuda" else leaf


def reference_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Compute it as its equation stands, in float64. [..., L, d], 2 x [..., S, d], mask [L, S] --> [..., L, d]"""
    scores = (q.double() @ k.double().transpose(-2, -1)) / math.sqrt(q.shape[-1])
    return scores.masked_fill(~mask, -math.inf).softmax(-1) @ v.double()


def varlen_attn(query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int,
                max_k: int, *, return_aux: Any = None, scale: float | None = None,
                window_size: tuple[int, int] = (-1, -1)) -> Tensor:
    """Do what torch's function of this name says that it does, a sentence at a time. It takes what 2.11's does."""
    assert (return_aux, scale) == (None, None)
    before, after = window_size
    assert min(window_size) >= -1
    assert cu_seq_q.dtype is cu_seq_k.dtype is torch.int32
    assert (cu_seq_q[-1], cu_seq_k[-1]) == (len(query), len(key)), "no row is left out: it would hold what memory held"
    found, starts = [], (cu_seq_q.tolist(), cu_seq_k.tolist())
    for (a, b), (c, d) in zip(*(zip(side, side[1:], strict=False) for side in starts), strict=True):
        assert 0 < b - a <= max_q
        assert 0 < d - c <= max_k
        mask = torch.ones(b - a, d - c, dtype=torch.bool)
        mask = mask.triu(-before) if before >= 0 else mask
        mask = mask.tril(after) if after >= 0 else mask
        heads = (rows.transpose(0, 1) for rows in (query[a:b], key[c:d], value[c:d]))
        found.append(reference_attention(*heads, mask).transpose(0, 1))
    return torch.cat(found).to(query.dtype)


class Event:
    """Stand in for `torch.cuda.Event`: passed at once, a millisecond after the event before it."""

    ticks = count()

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = next(self.ticks)

    def query(self) -> bool:
        return True

    def elapsed_time(self, end: "Event") -> float:
        return float(end.at - self.at)


JOULES = count(1000, 36)  # 0.01 Wh between two readings
NVML: dict[str, Any] = {  # of `pynvml`, by name: what it answers
    "nvmlInit": lambda: None, "nvmlDeviceGetHandleByUUID": {f"GPU-{UUID}": "handle"}.__getitem__,
    "nvmlDeviceIsMigDeviceHandle": lambda handle: False, "nvmlDeviceGetMigMode": lambda handle: [0, 0],
    "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=75),
    "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(used=5 * GIB),
    "nvmlDeviceGetPowerUsage": lambda handle: 350_000,
    "nvmlDeviceGetTotalEnergyConsumption": lambda handle: 1000 * next(JOULES),
}
DRIVER: dict[str, Any] = {  # of `torch.cuda`, by name: what it answers
    "is_available": lambda: True, "is_initialized": lambda: True, "device_count": lambda: 1,
    "current_device": lambda: 0, "set_device": lambda device: None, "synchronize": lambda device=None: None,
    "empty_cache": lambda: None, "get_device_name": lambda device=None: NAME,
    "get_device_capability": lambda device=None: (9, 0), "is_bf16_supported": lambda including_emulation=True: True,
    "get_device_properties": lambda device: SimpleNamespace(name=NAME, uuid=UUID, total_memory=80 * GIB),
    "max_memory_allocated": lambda device=None: 3 * GIB, "reset_peak_memory_stats": lambda device=None: None,
    "mem_get_info": lambda device=None: (79 * GIB, 80 * GIB), "Event": Event,
    "get_rng_state": lambda device: torch.get_rng_state(), "set_rng_state": lambda state, device: None,
    "manual_seed_all": lambda seed: None, "is_current_stream_capturing": lambda: False,
}  # fmt: skip


@contextmanager
def played_gpu(**driver: Any) -> Iterator[None]:
    """Play a GPU in a block. driver: what functions of `torch.cuda` answer instead"""
    assert driver.keys() <= DRIVER.keys()
    with (patch.multiple(torch.cuda, **DRIVER | driver), patch.multiple("pynvml", **NVML),
          patch("torch.nn.attention.varlen.varlen_attn", varlen_attn),
          patch("torch.nn.RNNBase.flatten_parameters", lambda self: None), OnCuda()):
        yield
