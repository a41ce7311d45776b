"""A cache against a list of positions that is copied at each step."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from minitx.models import cache
from minitx.models.cache import Cache

L, N, D, HEADS = 2, 3, 4, 2
STEPS = st.lists(st.one_of(st.just("read"), st.lists(st.integers(0, N - 1), min_size=N, max_size=N),
                           st.integers(0, 8)), max_size=30)


def written(past: Cache, number: int) -> tuple[Cache, Tensor]:
    """Read a position whose numbers all differ. --> cache, the position [L, 2, N, D]"""
    new = torch.arange(L * 2 * N * D).view(L, 2, N, D) + 1000.0 * number
    longer = past.extended()
    for (keys, values), rows in zip(longer.by_head(HEADS), new, strict=True):
        keys[:, -1], values[:, -1] = rows.view(2, N * HEADS, -1)
    return longer, new


@given(steps=STEPS, window=st.sampled_from([None, 0, 1, 3]), spare=st.integers(1, 3))
def test_a_cache_holds_what_was_read_and_never_changes(steps: list[str | list[int] | int], window: int | None,
                                                      spare: int) -> None:
    """Hypotheses change places, and states of before go on again; each state's past is looked at in the end."""
    before, cache.SPARE = cache.SPARE, spare
    try:
        states = [(Cache.holding(torch.empty(0, L, 2, N, D), window), list[Tensor]())]
        for number, step in enumerate(steps):
            past, positions = states[-1]
            if isinstance(step, int):
                states.append(states[step % len(states)])
            elif isinstance(step, list):
                rows = torch.tensor(step)
                states.append((past.take(rows), [position[:, :, rows] for position in positions]))
            else:
                longer, new = written(past, number)
                kept = positions if window is None else positions[max(0, len(positions) - window):]
                states.append((longer, [*kept, new]))
    finally:
        cache.SPARE = before
    for past, positions in states:
        assert torch.equal(past.positions, torch.stack(positions) if positions else torch.empty(0, L, 2, N, D))


def test_positions_are_written_in_place_until_there_is_no_room() -> None:
    past, places = Cache.holding(torch.empty(0, L, 2, N, D)), set()
    for number in range(cache.SPARE):
        past, _ = written(past, number)
        places.add(past.positions.data_ptr())
    assert len(places) == 1
