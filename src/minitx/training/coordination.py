"""What all ranks decide together: to stop, each after the same update, and where the learning rate's decay ends.

What follows from the run's state is the same everywhere. Signals reach one rank, and only the first one's clock counts:
these are said about once a second, when all meet. No handler of a signal ever waits for another rank.
"""

from math import inf

from minitx.config.schema import TrainerConfig
from minitx.distributed.ranks import Ranks
from minitx.training.signals import REASONS, Interrupted, Signals
from minitx.training.state import RunState

EVERY_S = 1.0  # between two meetings
OUT_OF_TIME = len(REASONS)


def update_s(state: RunState) -> float:
    """Return what an update has taken so far, in the mean."""
    return max(1e-6, state.train_s / max(1, state.step))


def behind(state: RunState, limits: TrainerConfig) -> dict[str, float]:
    """Return the share that is behind of each limit of which it is not known beforehand how many updates it has."""
    minutes, pflop = limits.max_minutes, limits.max_pflop
    return {**({} if minutes is None else {"max_minutes": state.train_s / (60 * minutes)}),
            **({} if pflop is None or state.flop is None else {"max_pflop": state.flop / (1e15 * pflop)})}


def left_s(state: RunState, limits: TrainerConfig) -> float:
    return inf if limits.max_minutes is None else limits.max_minutes * 60 - state.train_s


def out_of_time(state: RunState, limits: TrainerConfig) -> bool:
    """Tell whether another update would pass the minutes, which are a bound."""
    return left_s(state, limits) < update_s(state)


class Agreement:
    """Bring together what each rank knows."""

    def __init__(self, ranks: Ranks, signals: Signals) -> None:
        self.ranks, self.signals = ranks, signals
        self.next_step = 0
        self.horizon: int | None = None  # what the first rank proposes

    def check(self) -> None:
        """Leave work that all ranks are at. Errors: `Interrupted` on all of them, if a signal has come to one."""
        if reason := REASONS[self.ranks.all_reduce_max(self.noted())[0]]:
            raise Interrupted(reason)

    def noted(self) -> int:
        return REASONS.index(self.signals.noted or "")

    def meet(self, state: RunState, limits: TrainerConfig) -> str | None:
        """Say why to stop, if there is a reason. All ranks take the horizon over that the first one proposes.

        With one rank, each update is followed by a meeting. With more, the first one's speed sets the next.
        """
        if state.step < self.next_step:
            return None
        wish, wait = self.noted(), 0
        if self.ranks.is_main:
            wish = wish or (OUT_OF_TIME if out_of_time(state, limits) else 0)
            wait = max(1, int(min(EVERY_S, left_s(state, limits) / 2) / update_s(state))) if self.ranks.size > 1 else 1
        proposed = self.horizon or 0 if self.ranks.is_main else 0
        wish, wait, horizon = self.ranks.all_reduce_max(wish, wait, proposed)
        self.next_step = state.step + wait
        state.horizon_steps = horizon or state.horizon_steps
        if wish == OUT_OF_TIME:
            return "max_minutes"
        return REASONS[wish] or None
