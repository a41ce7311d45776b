"""Label-smoothed cross entropy of a projection, summed: the caller divides once, by all target tokens of the update.

N rows, n of them real and first, D width, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from minitx.models.precision import cast_weight
from minitx.utils.autograd import apply_function

AT_ONCE = 2**23  # logits held at a time: 16 MiB in bf16. Fewer make the products small, more overflow a CPU's cache
AT_ONCE_ON_GPU = 2**26


class _LinearCrossEntropy(torch.autograd.Function):
    """Project, compare, and take all gradients, some rows at a time: all logits are never held, nor their gradient.

    With e = smoothing, y the label: loss = -(1 - e) log p_y - e mean(log p), whose gradient by the logits is
    p - (1 - e) [y] - e / V. One softmax serves both; terms that are the same for all entries become products with sums.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, labels: Tensor, smoothing: float, training: bool) -> tuple[
            Tensor, Tensor]:
        W, V = cast_weight(weight, features.dtype), len(weight)
        exact = torch.promote_types(features.dtype, torch.float32)
        mean_w = weight.mean(0, dtype=exact)  # the mean logit is a product with it
        sums = torch.zeros(2, dtype=exact, device=features.device)  # -log p_y, mean of -log p
        df = dw = None
        if training:
            df = torch.zeros_like(features)
            dw = (features[:len(labels)].sum(0, dtype=exact) * (-smoothing / V)).repeat(V, 1)
        at_once = AT_ONCE if features.device.type == "cpu" else AT_ONCE_ON_GPU
        rows = 1 << max(0, (at_once // V).bit_length() - 1)
        buffer = features.new_empty(min(rows, len(features)), V)
        for start in range(0, len(labels), rows):
            x, y = features[start:start + rows], labels[start:start + rows]
            label_at = torch.arange(len(y), device=y.device) * V + y
            logits = torch.mm(x, W.t(), out=buffer[:len(x)])  # --> [rows, V], filler's too, so that sizes recur
            logit_y = logits.take(label_at).to(exact)
            if df is None or dw is None:
                log_sum = logits[:len(y)].to(exact).logsumexp(-1)
            else:
                in_fp16 = logits.dtype is torch.float16  # p_y may then be 0, but not the largest p
                top, column = logits[:len(y)].max(-1) if in_fp16 else (logit_y, y)
                p = torch.softmax(logits, -1, out=logits)
                p_y = p.take(label_at).to(exact)
                p_top = p.take(label_at - y + column).to(exact) if in_fp16 else p_y
                log_sum = top.to(exact) - p_top.clamp(min=torch.finfo(exact).tiny).log()  # to the precision of p
                p.put_(label_at, (p_y - (1 - smoothing)).to(p.dtype))  # `scatter_` copies all of p
                p[len(y):] = 0
                torch.mm(p, W, out=df[start:start + rows])
                dw += p.t() @ x
            sums += torch.stack([(log_sum - logit_y).sum(), (log_sum - x[:len(y)].to(exact) @ mean_w).sum()])
        if df is not None and dw is not None:
            df[:len(labels)] -= (smoothing * mean_w).to(df.dtype)
            ctx.save_for_backward(df, dw.to(weight.dtype))
        nll_sum = sums[0].clone()
        ctx.mark_non_differentiable(nll_sum)
        return (1 - smoothing) * sums[0] + smoothing * sums[1], nll_sum

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        df, dw = ctx.saved_tensors
        return torch.mul(df, grad).to(df.dtype), torch.mul(dw, grad).to(dw.dtype), None, None, None


def linear_cross_entropy(features: Tensor, weight: Tensor, labels: Tensor, smoothing: float = 0.0) -> tuple[
        Tensor, Tensor]:
    """Sum the loss of softmax(features weight') over tokens, in nats. --> loss_sum (smoothed), nll_sum (no gradient)

    features: [N, D], weight: [V, D], labels: [n] of the first n rows; the others are ignored. Source: Szegedy et al.
    2016, section 7, with the mass spread over all V entries, the label's own included.
    """
    training = torch.is_grad_enabled() and (features.requires_grad or weight.requires_grad)
    loss_sum, nll_sum = apply_function(_LinearCrossEntropy, features, weight, labels, smoothing, training)
    return loss_sum, nll_sum
