"""When work will be done: from the mean speed so far, whatever it is counted in."""

from io import StringIO

import pytest

from minitx.utils import progress
from minitx.utils.console import Console
from minitx.utils.progress import Eta, Progress, remaining_s


@pytest.mark.parametrize(("done", "total", "left_s"), [(0.25, 1.0, 30.0), (5, 20, 30.0), (20, 20, 0.0), (1, 0, -10.0)])
def test_the_rest_takes_as_long_as_what_is_done(done: float, total: float, left_s: float) -> None:
    assert remaining_s(10.0, done, total) == left_s


def test_an_estimate_needs_something_that_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress, "monotonic", lambda: now)
    eta = Eta(8)
    now = 160.0
    assert [eta(done) for done in (0, 2, 8)] == ["", "  eta 3m00s", "  eta 0s"]


def test_work_is_added_up_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress, "monotonic", lambda: now)
    shown = StringIO()
    count = Progress(Console(shown, every_s=0.0), total=10.0)
    now = 6.0
    count("lstm: update 1", 2.0)
    count("lstm: update 2")
    assert shown.getvalue() == "lstm: update 1  eta 24s\nlstm: update 2  eta 14s\n"
    assert count.done == 3.0
