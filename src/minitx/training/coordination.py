"""What all ranks decide together: to stop after the same update, and where the learning rate's decay ends.

What follows from the run's state is the same on every rank. A signal may reach one rank alone, and only the first
rank's clock counts: these are exchanged about once a second. No signal handler ever waits for another rank.
"""

from math import inf

from minitx.config.schema import TrainerConfig
from minitx.distributed.ranks import Ranks
from minitx.training.signals import REASONS, Interrupted, Signals
from minitx.training.state import RunState

EVERY_S = 1.0  # between two exchanges
OUT_OF_TIME = len(REASONS)


def update_s(state: RunState) -> float:
    """Return the mean seconds of an update so far."""
    return max(1e-6, state.train_s / max(1, state.step))


def share_done(state: RunState, limits: TrainerConfig) -> dict[str, float]:
    """Return how much of each limit is used up, 1 being all; limits in minutes and operations only, not in steps."""
    minutes, pflop = limits.max_minutes, limits.max_pflop
    return {**({} if minutes is None else {"max_minutes": state.train_s / (60 * minutes)}),
            **({} if pflop is None or state.flop is None else {"max_pflop": state.flop / (1e15 * pflop)})}


def seconds_left(state: RunState, limits: TrainerConfig) -> float:
    """Return the seconds of training until `max_minutes` is reached; infinite without that limit."""
    return inf if limits.max_minutes is None else limits.max_minutes * 60 - state.train_s


def out_of_time(state: RunState, limits: TrainerConfig) -> bool:
    """Tell whether another update would exceed `max_minutes`."""
    return seconds_left(state, limits) < update_s(state)


class Agreement:
    """Bring together what each rank knows: its signals, and the first one's clock."""

    def __init__(self, ranks: Ranks, signals: Signals) -> None:
        self.ranks, self.signals = ranks, signals
        self.next_step = 0
        self.horizon: int | None = None  # what the first rank proposes

    def check(self) -> None:
        """Errors: `Interrupted` on all ranks if a signal has come to one. All call it in the midst of shared work."""
        if reason := REASONS[self.ranks.all_reduce_max(self.noted())[0]]:
            raise Interrupted(reason)

    def noted(self) -> int:
        """Return the number in `REASONS` of the signal that this rank has got."""
        return REASONS.index(self.signals.noted or "")

    def meet(self, state: RunState, limits: TrainerConfig) -> str | None:
        """Return the reason to stop, if there is one. All ranks adopt the horizon that the first one proposes.

        One rank decides after each update. Several exchange what they know about once a second: the first one's speed
        says after how many updates.
        """
        if state.step < self.next_step:
            return None
        wish, wait = self.noted(), 0
        if self.ranks.is_main:
            wish = wish or (OUT_OF_TIME if out_of_time(state, limits) else 0)
            seconds = min(EVERY_S, seconds_left(state, limits) / 2)
            wait = max(1, int(seconds / update_s(state))) if self.ranks.size > 1 else 1
        proposed = self.horizon or 0 if self.ranks.is_main else 0
        wish, wait, horizon = self.ranks.all_reduce_max(wish, wait, proposed)
        self.next_step = state.step + wait
        state.horizon_steps = horizon or state.horizon_steps
        if wish == OUT_OF_TIME:
            return "max_minutes"
        return REASONS[wish] or None
