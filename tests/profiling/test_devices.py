"""GPUs by name: what drivers of any age call them, slices and relatives that are not them, and sheets that add up."""

from itertools import combinations

import pytest

from minitx.profiling.devices import DEVICES, Device, by_name, device_named
from minitx.utils.errors import UserError

SMALL_UNITS = {(7, 0): 64, (7, 5): 64, (8, 0): 64, (8, 6): 128, (8, 9): 128, (9, 0): 128}  # of fp32 a multiprocessor
DEVICE = pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)


@pytest.mark.parametrize(("torch_name", "name"), [
    ("Tesla V100-SXM2-16GB", "v100"), ("Tesla V100-SXM2-32GB", "v100-32"), ("Tesla V100-SXM3-32GB", "v100-32"),
    ("Tesla V100-SXM3-32GB-H", "v100-32"), ("Tesla V100-PCIE-16GB", "v100-pcie"), ("Tesla T4", "t4"),
    ("NVIDIA T4", "t4"), ("A100-SXM4-40GB", "a100"), ("NVIDIA A100-SXM4-40GB", "a100"),
    ("NVIDIA A100-PCIE-40GB", "a100"), ("NVIDIA A100-SXM4-80GB", "a100-80"), ("NVIDIA A10", "a10"),
    ("GeForce RTX 3090", "rtx3090"), ("NVIDIA GeForce RTX 3090", "rtx3090"), ("NVIDIA RTX A6000", "a6000"),
    ("NVIDIA L4", "l4"), ("NVIDIA L40S", "l40s"), ("NVIDIA GeForce RTX 4090", "rtx4090"),
    ("NVIDIA H100 80GB HBM3", "h100"), ("NVIDIA H100 PCIe", "h100-pcie"), ("NVIDIA H100 NVL", "h100-nvl"),
    ("NVIDIA H200", "h200"), ("NVIDIA H200 NVL", "h200-nvl")])
def test_a_gpu_is_known_by_what_drivers_call_it(torch_name: str, name: str) -> None:
    found = device_named(torch_name)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("torch_name", [
    "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA A100-SXM4-40GB MIG 3g.20gb", "NVIDIA A100-SXM4-80GB MIG 7g.80gb",
    "NVIDIA A10G", "NVIDIA A100X", "NVIDIA A800-SXM4-80GB", "NVIDIA H800", "NVIDIA H20", "NVIDIA GH200 480GB",
    "NVIDIA L40", "NVIDIA GeForce RTX 3090 Ti", "NVIDIA GeForce RTX 4090 D", "NVIDIA GeForce RTX 4090 Laptop GPU",
    "NVIDIA RTX 6000 Ada Generation", "Quadro RTX 6000", "Tesla V100S-PCIE-32GB", "Tesla T40", "AMD Instinct MI300X",
    "NVIDIA", ""])
def test_a_slice_of_a_gpu_or_a_relative_is_none_that_is_listed(torch_name: str) -> None:
    assert device_named(torch_name) is None


@DEVICE
def test_a_name_on_a_command_line_is_one_device(device: Device) -> None:
    assert by_name(device.name) is device
    assert by_name(device.name.upper()) is device


def test_an_unknown_name_is_told_all_that_are_known() -> None:
    with pytest.raises(UserError, match=r"^b200: no such GPU is listed; known are v100, .*h200-nvl"):
        by_name("b200")


def test_names_and_patterns_are_of_one_device_each() -> None:
    for one, other in combinations(DEVICES, 2):
        assert one.name != other.name
        assert one.pattern != other.pattern


@DEVICE
def test_plain_units_multiply_and_add_once_a_clock(device: Device) -> None:
    """Twice units x multiprocessors x boost clock is what a sheet calls its fp32 peak, within rounding and clocks."""
    flops = 2 * SMALL_UNITS[device.capability] * device.multiprocessors * device.clock_ghz * 1e9
    assert 1e12 * device.fp32 == pytest.approx(flops, rel=0.1)


@DEVICE
def test_a_sheet_is_in_order(device: Device) -> None:
    assert device.source
    peaks = [peak for peak in (device.fp32, device.tf32, device.half) if peak is not None]
    assert peaks == sorted(peaks)
    assert device.has_bf16 == (device.tf32 is not None), "both since Ampere"
    if device.tf32 is not None and device.half is not None:
        assert device.half == pytest.approx(2 * device.tf32, rel=0.03)
    cache_gb_s = device.l2_bytes_per_clock * device.clock_ghz
    assert device.link_gb_s < device.bandwidth_gb_s < cache_gb_s
