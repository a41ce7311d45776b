"""Activations inside layers, computed again for the gradient instead of kept (`trainer.activation_checkpointing`).

Of each layer its input is kept, and then the backward pass holds what one layer computes, not what all do. Dropout is
drawn again as it was: torch's generators go back to where they were. Source: Chen et al. 2016, section 4.
"""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from minitx.models.base import Seq2Seq
from minitx.utils.errors import UserError


def recompute(model: Seq2Seq, family: str) -> None:
    """Let the layers that a model names be computed again in backward passes, and nowhere else.

    Errors: `UserError` if it names none
    """
    layers = model.recomputable()
    if not layers:
        raise UserError(f"trainer.activation_checkpointing=true: the family {family} has nothing to recompute: its "
                        "layers are one call of a library each; leave it out, or lower data.max_tokens")
    for layer in layers:
        layer.forward = MethodType(_forgetful(type(layer).forward), layer)


def could_recompute(model: Seq2Seq) -> bool:
    """Return whether a model names layers that could be computed again, and are not yet."""
    layers = model.recomputable()
    return bool(layers) and not any("forward" in vars(layer) for layer in layers)


def _forgetful(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Return a kind of layer's forward pass, which keeps nothing that it computes on the way."""
    def forward(*inputs: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return plain(*inputs, **options)
        return checkpoint(plain, *inputs, use_reentrant=False, **options)

    return forward
