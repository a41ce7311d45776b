"""A model whose ranks hold a part of each weight (FSDP2): cut up, put together again. Whole tensors pass through."""

from typing import Any

import torch
from torch import Tensor, nn


def shard(model: nn.Module, device: torch.device) -> None:
    """Leave each rank its rows of each parameter; layers are put together when they compute, one at a time."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for stack in model.children():
        if isinstance(stack, nn.ModuleList):
            for layer in stack:
                if not isinstance(layer, nn.LSTM):  # its outputs are views, which cannot be watched
                    fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for part in model.modules():
        if device.type == "cpu" and isinstance(part, FSDPModule):
            part.set_force_sum_reduction_for_comms(True)  # gloo takes a mean for a sum (pytorch issue 162338)


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor that the ranks may share; then all ranks call it."""
    full: Any = getattr(tensor, "full_tensor", None)
    return tensor if full is None else full()


def shared_as(owner: Tensor, full: Tensor) -> Tensor:
    """Return this rank's part of a whole tensor, cut as `owner` is, if it is."""
    if not hasattr(owner, "full_tensor"):
        return full
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(owner, DTensor)
    return distribute_tensor(full.to(owner.device), owner.device_mesh, owner.placements, src_data_rank=None)
