"""Time a GPU: attention kernels, optimizers, copies, whole updates, search."""

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from math import isfinite
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from families import Workbench, without_trainer
from gpu_numbers import LIMIT, updates
from gpu_rows import Result
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from minitx.data.datamodule import PlannedUpdate
from minitx.profiling.peak import peak, synchronize
from minitx.profiling.provenance import peak_memory_gib
from minitx.profiling.utilisation import Watch
from minitx.training.callbacks import training_flop
from minitx.training.task import TranslationTask

BACKENDS = {"math": SDPBackend.MATH, "flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION,
            "efficient": SDPBackend.EFFICIENT_ATTENTION}
SHAPES = [(512, 4, 16, 64), (128, 4, 64, 64), (32, 8, 256, 64), (8, 16, 1024, 64)]  # B, H, L, d
SMALL = [(4, 2, 8, 8)]  # for a CPU
NVML_EVERY_S = 0.1  # it looks at the GPU up to six times a second, by its kind


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
    """Time a step of AdamW on a Transformer's weights."""
    return time_adamw(list(bench.task("transformer", "32-true").to(device).model.parameters()), device, repeats)


def time_adamw(parameters: list[nn.Parameter], device: torch.device, repeats: int) -> Result:
    """Time an AdamW step, fused, foreach, and one tensor after the other."""
    for p in parameters:
        p.grad = torch.randn_like(p)
    kinds: dict[str, dict[str, bool]] = {"fused": {"fused": True}, "foreach": {"foreach": True},
                                         "single": {"foreach": False}}
    ms = {name: time_ms(device, torch.optim.AdamW(parameters, lr=1e-3, **kind).step, repeats)
          for name, kind in kinds.items()}
    text = ", ".join(f"{name} {value:.3f} ms" for name, value in ms.items())
    return text, {"ms": ms, "params": sum(p.numel() for p in parameters)}


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


def step(bench: Workbench, device: torch.device, family: str, precision: str, measure_s: float) -> Result:
    """Time whole updates of a text, whose batches are made beforehand."""
    values = time_updates(bench.task(family, precision).to(device), updates(bench, 20), device, measure_s)
    return update_text(values), values


def time_updates(task: TranslationTask, planned: Sequence[PlannedUpdate], device: torch.device,
                 measure_s: float) -> dict[str, Any]:
    """Train on planned updates, in turn and again, for `measure_s`: at least 5 of them, after a third of that.

    The host does not wait between two updates, but where training does. NVML looks up to a second back, so the warm-up
    takes a second at least where its figures are to count.
    """
    queue = cycle(planned)
    with without_trainer(task, device):
        train_for(task, queue, measure_s / 3, at_least=3)
        synchronize(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        began = perf_counter()
        with Watch(device, every_s=NVML_EVERY_S) as watch:
            timed = train_for(task, queue, measure_s, at_least=5)
            synchronize(device)
            usage = watch.usage()
        seconds = perf_counter() - began
    assert task.stats is not None
    assert isfinite(task.stats.loss_sum), f"the loss is {task.stats.loss_sum} after {task.state.step} updates"
    counted, reference = [training_flop(task.model, update) for update in timed], peak(device, task.precision)
    flop = None if None in counted else sum(counted)  # type: ignore[arg-type]
    return {"update_ms": 1000 * seconds / len(timed),
            "tgt_tokens_per_s": sum(update.n_tokens for update in timed) / seconds,
            "mfu_pct": reference.mfu_pct(flop, seconds), "busy_pct": usage.busy_pct,
            "memory_gib": peak_memory_gib(device), "energy_wh": usage.energy_wh, "seconds": seconds,
            "updates": len(timed), "flop": flop, "peak_tflops": reference.tflops, "peak_source": reference.source,
            "not_measured": usage.reasons}


def train_for(task: TranslationTask, queue: Iterator[PlannedUpdate], seconds: float, *,
              at_least: int) -> list[PlannedUpdate]:
    """Train until so many seconds are over, and return the updates."""
    began, done = perf_counter(), list[PlannedUpdate]()
    while len(done) < at_least or perf_counter() - began < seconds:
        done.append(next(queue))
        task.training_step(done[-1], 0)
        task.state.step += 1
    return done


def update_text(values: dict[str, Any]) -> str:
    """Say in a line what `time_updates` found."""
    mfu, busy, memory = (values[name] for name in ("mfu_pct", "busy_pct", "memory_gib"))
    return (f"{values['update_ms']:.2f} ms, {values['tgt_tokens_per_s']:,.0f} target tokens/s, "
            f"MFU {'n/a' if mfu is None else f'{mfu:.1f} %'}, busy {'n/a' if busy is None else f'{busy:.0f} %'}, "
            f"{memory:.2f} GiB")


def decoding(bench: Workbench, device: torch.device, family: str, beam_size: int) -> Result:
    """Translate with an untrained model."""
    translator = bench.translator(bench.task(family, "32-true").to(device), family, device, LIMIT)
    translator.translate(bench.sources[:8], beam_size=beam_size)
    began = perf_counter()
    translator.translate(bench.sources, beam_size=beam_size)
    speed = len(bench.sources) / (perf_counter() - began)
    return f"{speed:,.0f} sentences/s of {LIMIT} tokens", {"sentences_per_s": speed}
