"""A timeline of one update: the host issues kernels, the device executes them, and whichever is later decides.

A kernel takes the longer of its arithmetic and its memory traffic, and a floor on top: to start, to fill the device and
to drain it. Arithmetic is done tile by tile: a product is cut into blocks, each on a multiprocessor, and blocks run in
waves (NVIDIA, Matrix Multiplication Background User's Guide, DU-09799, sections 2 and 3).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import ceil

from minitx.profiling.devices import Device
from minitx.profiling.kernels import Kernel

TILES = ((256, 128), (128, 256), (128, 128), (128, 64), (64, 128), (64, 64), (64, 32), (32, 64), (32, 32))
SPLITS = (2, 4, 8)  # parts of the inner dimension, each a block of its own
LEAST_INNER = 256  # of a part
BLOCK = 2**14  # bytes that a block of another kernel moves
BYTES = {"half": 2, "float": 4, "double": 8, "int": 8}


@dataclass(frozen=True)
class Constants:
    """What no data sheet says. Where a value comes from: `experiments/prediction/calibration.py`.

    A tile of h x w numbers reads h + w of them for h w multiply-adds; its `intensity` is h w / (h + w). At the
    intensity named here it reaches half of the peak of tensor units, or of plain units.
    """

    tensor_intensity: float = 22.6
    plain_intensity: float = 10.9
    memory: float = 0.69  # share of the sheet's bandwidth that is had, of the memory and of the cache
    product_us: float = 8.5  # of a product, on top of its work
    kernel_us: float = 2.0  # of any other kernel
    step_us: float = 17.5  # of each of the two kernels of a step of cuDNN's LSTM
    gap_us: float = 0.0  # in which the device waits before each kernel, for a host that waits for it in turn
    operator_us: float = 8.0  # of the host, to issue an operator that launches a kernel
    view_us: float = 2.0  # of the host, for one that launches none
    launch_us: float = 3.0  # of the host, to launch one more kernel from inside a library
    update_us: float = 200.0  # of the host, between two updates: Lightning's loop


@dataclass(frozen=True)
class Model:
    """Which parts of the model of a device are on; each is left out to see what it is worth."""

    tiles: bool = True  # products run in whole tiles and waves; else at the speed of the largest tile
    memory: bool = True  # bytes take time
    cache: bool = True  # what fits into the L2 cache is read from there, and tiles read from it
    floors: bool = True  # each kernel takes the floor on top of its work
    host: bool = True  # operators wait for the host; off, as in a CUDA graph, they do not


WHOLE = Model()
# What no published training tests: how fast the host and the smallest kernels are. Between these a GPU of today lies.
# A slow host needs for an operator what one was measured to need (20.8 us at most, results/host/), and a launch.
FAST = Constants(product_us=3.0, step_us=4.0, operator_us=4.0, view_us=1.0, launch_us=2.0, update_us=100.0)
SLOW = Constants(operator_us=24.0, view_us=6.0, launch_us=5.0, update_us=400.0)


@dataclass(frozen=True)
class Taken:
    """What a kernel takes: seconds of work, seconds on top of it, and the share of the multiprocessors with work."""

    work_s: float
    floor_s: float
    share: float

    @property
    def seconds(self) -> float:
        """Return the seconds until the next kernel can begin."""
        return self.work_s + self.floor_s


@dataclass(frozen=True)
class Timeline:
    """One update as predicted. Seconds.

    Of a kernel's floor, only as much as the smallest kernel takes is sure to be a running kernel: the rest may be a
    wait between two. So the share of the time in which some kernel runs, as NVML counts it, lies between two figures.
    """

    seconds: float
    busy_s: float  # all of a floor counted
    surely_busy_s: float  # of a floor, `Constants.kernel_us` alone
    occupied_s: float  # work alone, weighed by its share of the multiprocessors
    by_kind: dict[str, float] = field(default_factory=dict)  # of kernels
    launches: int = 0


def peak_flops(device: Device, dtype: str, tf32: bool) -> tuple[float, bool]:
    """Return the FLOP/s of products in a format, and whether tensor units do them."""
    if dtype == "half" and device.half is not None:
        return 1e12 * device.half, True
    if dtype in ("half", "float") and tf32 and device.tf32 is not None:
        return 1e12 * device.tf32, True
    return 1e12 * device.fp32 / (2 if dtype == "double" else 1), False


@dataclass(frozen=True)
class Pace:
    """A device under given constants: how long a kernel takes there."""

    device: Device
    constants: Constants
    model: Model = WHOLE
    tf32: bool = False  # whether products of fp32 may round their factors

    def kernel(self, kernel: Kernel) -> "Taken":
        """Return how long a kernel takes, and how much of the device."""
        moved, blocks, arithmetic = self.memory_s(kernel), kernel.nbytes / BLOCK, 0.0
        if kernel.product is not None:
            tf32 = self.tf32 or kernel.launched_by == "library"  # cuDNN rounds factors unless it is told not to
            arithmetic, blocks = self.product_s(kernel.product, kernel.dtype, kernel.flop, tf32)
        return Taken(max(moved, arithmetic), self.floor_s(kernel),
                     min(1.0, max(1.0, blocks) / self.device.multiprocessors))

    def floor_s(self, kernel: Kernel) -> float:
        """Return the seconds that a kernel takes on top of its work."""
        if not self.model.floors:
            return 0.0
        if kernel.launched_by == "library" or kernel.steps > 1:
            return 1e-6 * self.constants.step_us * kernel.steps
        return 1e-6 * kernel.launches * (
            self.constants.kernel_us if kernel.product is None else self.constants.product_us)

    def memory_s(self, kernel: Kernel) -> float:
        """Return the seconds in which its bytes are moved, from the cache if they fit there."""
        if not self.model.memory:
            return 0.0
        fits = self.model.cache and kernel.nbytes <= self.device.l2_mib * 2**20 / 2
        return kernel.nbytes / (self.cache_bytes_s if fits else self.memory_bytes_s)

    @property
    def memory_bytes_s(self) -> float:
        """Return the bytes a second from memory."""
        return 1e9 * self.device.bandwidth_gb_s * self.constants.memory

    @property
    def cache_bytes_s(self) -> float:
        """Return the bytes a second from the L2 cache."""
        return 1e9 * self.device.l2_bytes_per_clock * self.device.clock_ghz * self.constants.memory

    def product_s(self, product: tuple[int, int, int, int], dtype: str, flop: float, tf32: bool) -> tuple[float, float]:
        """Return the seconds of products by the best choice of tiles, and its number of blocks.

        flop: of all of them; attention has more than one product of that shape
        """
        peak, on_tensor_units = peak_flops(self.device, dtype, tf32)
        half_at = self.constants.tensor_intensity if on_tensor_units else self.constants.plain_intensity
        cache_bytes_s = self.cache_bytes_s if self.model.cache else float("inf")
        if not self.model.tiles:
            return flop / (peak * share_of_peak(*TILES[0], half_at)), float("inf")
        tiling = best_tiles(*product, BYTES[dtype], peak, half_at, self.device.multiprocessors, cache_bytes_s)
        batch, rows, columns, inner = product
        return tiling[0] * flop / (2.0 * batch * rows * columns * inner), tiling[1]


def share_of_peak(high: int, wide: int, half_at: float) -> float:
    """Return the share of a multiprocessor's peak that a tile reaches."""
    intensity = high * wide / (high + wide)
    return intensity / (intensity + half_at)


@cache
def best_tiles(batch: int, rows: int, columns: int, inner: int, nbytes: int, peak: float, half_at: float,
               multiprocessors: int, cache_bytes_s: float) -> tuple[float, float]:
    """Return the seconds of a batch of products in the fastest choice of tiles and parts, and its number of blocks.

    nbytes: of a number; peak: of all multiprocessors, FLOP/s; half_at: as in `Constants`
    """
    best = float("inf"), 1.0
    for high, wide in TILES:
        for parts in (1, *(parts for parts in SPLITS if inner / parts >= LEAST_INNER)):
            blocks, depth = batch * ceil(rows / high) * ceil(columns / wide) * parts, inner / parts
            rate = peak / multiprocessors * share_of_peak(high, wide, half_at)
            seconds = ceil(blocks / multiprocessors) * 2.0 * high * wide * depth / rate
            added = 8 * parts * batch * rows * columns if parts > 1 else 0  # sums of parts in fp32, written and read
            seconds = max(seconds, (blocks * (high + wide) * depth * nbytes + added) / cache_bytes_s)
            best = min(best, (seconds, float(blocks)))
    return best


def timeline(kernels: Sequence[Kernel], pace: Pace) -> Timeline:
    """Predict one of many updates, of which each waits for its own end where the host reads the loss."""
    took = {kernel: pace.kernel(kernel) for kernel in set(kernels) if kernel.kind != "view"}
    issue = {kernel: host_s(kernel, pace) for kernel in set(kernels)}
    gap = 1e-6 * pace.constants.gap_us
    host = device = began = 0.0
    for _ in range(2):  # the first fills the queue
        began = max(host, device)
        host += 1e-6 * pace.constants.update_us if pace.model.host else 0.0
        for kernel in kernels:
            host += issue[kernel]
            if kernel in took:
                device = max(host, device + gap) + took[kernel].seconds
            if kernel.host_waits:
                host = max(host, device)
    return _summary(max(host, device) - began, [kernel for kernel in kernels if kernel in took], took, pace)


def _summary(seconds: float, kernels: Sequence[Kernel], took: Mapping[Kernel, Taken], pace: Pace) -> Timeline:
    by_kind = defaultdict[str, float](float)
    surely = occupied = 0.0
    for kernel in kernels:
        taken = took[kernel]
        by_kind[kernel.kind] += taken.seconds
        least_s = taken.floor_s if kernel.steps > 1 else 1e-6 * pace.constants.kernel_us * kernel.launches
        surely += taken.work_s + min(taken.floor_s, least_s)
        occupied += taken.work_s * taken.share
    return Timeline(seconds, sum(by_kind.values()), surely, occupied, dict(by_kind),
                    sum(kernel.launches for kernel in kernels))


def host_s(kernel: Kernel, pace: Pace) -> float:
    """Return the seconds that the host needs to issue an operator."""
    if not pace.model.host:
        return 0.0
    constants = pace.constants
    if kernel.kind == "view":
        return 1e-6 * constants.view_us
    first = constants.operator_us if kernel.launched_by == "operator" else constants.launch_us
    return 1e-6 * (first + (kernel.launches - 1) * constants.launch_us)
