"""Which weights are the best so far."""

import pytest

from minitx.training.state import RunState


@pytest.mark.parametrize(("best", "bleu", "loss", "better"), [
    ((None, None), 0.0, None, True),  # anything is better than nothing
    ((10.0, 2.0), 10.1, 9.0, True),
    ((10.0, 2.0), 9.9, 1.0, False),
    ((0.0, 5.0), 0.0, 4.0, True),  # a tie goes to the lower loss
    ((0.0, 5.0), 0.0, 5.0, False),  # and to the first of two that are equal
    ((0.0, None), 0.0, 4.0, True),  # a loss that is not finite is the worst
    ((0.0, 4.0), 0.0, None, False),
])
def test_the_best_has_the_highest_bleu_and_among_equals_the_lowest_loss(
        best: tuple[float | None, float | None], bleu: float, loss: float | None, better: bool) -> None:
    state = RunState(best_valid_bleu=best[0], best_valid_loss=best[1])
    assert state.is_best(bleu, loss) is better


def test_what_is_forgotten_is_chosen_anew() -> None:
    state = RunState(best_valid_bleu=50.0, best_valid_loss=1.0, best_step=10, best_sha256="a")
    state.forget_best()
    assert state == RunState()
