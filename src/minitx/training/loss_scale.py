"""The factor on the loss that keeps fp16's gradients from vanishing: as large as it can be without overflow.

Source: Micikevicius et al. 2018, section 3.2. When it changes is `torch.amp.GradScaler`'s rule, with its numbers.
"""

from minitx.training.state import RunState

FIRST = 2.0**16  # powers of two round nothing
LAST = 1.0  # what does not fit even then is no matter of scale
GROWS_AFTER = 2000  # updates that fitted, one after the other


def settle(state: RunState, finite: bool) -> bool:
    """Halve the scale after an update whose gradient was not finite, double it after so many that were.

    --> whether the update has overflowed: it was not finite, at a scale that could be halved. Follows from what all
    ranks know.
    """
    if state.loss_scale is None:
        return False
    if not finite:
        overflowed = state.loss_scale > LAST
        state.loss_scale, state.fitting = max(LAST, state.loss_scale / 2), 0
        return overflowed
    state.fitting += 1
    if state.fitting == GROWS_AFTER:
        state.loss_scale, state.fitting = 2 * state.loss_scale, 0
    return False
