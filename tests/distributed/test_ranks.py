"""What ranks exchange, without processes: threads in the place of ranks, and a store in memory."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch.distributed import HashStore

from minitx.distributed.cluster import FOLDER
from minitx.distributed.ranks import SINGLE, Ranks, join, noop, peers_lost
from minitx.utils.errors import Exit, UserError

SIZE = 3


def together(block: Callable[[Ranks], Any]) -> list[Any]:
    """Run a block as each rank; return what each returned or raised."""
    store = HashStore()

    def run(rank: int) -> Any:
        try:
            return block(Ranks(rank, SIZE, rank, SIZE, store))
        except (UserError, RuntimeError) as error:
            return error

    with ThreadPoolExecutor(SIZE) as pool:
        return list(pool.map(run, range(SIZE)))


@pytest.mark.parametrize("turns", [0, 1, 2, 7, 9])
def test_shares_are_the_whole_and_all_meet_as_often(turns: int) -> None:
    rounds: list[int] = []
    shares = [list(Ranks(rank, SIZE).shard(range(turns), lambda rank=rank: rounds.append(rank)))
              for rank in range(SIZE)]
    assert shares[1] == [1, 4, 7][:len(shares[1])]
    assert sorted(turn for share in shares for turn in share) == list(range(turns))
    assert len({rounds.count(rank) for rank in range(SIZE)}) == 1


def test_a_single_process_is_a_group_of_one() -> None:
    assert (SINGLE.is_main, SINGLE.hosts, list(SINGLE.shard("abc", noop))) == (True, 1, ["a", "b", "c"])
    assert (SINGLE.broadcast("x"), SINGLE.all_gather("x"), SINGLE.union({2: "b", 1: "a"})) == (
        "x", ["x"], {1: "a", 2: "b"})
    assert (SINGLE.all_reduce_sum(1, 0.5), SINGLE.all_reduce_max(1, 2)) == ([1.0, 0.5], [1, 2])
    assert SINGLE.is_first_to_say("x")
    assert SINGLE.is_first_to_say("x")


def test_the_first_rank_goes_first_and_waits_for_all(tmp_path: Path) -> None:
    def block(ranks: Ranks) -> list[bool]:
        mine = tmp_path / str(ranks.rank)
        with ranks.main_process_first("text"):
            before = (tmp_path / "0").exists()
            mine.touch()
        return [before, all((tmp_path / str(rank)).exists() for rank in range(SIZE))]

    first, *others = together(block)
    assert first == [False, True]
    assert [before for before, _ in others] == [True, True]


def test_an_error_of_the_first_ranks_user_is_every_ranks() -> None:
    def block(ranks: Ranks) -> None:
        with ranks.main_process_first("text"):
            raise UserError("data.dir=x: no such folder", Exit.DATA)

    assert [(str(error), error.code) for error in together(block)] == SIZE * [("data.dir=x: no such folder", Exit.DATA)]


def test_where_the_first_rank_fails_the_others_say_that_it_is_gone() -> None:
    def block(ranks: Ranks) -> None:
        with ranks.main_process_first("text"):
            raise RuntimeError("a fault")

    first, *others = together(block)
    assert str(first) == "a fault"
    assert [peers_lost(error) for error in others] == ["connection closed by peer"] * 2


def test_one_rank_says_what_all_would() -> None:
    assert sorted(together(lambda ranks: ranks.is_first_to_say("disk full"))) == [False, False, True]


def test_ranks_that_do_not_come_are_named() -> None:
    assert together(lambda ranks: ranks.missing("update 3", 0.2) if ranks.rank != 1 else None) == [[1], None, [1]]


def test_a_rank_that_holds_something_else_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ranks, "all_gather", lambda *_: [{"commit": letter * 40} for letter in "aab"])
    with pytest.raises(UserError) as caught:
        Ranks(0, SIZE).agree(commit="a" * 40)
    assert str(caught.value) == ("rank 2 has another commit (bbbbbbbbbbbb) than rank 0 (aaaaaaaaaaaa); all need the "
                                 "same command line, code, text and environment")


@pytest.mark.parametrize(("error", "cause"), [
    (RuntimeError("[gloo] Connection closed by peer [127.0.0.1]:9"), "connection closed by peer"),
    (RuntimeError("Timed out waiting 5000ms for recv"), "waited: timed out waiting"),
    (RuntimeError("wait timeout after 10000ms,\nkeys: /default"), "waited: wait timeout"),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None), (OSError("broken pipe"), None)])
def test_errors_that_another_rank_causes(error: Exception, cause: str | None) -> None:
    assert peers_lost(error) == cause


@pytest.mark.parametrize("on_gpu", [True, False])
def test_a_rank_on_a_gpu_takes_its_own_and_gradients_travel_over_nccl(on_gpu: bool, tmp_path: Path,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", 3), ("WORLD_SIZE", 4), ("LOCAL_RANK", 1), ("LOCAL_WORLD_SIZE", 2)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv(FOLDER, str(tmp_path))
    taken, groups = list[int](), list[tuple[object, ...]]()
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(distributed, "init_process_group",
                        lambda backend, store, rank, world_size, timeout: groups.append((backend, rank, world_size)))
    ranks = join(5, on_gpu=on_gpu)
    assert (ranks.rank, ranks.size, ranks.local_rank, ranks.hosts) == (3, 4, 1, 2)
    assert taken == ([1] if on_gpu else [])
    assert groups == [("cpu:gloo,cuda:nccl" if on_gpu else "gloo", 3, 4)], "numbers and objects stay with the CPUs"
