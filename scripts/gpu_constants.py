"""What a prediction of an update is made of: products, bandwidth, launches, the host's time an operator, recurrence.

A kernel's own time is that of a CUDA graph of many, which no host slows down.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import torch
from families import composed
from gpu_rows import Job, Result
from gpu_speed import attention, time_adamw, time_ms
from torch import Tensor, nn

from minitx.models.registry import build_model
from minitx.profiling.peak import synchronize, timings

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
# rows, inner, columns: layers of the sizes base and big at 4,096 and 16,384 tokens, the vocabulary, a step of an LSTM
PRODUCTS = [(16384, 512, 512), (16384, 512, 2048), (16384, 2048, 512), (4096, 1024, 1024), (4096, 1024, 4096),
            (8192, 1024, 4096), (1024, 512, 32000), (128, 960, 3840), (512, 960, 3840), (256, 1664, 6656),
            (512, 3840, 960), (8192, 8192, 8192)]
TOY_PRODUCTS = [(64, 16, 32)]
COPIED = [2**power for power in (16, 20, 22, 24, 26, 28, 30)]  # bytes
STATES = [(960, 512), (480, 512), (1024, 128), (1664, 256)]  # of an LSTM: width, sentences
STEPS = (16, 64)  # their difference is the cost of a step
WARM_S = 0.3
CALLS = 200  # issued without waiting: fewer than a GPU's queue takes


def jobs(device: torch.device, toys: bool) -> Iterator[Job]:
    """Yield what is measured, the most valuable first; each begins with a GPU that has left its idle clock."""
    for job in measurements(device, toys):
        yield replace(job, work=partial(warmed, device, job.work))


def warmed(device: torch.device, work: Callable[[], Result]) -> Result:
    """Keep a GPU busy for a moment, then do the work."""
    if device.type == "cuda":
        a = torch.randn(4096, 4096, device=device, dtype=torch.bfloat16)
        timings(lambda: a @ a, device, WARM_S)
    return work()


def measurements(device: torch.device, toys: bool) -> Iterator[Job]:
    """Yield what is measured."""
    repeats = 2 if toys else 20
    yield Job("launches", partial(launches, device), 3)
    yield Job("host", partial(host, device, repeats), 4)
    for name in ("bf16", "fp32", "fp16"):
        yield Job(f"products, {name}", partial(products, device, DTYPES[name], TOY_PRODUCTS if toys else PRODUCTS), 4)
    yield Job("copies", partial(copies, device, COPIED[:2] if toys else COPIED), 3)
    for name in ("bf16", "fp16", "fp32"):
        yield Job(f"recurrence, {name}",
                  partial(recurrence, device, DTYPES[name], [(8, 2)] if toys else STATES, repeats), 5)
    yield Job("attention", partial(attention, device, repeats), 4)
    yield Job("AdamW", partial(adamw, device, repeats, toys), 5)


def kernel_s(device: torch.device, work: Callable[[], object], repeats: int = 20) -> float:
    """Return a kernel's seconds on the device, without the host's: of a graph of many; without a GPU, of a loop."""
    if device.type != "cuda":
        return 1e-3 * time_ms(device, work, 2)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries choose kernels and take memory at the first calls
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            work()
    return 1e-3 * time_ms(device, graph.replay, 5) / repeats


def issue_s(device: torch.device, work: Callable[[], object], repeats: int) -> float:
    """Return the seconds that the host takes to issue one call, the device being idle before."""
    def once() -> float:
        synchronize(device)
        began = perf_counter()
        for _ in range(CALLS):
            work()
        return (perf_counter() - began) / CALLS

    once()
    return median(once() for _ in range(repeats))


def microseconds(found: dict[str, float]) -> Result:
    """Return seconds by name as a line, and as microseconds."""
    us = {name: 1e6 * seconds for name, seconds in found.items()}
    return "µs: " + ", ".join(f"{name} {value:.2f}" for name, value in us.items()), {"us": us}


def launches(device: torch.device) -> Result:
    """Time the smallest kernel: in a graph, and issued one by one."""
    x = torch.ones(1, device=device)

    def many() -> None:
        for _ in range(CALLS):
            x.add_(1)

    return microseconds({"kernel in a graph": kernel_s(device, partial(x.add_, 1), 200),
                         "kernel issued": 1e-3 * time_ms(device, many, 10) / CALLS})


def host(device: torch.device, repeats: int) -> Result:
    """Time what the host spends on an operator, forwards and backwards, on a wait, and on a copy to the device."""
    x, w = torch.ones(8, 8, device=device), torch.ones(8, 8, device=device, requires_grad=True)
    pinned = torch.ones(2**14)
    pinned = pinned.pin_memory() if device.type == "cuda" else pinned
    layer = nn.Linear(8, 8).to(device)

    def backward(operators: int) -> None:
        y = w
        for _ in range(operators):
            y = y * x
        y.sum().backward()
        w.grad = None

    def backward_s(operators: int) -> float:
        def once() -> float:
            synchronize(device)
            began = perf_counter()
            backward(operators)
            return perf_counter() - began

        once()
        return median(once() for _ in range(repeats))

    both = (backward_s(200) - backward_s(100)) / 100
    forward = issue_s(device, lambda: w * x, repeats)
    return microseconds({
        "add_": issue_s(device, partial(x.add_, 0), repeats), "mul with autograd": forward,
        "mul backwards": max(0.0, both - forward), "mm": issue_s(device, partial(torch.mm, x, x), repeats),
        "linear with autograd": issue_s(device, partial(layer, x), repeats),
        "view": issue_s(device, partial(x.view, 64), repeats),
        "copy of 64 KiB from pinned memory": issue_s(device, partial(pinned.to, device, non_blocking=True), repeats),
        "item": issue_s(device, x[0, 0].item, repeats)})


def products(device: torch.device, dtype: torch.dtype, shapes: list[tuple[int, int, int]]) -> Result:
    """Time products, random matrices of rows x inner times inner x columns."""
    rows: list[dict[str, Any]] = []
    for m, k, n in shapes:
        a, b = (torch.randn(shape, device=device).to(dtype) for shape in ((m, k), (k, n)))
        seconds = kernel_s(device, partial(torch.mm, a, b))
        rows.append({"rows": m, "inner": k, "columns": n, "us": 1e6 * seconds, "tflops": 2e-12 * m * k * n / seconds})
    text = ", ".join(f"{row['rows']}x{row['inner']}x{row['columns']} {row['tflops']:.0f}" for row in rows)
    return f"TFLOP/s: {text}", {"products": rows}


def copies(device: torch.device, sizes: list[int]) -> Result:
    """Time copies within the device's memory, each byte counted as read and as written."""
    rows: list[dict[str, Any]] = []
    for nbytes in sizes:
        source = torch.ones(nbytes // 4, device=device)
        seconds = kernel_s(device, partial(torch.empty_like(source).copy_, source))
        rows.append({"bytes": nbytes, "us": 1e6 * seconds, "gb_per_s": 2e-9 * nbytes / seconds})
    text = ", ".join(f"{row['bytes'] / 2**20:g} MiB {row['gb_per_s']:,.0f}" for row in rows)
    return f"GB/s: {text}", {"copies": rows}


def recurrence(device: torch.device, dtype: torch.dtype, states: list[tuple[int, int]], repeats: int) -> Result:
    """Time a step of one LSTM layer in training, forwards alone and both ways."""
    rows: list[dict[str, Any]] = []
    for width, sentences in states:
        layer = nn.LSTM(width, width, batch_first=True).to(device, dtype)

        (short, long), steps = STEPS, STEPS[1] - STEPS[0]
        inputs = {n: torch.randn(sentences, n, width, device=device, dtype=dtype, requires_grad=True) for n in STEPS}
        seconds = {(n, both): lstm_s(layer, x, both, repeats) for n, x in inputs.items() for both in (False, True)}
        forward, both = ((seconds[long, way] - seconds[short, way]) / steps for way in (False, True))
        rows.append({"d_hidden": width, "sentences": sentences, "forward_us": 1e6 * forward, "both_us": 1e6 * both})
    text = ", ".join(f"{row['d_hidden']} x {row['sentences']} {row['forward_us']:.1f} and {row['both_us']:.1f}"
                     for row in rows)
    return f"µs a step, forwards and both ways: {text}", {"steps": rows}


def lstm_s(layer: nn.LSTM, x: Tensor, both: bool, repeats: int) -> float:
    """Return the seconds of a layer over a batch, forwards, or both ways."""
    def once() -> None:
        y: Tensor = layer(x)[0]
        if both:
            y.sum().backward()

    return 1e-3 * time_ms(x.device, once, repeats)


def adamw(device: torch.device, repeats: int, toys: bool) -> Result:
    """Time a step of AdamW on the weights of a Transformer."""
    size = "toy" if toys else "base"
    cfg = composed("experiment=headline_base", "model=transformer", f"model.size={size}")
    model = build_model(cfg.model, src_vocab_size=1000 if toys else 32000, tgt_vocab_size=1000 if toys else 32000)
    return time_adamw(list(model.to(device).parameters()), device, repeats)
