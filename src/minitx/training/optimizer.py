"""The optimizers: AdamW, or Muon for the matrices and AdamW for all else (Jordan et al. 2024)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from minitx.config.schema import OptimConfig
from minitx.models.base import Seq2Seq

COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of x, x^3, x^5: fast towards 1 from below, and then about it
ITERATIONS = 5
RMS = 0.2  # of AdamW's usual step over its learning rate


def build_optimizer(model: Seq2Seq, optim: OptimConfig, dtype: torch.dtype) -> torch.optim.AdamW:
    """Return AdamW, which decays matrices alone, or Muon for matrices that are no tables; AdamW is fused.

    dtype: of Muon's products
    """
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding) or m is model.output}
    parts: dict[str, list[nn.Parameter]] = {"matrix": [], "table": [], "vector": []}
    for p in model.parameters():
        parts["vector" if p.dim() <= 1 else "table" if id(p) in tables else "matrix"].append(p)
    groups = [{"params": params, "weight_decay": optim.weight_decay if kind != "vector" else 0.0,
               "momentum": optim.momentum if kind == "matrix" else None} for kind, params in parts.items()]
    settings: dict[str, Any] = {"lr": optim.lr, "betas": (optim.beta1, optim.beta2), "eps": optim.eps, "fused": True}
    return Muon(groups, dtype, **settings) if optim.matrices == "muon" else torch.optim.AdamW(groups, **settings)


class Muon(torch.optim.AdamW):
    """Update matrices by their orthogonalised momentum, and groups whose `momentum` is None as AdamW does.

    Steps are scaled to be as large as AdamW's usual ones, so that both share a learning rate (Liu et al. 2025,
    equation 4). dtype: of the products that make a matrix orthogonal; nothing else is rounded to it
    """

    def __init__(self, groups: list[dict[str, Any]], dtype: torch.dtype, **adamw: Any) -> None:
        super().__init__(groups, **adamw)
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step. The matrices' gradients are cleared first, so that AdamW skips them."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            if group["momentum"] is None:
                continue
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for matrices in by_shape.values():
                self._step_matrices(matrices, group["lr"], group["momentum"], group["weight_decay"])
        super().step()
        return loss

    def _step_matrices(self, matrices: list[Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        """Update matrices of one shape, all at once, and clear their gradients."""
        gradients = [p.grad for p in matrices if p.grad is not None]
        averages = [self._average(p) for p in matrices]
        torch._foreach_lerp_(averages, gradients, 1 - momentum)
        ahead = torch._foreach_lerp(gradients, averages, momentum)  # Nesterov's: one step further
        stacked = torch.stack(ahead)
        if self.dtype is torch.float16:  # where small gradients would vanish
            stacked = normalised(stacked)
        directions = orthogonal(stacked.to(self.dtype)).to(matrices[0].dtype)
        torch._foreach_mul_(matrices, 1 - lr * weight_decay)
        torch._foreach_add_(matrices, list(directions), alpha=-lr * RMS * math.sqrt(max(matrices[0].shape)))
        for p in matrices:
            p.grad = None

    def _average(self, p: Tensor) -> Tensor:
        state: dict[str, Tensor] = self.state[p]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        return state["momentum"]


def orthogonal(x: Tensor) -> Tensor:
    """Bring all singular values of each matrix near 1 (0.7 to 1.2) by Newton-Schulz iterations. [K, m, n] --> as x"""
    a, b, c = COEFFICIENTS
    is_tall = x.shape[1] > x.shape[2]
    x = x.mT if is_tall else x
    x = normalised(x)
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


def normalised(x: Tensor) -> Tensor:
    """Give each matrix the norm 1, so that no singular value is larger. [K, m, n] --> as x"""
    norm: Tensor = x.norm(dim=(1, 2), keepdim=True)
    return x / norm.clamp(min=1e-7)
