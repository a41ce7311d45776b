"""The memory that is free where a model computes."""

import torch

from minitx.profiling.process import available_bytes


def free_bytes(device: torch.device) -> float:
    """Return the free memory of the GPU, or of the machine."""
    return float(torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_bytes())
