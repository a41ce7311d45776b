"""Time a GPU: attention kernels, optimizers, copies, whole updates, search."""

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from families import Workbench, without_trainer
from gpu_numbers import LIMIT, updates
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from minitx.profiling.peak import peak
from minitx.profiling.provenance import peak_memory_gib
from minitx.profiling.utilisation import Watch
from minitx.training.callbacks import training_flop

BACKENDS = {"math": SDPBackend.MATH, "flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION,
            "efficient": SDPBackend.EFFICIENT_ATTENTION}
SHAPES = [(512, 4, 16, 64), (128, 4, 64, 64), (32, 8, 256, 64), (8, 16, 1024, 64)]  # B, H, L, d
SMALL = [(4, 2, 8, 8)]  # for a CPU
Result = tuple[str, dict[str, Any]]


def time_ms(device: torch.device, work: Callable[[], object], repeats: int) -> float:
    """Return the median milliseconds of a piece of work, by the device's own clock."""
    def once() -> float:
        if device.type != "cuda":
            began = perf_counter()
            work()
            return 1000 * (perf_counter() - began)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    for _ in range(2):
        once()
    return median(once() for _ in range(repeats))


def attention(device: torch.device, repeats: int) -> Result:
    """Time each kernel forward and backward in bf16, by shape; n/a where a kernel does not support the shape."""
    times: dict[str, dict[str, float | None]] = {}
    for B, H, L, d in SHAPES if device.type == "cuda" else SMALL:
        packed = torch.randn(3, B * L, H, d, device=device, dtype=torch.bfloat16, requires_grad=True)
        heads = packed.unflatten(1, (B, L)).transpose(2, 3).detach().requires_grad_()  # --> [3, B, H, L, d]
        row = times[f"{B} x {H} x {L} x {d}"] = {}
        for name, backend in BACKENDS.items():
            def sdpa(backend: SDPBackend = backend, heads: Tensor = heads) -> None:
                with sdpa_kernel(backend):
                    F.scaled_dot_product_attention(*heads).sum().backward()

            row[name] = time_or_none(device, sdpa, repeats)
        row["varlen"] = time_or_none(device, lambda packed=packed, B=B, L=L: varlen(packed, B, L), repeats)  # type: ignore[misc]
    text = "; ".join(f"{shape}: " + ", ".join(f"{name} {'n/a' if ms is None else f'{ms:.3f}'}" for name, ms in
                                              row.items()) for shape, row in times.items())
    return f"ms of B x H x L x d: {text}", {"ms": times}


def varlen(packed: Tensor, sentences: int, length: int) -> None:
    """Run attention, forward and backward, over sentences end to end. packed: [3, B * L, H, d]"""
    from torch.nn.attention.varlen import varlen_attn  # not in every build of torch

    starts = torch.arange(0, (sentences + 1) * length, length, device=packed.device, dtype=torch.int32)
    out = varlen_attn(*packed, starts, starts, length, length)
    assert isinstance(out, Tensor)
    out.sum().backward()


def time_or_none(device: torch.device, work: Callable[[], object], repeats: int) -> float | None:
    """Return the milliseconds; None = not supported for this device or shape."""
    try:
        return time_ms(device, work, repeats)
    except (RuntimeError, NotImplementedError, ImportError):
        return None


def optimizers(bench: Workbench, device: torch.device, repeats: int) -> Result:
    """Time an AdamW step, fused, foreach, and one tensor after the other."""
    parameters = list(bench.task("transformer", "32-true").to(device).model.parameters())
    for p in parameters:
        p.grad = torch.randn_like(p)
    kinds: dict[str, dict[str, bool]] = {"fused": {"fused": True}, "foreach": {"foreach": True},
                                         "single": {"foreach": False}}
    ms = {name: time_ms(device, torch.optim.AdamW(parameters, lr=1e-3, **kind).step, repeats)
          for name, kind in kinds.items()}
    return ", ".join(f"{name} {value:.3f} ms" for name, value in ms.items()), {"ms": ms}


def copies(device: torch.device) -> Result:
    """Compare the host's time of a copy to the GPU, from pinned and from pageable memory."""
    host = torch.empty(2**26, dtype=torch.uint8)
    host_ms: dict[str, float] = {}
    for name, source in {"pinned": host.pin_memory(), "pageable": host}.items():
        torch.cuda.synchronize(device)
        began = perf_counter()
        source.to(device, non_blocking=True)
        host_ms[name] = 1000 * (perf_counter() - began)
        torch.cuda.synchronize(device)
    assert host_ms["pinned"] < host_ms["pageable"], f"the host waits for a pinned copy: {host_ms}"
    return ", ".join(f"{name} {ms:.3f} ms of the host" for name, ms in host_ms.items()) + " for 64 MiB", host_ms


def step(bench: Workbench, device: torch.device, family: str, precision: str, count: int) -> Result:
    """Time whole updates, whose batches are made beforehand."""
    task = bench.task(family, precision).to(device)
    planned = updates(bench, count + 3)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds: list[float] = []
    with without_trainer(task, device), Watch(device) as watch:
        for update in planned:
            began = perf_counter()
            task.training_step(update, 0)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(perf_counter() - began)
            task.state.step += 1
        usage = watch.usage()
    timed, total_s = planned[3:], sum(seconds[3:])
    speed = sum(update.n_tokens for update in timed) / total_s
    counted = [training_flop(task.model, update) for update in timed]
    flop = None if None in counted else sum(counted)
    reference = peak(device, precision)
    mfu = reference.mfu_pct(flop, total_s)
    memory = peak_memory_gib(device)
    values = {"update_ms": 1000 * total_s / count, "tgt_tokens_per_s": speed, "mfu_pct": mfu, "memory_gib": memory,
              "peak_tflops": reference.tflops, "peak_source": reference.source, "busy_pct": usage.busy_pct,
              "energy_wh": usage.energy_wh}
    share = "n/a" if mfu is None else f"{mfu:.1f} %"
    text = f"{values['update_ms']:.1f} ms, {speed:,.0f} target tokens/s, MFU {share} of {reference}, {memory:.2f} GiB"
    return text, values


def decoding(bench: Workbench, device: torch.device, family: str, beam_size: int) -> Result:
    """Translate with an untrained model."""
    translator = bench.translator(bench.task(family, "32-true").to(device), family, device, LIMIT)
    translator.translate(bench.sources[:8], beam_size=beam_size)
    began = perf_counter()
    translator.translate(bench.sources, beam_size=beam_size)
    speed = len(bench.sources) / (perf_counter() - began)
    return f"{speed:,.0f} sentences/s of {LIMIT} tokens", {"sentences_per_s": speed}
