"""Label-smoothed cross entropy, summed: whoever holds the count of all target tokens divides, once."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CACHED = 2**19  # logits taken at once on the CPU: 2 MiB in fp32, so that later passes find them in the cache


class _SmoothedCrossEntropy(torch.autograd.Function):
    """One softmax serves loss and gradient; autograd's own chain would hold three [N, V] tensors in fp32.

    With e = smoothing, y the label: loss = -(1 - e) log p_y - e mean(log p); its gradient is p - (1 - e) [y] - e / V.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        n_tokens, vocab = logits.shape
        rows = max(1, CACHED // vocab) if logits.device.type == "cpu" else max(1, n_tokens)
        exact = torch.promote_types(logits.dtype, torch.float32)
        sums = torch.zeros(2, dtype=exact, device=logits.device)  # -log p_y, mean of -log p
        gradient = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        for start in range(0, n_tokens, rows):
            part, y = slice(start, start + rows), labels[start:start + rows, None]
            log_p = logits[part].to(exact).log_softmax(-1)  # --> [rows, V]
            sums -= torch.stack([log_p.gather(1, y).sum(), log_p.sum() / vocab])
            if gradient is not None:
                dx = log_p.exp_().sub_(smoothing / vocab)
                gradient[part] = dx.scatter_add_(1, y, dx.new_full((1, 1), smoothing - 1).expand(len(y), 1))
        if gradient is not None:
            ctx.save_for_backward(gradient)
        nll_sum = sums[0].clone()
        ctx.mark_non_differentiable(nll_sum)
        return (1 - smoothing) * sums[0] + smoothing * sums[1], nll_sum

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad, None, None


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Sum the loss over tokens, in nats. logits: [N, V], labels: [N] --> loss_sum (smoothed), nll_sum (no gradient)

    Source: Szegedy et al. 2016, section 7, with the mass spread over all V entries, the label's own included.
    """
    loss_sum, nll_sum = _SmoothedCrossEntropy.apply(logits, labels, smoothing)  # type: ignore[no-untyped-call]
    return loss_sum, nll_sum
