"""What a device could do at most: by its name where a maker says so, else measured, else unknown and why."""

from itertools import accumulate, count

import pytest
import torch
from played_cuda import played_gpu

from minitx.profiling import peak as peaks
from minitx.profiling.peak import Peak, data_sheet, peak, sweep

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("name", "bf16", "fp32"), [
    ("NVIDIA H100 80GB HBM3", 989.4, 66.9), ("NVIDIA H100 PCIe", 756.0, 51.2), ("NVIDIA H100 NVL", 835.5, 60.0),
    ("NVIDIA H200", 989.5, 67.0), ("NVIDIA A100-SXM4-80GB", 312.0, 19.5), ("NVIDIA A100 80GB PCIe", 312.0, 19.5),
    ("NVIDIA L4", 121.0, 30.3), ("NVIDIA L40S", 362.05, 91.6), ("NVIDIA A10", 125.0, 31.2), ("Tesla T4", None, 8.1),
    ("Tesla V100-SXM2-16GB", None, 15.7), ("NVIDIA GeForce RTX 3090", 71.0, 35.6),
    ("NVIDIA GeForce RTX 4090", 165.2, 82.6), ("NVIDIA RTX A6000", 154.8, 38.7),
    ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None, None), ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None, None),
    ("NVIDIA A10G", None, None), ("NVIDIA L40", None, None), ("NVIDIA GeForce RTX 3090 Ti", None, None),
    ("NVIDIA RTX A6000 Laptop GPU", None, None), ("AMD Instinct MI300X", None, None),
])  # fmt: skip
def test_a_sheet_is_of_the_device_by_exactly_that_name(name: str, bf16: float | None, fp32: float | None) -> None:
    assert data_sheet(name, torch.bfloat16) == bf16
    assert data_sheet(name, torch.float32) == fp32
    assert data_sheet(name, torch.float64) is None


@pytest.mark.parametrize(("name", "fp16"), [
    ("Tesla V100-SXM2-16GB", 125.0), ("Tesla V100-PCIE-32GB", 112.0), ("Tesla T4", 65.0), ("NVIDIA L4", 121.0)])
def test_16_bits_are_fp16_where_there_is_no_bf16(monkeypatch: pytest.MonkeyPatch, name: str, fp16: float) -> None:
    assert data_sheet(name, torch.float16) == fp16
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak(CUDA, "16-mixed") == Peak(fp16, "data sheet")


def test_tf32_counts_where_torch_may_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert data_sheet("NVIDIA H100 PCIe", torch.float32) == 378.0
    assert data_sheet("Tesla T4", torch.float32) == 8.1


def test_a_known_gpu_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA L4")
    monkeypatch.setattr(peaks, "sweep", lambda *_: pytest.fail("not needed"))
    assert str(peak(CUDA, "bf16-mixed")) == "121 TFLOP/s (data sheet)"


class Machine:
    """Stand in for a processor that multiplies matrices of each size at a speed, in GFLOP/s.

    Neighbours leave it the first `quiet_us` of each `turn_us`: a product that is not done by then waits for the next.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, speeds: dict[int, float], quiet_us: int = 1000,
                 turn_us: int = 1000) -> None:
        self.speeds, self.quiet_ns, self.turn_ns = speeds, 1000 * quiet_us, 1000 * turn_us
        self.now_ns, self.waited_ns, self.tried = 0, 0, list[int]()
        monkeypatch.setattr(peaks, "perf_counter", lambda: 1e-9 * self.now_ns)
        monkeypatch.setattr(peaks, "waiting_s", lambda: 1e-9 * self.waited_ns)
        monkeypatch.setattr(peaks, "product", lambda device, dtype, side, *_: lambda: self.multiply(side))

    def multiply(self, side: int) -> None:
        self.tried.append(side)
        need_ns = round(2 * side**3 / self.speeds[side])
        while need_ns:
            turn, within_ns = divmod(self.now_ns, self.turn_ns)
            ran_ns = min(need_ns, max(0, self.quiet_ns - within_ns))
            need_ns -= ran_ns
            self.now_ns += ran_ns
            if need_ns:
                self.waited_ns += (turn + 1) * self.turn_ns - self.now_ns
                self.now_ns = (turn + 1) * self.turn_ns


def test_another_is_measured_by_the_best_of_the_sizes_that_there_is_time_for(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, {256: 3.0, 512: 90.0, 1024: 60.0})
    found = peak(CPU, "32-true")
    assert (found.tflops, found.source) == (pytest.approx(0.09), "measured")
    assert list(dict.fromkeys(machine.tried)) == [256, 512, 1024], "at 90 GFLOP/s, 2,048 would take 0.6 s"
    assert 0.4e9 < machine.now_ns < 0.55e9
    monkeypatch.setattr(peaks, "SWEEP_S", 0.0)
    assert sweep(CPU, torch.float32) == pytest.approx(0.003)


@pytest.mark.parametrize(("quiet_us", "turn_us", "tflops"), [
    (4000, 8100, 0.09),  # a neighbour on one of its cores
    (2500, 30_000, 0.06),  # many: only the small products fit in
])
def test_neighbours_do_not_spoil_it(monkeypatch: pytest.MonkeyPatch, quiet_us: int, turn_us: int,
                                    tflops: float) -> None:
    machine = Machine(monkeypatch, {256: 60.0, 512: 90.0, 1024: 80.0}, quiet_us, turn_us)
    found = peak(CPU, "32-true")
    assert (found.tflops, found.source) == (pytest.approx(tflops), "measured")
    assert machine.now_ns < 2.5e9


def test_where_no_moment_is_quiet_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each product takes 30 ms or more, and all agree on that."""
    machine = Machine(monkeypatch, {256: 60.0, 512: 90.0, 1024: 80.0}, 500, 30_000)
    assert peak(CPU, "32-true") == Peak(
        None, "no product could be timed: other programs kept it waiting for a core all the time")
    assert 2e9 < machine.now_ns < 2.5e9


def test_what_fails_is_no_figure_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no kernel image\n is available")

    monkeypatch.setattr(peaks, "product", fail)
    found = peak(CPU, "64-true")
    assert found == Peak(None, "no product could be timed: no kernel image is available")
    assert str(found) == "n/a (no product could be timed: no kernel image is available)"
    assert found.mfu_pct(1e12, 1.0) is None


def test_mfu_is_a_share_and_never_a_guess() -> None:
    found = Peak(2.0, "measured")
    assert found.mfu_pct(1e12, 1.0) == pytest.approx(50)
    assert found.mfu_pct(3e12, 1.0) is None, "more than the peak: one of the figures is wrong"
    assert found.mfu_pct(None, 1.0) is None
    assert found.mfu_pct(1e12, 0.0) is None


def test_a_speed_is_operations_over_the_fastest_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = accumulate([0.0, 3.0, 1.0, 1.0])  # two products, of 3 seconds and of 1
    monkeypatch.setattr(peaks, "perf_counter", lambda: float(next(ticks)))
    cpu = torch.device("cpu")
    assert peaks.matmul_gflops(cpu, torch.float32, 10, 20, 30) == pytest.approx(2 * 10 * 20 * 30 * 1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_speed_is_measured_in_each_format(dtype: torch.dtype) -> None:
    assert peaks.matmul_gflops(CPU, dtype, 64, 32, 128) > 0


def test_the_speed_of_memory_is_that_of_the_fastest_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "COPIED", 1600)
    seconds = iter([0.5] * 15 + [0.001] + [0.5] * 1000)
    monkeypatch.setattr(peaks, "time_s", lambda copy, device: (copy(), next(seconds))[1])
    assert peaks.copy_gb_per_s(CPU) == pytest.approx(2e-9 * 400 / 0.001), "a sixteenth of 6,400 bytes"


def test_a_gpu_is_waited_for_before_the_clock_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch returns at once; the product is done when the host has waited for it."""
    seconds, waited = count(), list[object]()
    monkeypatch.setattr(peaks, "perf_counter", lambda: float(next(seconds)))
    with played_gpu(synchronize=lambda device: (waited.append(device), next(seconds))):
        assert peaks.time_s(lambda: None, CUDA) == 2.0
        assert peaks.time_s(lambda: None, CPU) == 1.0
    assert waited == [CUDA]


def test_a_gpu_that_is_on_no_sheet_is_measured_and_other_programs_of_the_cpu_do_not_matter(
        monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, {256: 60.0, 512: 90.0, 1024: 80.0}, 500, 30_000)
    with played_gpu(get_device_name=lambda device: "NVIDIA B1000"):
        found = peak(CUDA, "bf16-mixed")
    assert found.source == "measured"
    assert machine.now_ns < 0.6e9, "it did not look for a quiet moment"


def test_a_gpu_copies_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "COPIED", 1600)
    monkeypatch.setattr(peaks, "time_s", lambda copy, device: (copy(), 0.5)[1])
    with played_gpu():
        assert peaks.copy_gb_per_s(CUDA) == pytest.approx(2e-9 * 6400 / 0.5)
