"""Whom the process that started the ranks blames when they fail."""

import signal
import socket

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from minitx.distributed.elastic import _blame, loopback
from minitx.distributed.ranks import LOST

KILL, TERM = -signal.SIGKILL, -signal.SIGTERM


@pytest.mark.parametrize(("failures", "line"), [
    ([(0, LOST, 100), (1, 1, 101)], "rank 1 failed first; its error is above"),
    ([(0, 1, 101), (1, 1, 100)], "rank 1 failed first; its error is above"),
    ([(0, LOST, 100), (1, LOST, 101)], "the ranks lost each other; what they waited for is above"),
    ([(0, LOST, 101), (1, KILL, 100)], "rank 1 was killed by SIGKILL (the kernel does so when memory runs out: lower "
                                       "data.max_tokens); go on with resume=auto"),
    ([(0, LOST, 100), (1, KILL, 140)], "rank 1 did not answer and was killed; go on with resume=auto"),
    ([(0, TERM, 100), (1, -signal.SIGSEGV, 100)], "rank 1 was killed by SIGSEGV; go on with resume=auto"),
])
def test_the_rank_that_failed_first_is_blamed(failures: list[tuple[int, int, int]], line: str) -> None:
    found = []
    for rank, code, timestamp in failures:
        failure = ProcessFailure(local_rank=rank, pid=rank, exitcode=code, error_file="none")
        failure.timestamp = timestamp
        found.append(failure)
    assert _blame(found) == line


@pytest.mark.parametrize(("names", "found"), [(["lo", "eth0"], "lo"), (["lo0", "en0"], "lo0"), ([], "lo")])
def test_the_device_that_leads_nowhere_has_its_systems_name(monkeypatch: pytest.MonkeyPatch, names: list[str],
                                                            found: str) -> None:
    monkeypatch.setattr(socket, "if_nameindex", lambda: list(enumerate(names, 1)))
    assert loopback() == found
