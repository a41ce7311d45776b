"""Step -> share of the peak learning rate: pure functions, so that a resumed run needs nothing but its step."""

import math


def lr_factor(schedule: str, step: int, *, warmup_steps: int, horizon: int | None, decay_fraction: float) -> float:
    """Return the factor for the update after `step` finished ones.

    All begin with a linear warm-up. inverse_sqrt: Vaswani et al. 2017, equation 3, scaled to a peak of 1; cosine: to 0
    at the horizon; wsd: constant, then linear to 0 over the last `decay_fraction` of the horizon (Hägele et al. 2024).
    A horizon of None is one not known yet: no decay has begun.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "inverse_sqrt":
        return math.sqrt(max(1, warmup_steps) / (step + 1))
    if schedule == "constant" or horizon is None:
        return 1.0
    if schedule == "cosine":
        done = (step - warmup_steps) / max(1, horizon - warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return min(1.0, max(0.0, (horizon - step) / max(1.0, decay_fraction * horizon)))


def decay_begins(schedule: str, decay_fraction: float) -> float | None:
    """Return the share of the horizon at which the factor first depends on it; None = it never does."""
    return {"cosine": 0.0, "wsd": 1.0 - decay_fraction}.get(schedule)
