"""Label-smoothed cross entropy, summed: whoever holds the count of all target tokens divides, once."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _SmoothedCrossEntropy(torch.autograd.Function):
    """One softmax forward and one exp backward; autograd's own chain would hold three [N, V] tensors.

    With e = smoothing, y the label: loss = logZ - (1 - e) x_y - e mean(x), and its gradient is softmax(x) - (1 - e) [y]
    - e / V.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        x = logits if logits.dtype is torch.float64 else logits.float()
        log_z = x.logsumexp(dim=-1)
        nll = log_z - x.gather(-1, labels[:, None])[:, 0]
        loss = nll if smoothing == 0 else (1 - smoothing) * nll + smoothing * (log_z - x.mean(dim=-1))
        ctx.save_for_backward(logits, labels, log_z)
        ctx.smoothing = smoothing
        ctx.mark_non_differentiable(nll_sum := nll.sum())
        return loss.sum(), nll_sum

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        logits, labels, log_z = ctx.saved_tensors
        dx = (logits - log_z[:, None]).exp_().sub_(ctx.smoothing / logits.shape[-1])
        dx.scatter_add_(-1, labels[:, None], dx.new_full((1, 1), ctx.smoothing - 1).expand(len(labels), 1))
        return dx.mul_(grad).to(logits.dtype), None, None


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Sum the loss over tokens, in nats. logits: [N, V], labels: [N] --> loss_sum (smoothed), nll_sum (no gradient)

    Source: Szegedy et al. 2016, section 7, with the mass spread over all V entries, the label's own included.
    """
    loss_sum, nll_sum = _SmoothedCrossEntropy.apply(logits, labels, smoothing)  # type: ignore[no-untyped-call]
    return loss_sum, nll_sum
