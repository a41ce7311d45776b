"""How fast a device multiplies matrices and copies memory, and the most it could: what an MFU is a share of."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter

import torch
from torch import Tensor

from minitx.profiling.devices import device_named
from minitx.profiling.process import waiting_s

DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16,
          "bf16-true": torch.bfloat16, "64-true": torch.float64}
SIDES = (256, 512, 1024, 2048, 4096, 8192)  # of the square products that are measured
WINDOW_S, SWEEP_S, LIMIT_S = 0.002, 0.4, 2.0  # of one size at a time; of all; of all where no window is quiet
QUIET = 0.05  # of a window that our threads may wait for a core, because of other programs
ENOUGH_S = 0.2  # of repeats of one product alone
COPIED = 2**26  # numbers, 256 MiB in fp32: beyond any cache


@dataclass(frozen=True)
class Peak:
    """Hold TFLOP/s and their source: "data sheet", "measured", or, where there are none, the reason."""

    tflops: float | None
    source: str

    def __str__(self) -> str:
        return f"n/a ({self.source})" if self.tflops is None else f"{self.tflops:,.3g} TFLOP/s ({self.source})"

    def of(self, devices: int) -> "Peak":
        """Return the peak of several such devices."""
        return replace(self, tflops=None if self.tflops is None else self.tflops * devices)

    def mfu_pct(self, flop: float | None, seconds: float) -> float | None:
        """Return the share of the peak that `flop` useful operations took; None = unknown, or above what can be."""
        if self.tflops is None or flop is None or seconds <= 0:
            return None
        share = 100e-12 * flop / seconds / self.tflops
        return share if share <= 100 else None


def peak(device: torch.device, precision: str) -> Peak:
    """Look the device up by name, else measure. Never fails: without a figure, `source` is the reason."""
    try:
        dtype = DTYPES[precision]
        sheet = data_sheet(torch.cuda.get_device_name(device), dtype) if device.type == "cuda" else None
        return Peak(sheet, "data sheet") if sheet is not None else Peak(sweep(device, dtype), "measured")
    except Exception as error:  # a missing figure is no reason to lose a run
        return Peak(None, f"no product could be timed: {' '.join(str(error).split())[:100]}")


def data_sheet(name: str, dtype: torch.dtype) -> float | None:
    """Return the maker's TFLOP/s for products of this format on the GPU that torch calls `name`, if it is listed.

    fp32 products use tf32 units where torch allows it.
    """
    device = device_named(name)
    if device is None:
        return None
    if dtype is torch.float16 or dtype is torch.bfloat16 and device.has_bf16:
        return device.half
    if dtype is not torch.float32:
        return None
    return device.fp32 if device.tf32 is None or torch.get_float32_matmul_precision() == "highest" else device.tf32


def sweep(device: torch.device, dtype: torch.dtype) -> float:
    """Return the best TFLOP/s of a few square products.

    Other programs make products slower, never faster, so the fastest counts. Sizes take turns in short windows, so that
    each gets quiet moments; a larger one is tried while there is time for it.
    Errors: RuntimeError if no window of a CPU was quiet: then the fastest product may be many times too slow.
    """
    began, quiet = perf_counter(), device.type != "cpu"
    work: dict[int, Callable[[], object]] = {}
    tflops: dict[int, float] = {}
    while True:
        for side in SIDES:
            if side not in work:
                need_s = 3 * 2e-12 * side**3 / max(tflops.values()) if tflops else 0.0  # operands are drawn, too
                if tflops and perf_counter() - began + need_s > SWEEP_S:
                    break
                work[side] = product(device, dtype, side, side, side)
            waited_s = waiting_s()
            seconds = timings(work[side], device, WINDOW_S)
            quiet = quiet or waiting_s() - waited_s <= QUIET * sum(seconds)
            tflops[side] = max(tflops.get(side, 0.0), 2e-12 * side**3 / min(seconds))
        elapsed_s = perf_counter() - began
        if quiet and elapsed_s > SWEEP_S:
            return max(tflops.values())
        if elapsed_s > LIMIT_S:
            raise RuntimeError("other programs kept it waiting for a core all the time")


def matmul_gflops(device: torch.device, dtype: torch.dtype, rows: int, inner: int, columns: int) -> float:
    """Return the best speed of [rows, inner] @ [inner, columns], a product and a sum counted as two operations."""
    return 2e-9 * rows * inner * columns / min(timings(product(device, dtype, rows, inner, columns), device, ENOUGH_S))


def copy_gb_per_s(device: torch.device) -> float:
    """Return the best speed at which memory is copied, each byte counted as read and as written.

    A CPU copies slice after slice, each in a few ms: between two turns of a neighbour.
    """
    slices = 16 if device.type == "cpu" else 1
    source = torch.ones(COPIED, device=device)
    target = source.clone()  # so that its pages are there
    parts = list(zip(target.chunk(slices), source.chunk(slices), strict=True))
    seconds: list[float] = []
    while sum(seconds) < ENOUGH_S:
        seconds += [time_s(partial(to.copy_, part), device) for to, part in parts]
    return 2e-9 * source.nbytes / slices / min(seconds)


def product(device: torch.device, dtype: torch.dtype, rows: int, inner: int, columns: int) -> Callable[[], Tensor]:
    """Draw two matrices, and return what multiplies them."""
    a, b = (torch.rand(shape, device=device).to(dtype) for shape in ((rows, inner), (inner, columns)))
    return lambda: a @ b


def timings(work: Callable[[], object], device: torch.device, enough_s: float) -> list[float]:
    """Return the seconds of each repeat of `work`: at least two, and `enough_s` in all."""
    seconds: list[float] = []
    while len(seconds) < 2 or sum(seconds) < enough_s:
        seconds.append(time_s(work, device))
    return seconds


def time_s(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that `work` takes once."""
    start = perf_counter()
    work()
    synchronize(device)
    return perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
