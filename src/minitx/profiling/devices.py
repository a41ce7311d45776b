"""GPUs by their data sheets: how fast each can multiply, move bytes and talk to its neighbours."""

import re
from dataclasses import dataclass

from minitx.utils.errors import UserError

PREFIX = re.compile(r"^(NVIDIA )?(Tesla )?")  # of the names that drivers of different ages give one device
READ_WITH_VOWEL = "AEFHILMNORSX"  # letters whose names begin with a vowel


@dataclass(frozen=True)
class Device:
    """A GPU. TFLOP/s are of dense products (half of what a sheet gives "with sparsity" alone), None = no such units.

    half: of bf16 products, or of fp16 where there are none in bf16, with sums in fp32
    l2_bytes_per_clock: of all slices of the cache; what no source gives is taken from the nearest relative, and said
    link: bytes a second each way to the other GPUs of a machine
    """

    name: str
    pattern: str  # of what torch calls it, without "NVIDIA"
    capability: tuple[int, int]
    multiprocessors: int
    clock_ghz: float  # boost
    half: float | None
    tf32: float | None
    fp32: float
    bandwidth_gb_s: float
    memory_gb: float
    l2_mib: float
    l2_bytes_per_clock: int
    link_gb_s: float
    source: str

    @property
    def has_bf16(self) -> bool:
        """Return whether it multiplies in bf16: since Ampere."""
        return self.capability >= (8, 0)


VOLTA = "NVIDIA Tesla V100 GPU Architecture, WP-08608 (V1.1), table 1; L2: PMC10448217, table 3"
TURING = "NVIDIA T4, datasheet; NVIDIA Turing GPU Architecture, WP-09183; L2 a clock, by its slices, half of V100's"
AMPERE = "NVIDIA A100 Tensor Core GPU Architecture, V1.0, tables 1, 4 and 5; L2: PMC10448217, table 3"
HOPPER = "NVIDIA H100 Tensor Core GPU Architecture, V1.04, tables 2 and 3; L2: PMC10448217, table 3"
ADA = "NVIDIA Ada GPU Architecture, V2.1, appendix A; L2 a clock as A100's"
GA102 = "NVIDIA Ampere GA102 GPU Architecture, V2.1, appendices A and B; L2 a clock as V100's"

DEVICES = (
    Device("v100", r"V100-SXM2(-16GB)?", (7, 0), 80, 1.53, 125.0, None, 15.7, 900, 16, 6, 2048, 150, VOLTA),
    Device("v100-32", r"V100-SXM\d-32GB.*", (7, 0), 80, 1.53, 125.0, None, 15.7, 900, 32, 6, 2048, 150, VOLTA),
    Device("v100-pcie", r"V100-PCIE.*", (7, 0), 80, 1.38, 112.0, None, 14.0, 900, 16, 6, 2048, 16, VOLTA),
    Device("t4", r"T4", (7, 5), 40, 1.59, 65.0, None, 8.1, 320, 16, 4, 1024, 16, TURING),
    Device("a100", r"A100(-.*40GB)?", (8, 0), 108, 1.41, 312.0, 156.0, 19.5, 1555, 40, 40, 5120, 300, AMPERE),
    Device("a100-80", r"A100.*80GB.*", (8, 0), 108, 1.41, 312.0, 156.0, 19.5, 2039, 80, 40, 5120, 300,
           AMPERE + "; NVIDIA A100, datasheet, for 80 GB"),
    Device("a10", r"A10", (8, 6), 72, 1.695, 125.0, 62.5, 31.2, 600, 24, 6, 2048, 32,
           "NVIDIA A10, datasheet; L2 a clock as V100's"),
    Device("rtx3090", r"GeForce RTX 3090", (8, 6), 82, 1.695, 71.0, 35.6, 35.6, 936, 24, 6, 2048, 56, GA102),
    Device("a6000", r"RTX A6000", (8, 6), 84, 1.8, 154.8, 77.4, 38.7, 768, 48, 6, 2048, 56, GA102),
    Device("l4", r"L4", (8, 9), 58, 2.04, 121.0, 60.0, 30.3, 300, 24, 48, 3712, 32,
           "NVIDIA L4, datasheet (242 and 120 with sparsity); L2 64 bytes a clock and multiprocessor"),
    Device("l40s", r"L40S", (8, 9), 142, 2.52, 362.05, 183.0, 91.6, 864, 48, 96, 5120, 32,
           "NVIDIA L40S, datasheet; L2 a clock as A100's"),
    Device("rtx4090", r"GeForce RTX 4090", (8, 9), 128, 2.52, 165.2, 82.6, 82.6, 1008, 24, 72, 5120, 32, ADA),
    Device("h100", r"H100( SXM\d?)?( 80GB HBM3)?", (9, 0), 132, 1.83, 989.4, 494.7, 66.9, 3352, 80, 50, 5120, 450,
           HOPPER),
    Device("h100-pcie", r"H100 PCIe", (9, 0), 114, 1.755, 756.0, 378.0, 51.2, 2039, 80, 50, 5120, 64, HOPPER),
    Device("h100-nvl", r"H100 NVL", (9, 0), 132, 1.785, 835.5, 417.5, 60.0, 3938, 94, 50, 5120, 300,
           "NVIDIA H100 NVL, datasheet (1,671 and 835 with sparsity); L2 as H100's"),
    Device("h200", r"H200", (9, 0), 132, 1.83, 989.5, 494.5, 67.0, 4800, 141, 50, 5120, 450,
           "NVIDIA H200, datasheet (1,979 and 989 with sparsity); multiprocessors and L2 as H100's"),
    Device("h200-nvl", r"H200 NVL", (9, 0), 132, 1.785, 835.5, 417.5, 60.0, 4800, 141, 50, 5120, 450,
           "NVIDIA H200 NVL, datasheet (1,671 and 835 with sparsity); multiprocessors and L2 as H100's"),
)


def device_named(torch_name: str) -> Device | None:
    """Return the GPU that torch calls this, or None: not listed, or a slice of one (MIG), which has a share of it."""
    name = PREFIX.sub("", torch_name)
    if " MIG " in name:
        return None
    return next((device for device in DEVICES if re.fullmatch(device.pattern, name)), None)


def article(name: str) -> str:
    """Return a GPU's name in a sentence: after "a", or "an" where its first letter is read so (A100, L4, RTX 4090)."""
    return f"{'an' if name[0].upper() in READ_WITH_VOWEL else 'a'} {name}"


def by_name(name: str) -> Device:
    """Return the GPU that is called this on a command line. Errors: `UserError`"""
    found = next((device for device in DEVICES if device.name == name.lower()), None)
    if found is None:
        raise UserError(f"{name}: no such GPU is listed; known are {', '.join(device.name for device in DEVICES)}")
    return found
