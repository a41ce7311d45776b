"""Ranks of the real command: stopped, killed, hung, failed. It ends in time, says what was wrong, loses nothing."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file
from toys import ROOT
from trials import QUICK
from zygote import Zygote

from minitx.runs.checkpoint import whole_checkpoints
from minitx.runs.result import Result

CLEAN_S = 10.0  # from a signal until nothing is left
HANG_S = 5.0  # trainer.timeout_s here

FULL = os.environ.get("MINITX_FAULTS") == "full"  # make test-faults
RANKS = (1, 2, 3) if FULL else (2,)
STEPS = 200

Start = Callable[..., "Job"]


def words(text: Path, run_dir: Path, *more: str) -> list[str]:
    return ["data=files", f"data.dir={text}", f"run_dir={run_dir}", *QUICK, "data.max_tokens=64", "resume=auto", *more]


class Job:
    """A command with ranks, and what can be done to it."""

    def __init__(self, text: Path, run_dir: Path, *more: str, ranks: int = 2, faults: Path | None = None) -> None:
        names = ("MALLOC_", "GLIBC_", "OMP_", "MKL_")
        env = {name: value for name, value in os.environ.items() if not name.startswith(names)}
        env["PYTHONPATH"] = f"{faults}:{ROOT / 'src'}" if faults else str(ROOT / "src")
        self.run_dir, self.ranks = run_dir, ranks
        self.log = run_dir.with_suffix(".log")
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *words(text, run_dir, f"trainer.devices={ranks}", *more)],
            stderr=self.log.open("a"), env=env)

    def reach(self, step: int, limit_s: float = 120) -> None:
        """Wait until training has come so far."""
        began, metrics = time.monotonic(), self.run_dir / "metrics.jsonl"
        while not metrics.exists() or f'"step": {step}' not in metrics.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() - began < limit_s, self.log.read_text()
            time.sleep(0.05)

    def rank_pids(self) -> list[int]:
        return [pid for pid in children(self.process.pid) if b"minitx.training.worker" in cmdline(pid)]

    def ended(self, limit_s: float) -> int:
        """Wait for the command, and see that none of its ranks outlives it. --> exit code"""
        try:
            code = self.process.wait(limit_s)
        finally:
            self.said = self.log.read_text()
        return code


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[1]) == pid:
            found.append(int(path.parent.name))
    return sorted(found)


def gone(pids: list[int], limit_s: float) -> bool:
    """Wait for processes that are not ours to wait for; what is dead and not yet collected has no command line."""
    began = time.monotonic()
    while any(map(cmdline, pids)):
        if time.monotonic() - began > limit_s:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def start(text: Path, tmp_path: Path) -> Iterator[Start]:
    jobs: list[Job] = []

    def begin(*more: str, name: str = "run", ranks: int = 2, faults: Path | None = None) -> Job:
        jobs.append(Job(text, tmp_path / name, *more, ranks=ranks, faults=faults))
        return jobs[-1]

    yield begin
    for job in jobs:
        for pid in (*job.rank_pids(), job.process.pid):
            if job.process.poll() is None:
                os.kill(pid, signal.SIGKILL)
        job.process.wait()


Finish = Callable[..., dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def finish(zygote: Zygote, text: Path) -> Finish:
    """Train to the end on two ranks that are forked, in a fifth of the time. --> the newest checkpoint"""

    def trained(run_dir: Path, *more: str) -> dict[str, torch.Tensor]:
        done = zygote.run(words(text, run_dir, *more), ranks=2)
        assert done.returncode == 0, done.stderr
        return newest(run_dir)

    return trained


@pytest.fixture(scope="module")
def undisturbed(finish: Finish, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return finish(tmp_path_factory.mktemp("undisturbed") / "run", f"trainer.max_steps={STEPS}")


def newest(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(max((run_dir / "checkpoints").glob("step-*.safetensors")))


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(other[name], tensor) for name, tensor in one.items())


# --- stopped


@pytest.mark.slow
@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize(("whom", "number"), [(whom, number) for whom in ("first rank", "last rank", "agent", "all")
                                              for number in (signal.SIGTERM, signal.SIGINT)
                                              if FULL or (whom == "last rank") == (number == signal.SIGTERM)])
def test_a_signal_to_anyone_stops_all_with_one_checkpoint_and_restarts_none(start: Start, number: signal.Signals,
                                                                            whom: str, ranks: int) -> None:
    job = start("trainer.max_steps=100000", "checkpoint.every_n_steps=100000", "trainer.valid_every_n_steps=100000",
                "trainer.max_restarts=3", ranks=ranks)
    job.reach(10)
    pids = job.rank_pids()
    assert len(pids) == (ranks if ranks > 1 else 0), "one rank is the command itself"
    targets = {"first rank": pids[:1], "last rank": pids[-1:], "agent": [job.process.pid],
               "all": [*pids, job.process.pid]}
    began = time.monotonic()
    for pid in targets[whom] or [job.process.pid]:
        os.kill(pid, number)
    code = job.ended(CLEAN_S)
    print(f"{ranks} ranks, {number.name} to {whom}: gone after {time.monotonic() - began:.1f} s")
    assert code == {signal.SIGTERM: 143, signal.SIGINT: 130}[number], job.said
    assert gone(pids, 0.5)
    result = Result.read(job.run_dir / "result.json")
    assert result.status == {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted"}[number]
    (saved,) = (job.run_dir / "checkpoints").glob("step-*")
    assert int(saved.name[5:13]) == result.steps >= 10
    assert "Traceback" not in job.said
    assert "go on" in job.said
    assert "resuming" not in job.said


def kills() -> list[tuple[str, signal.Signals, int]]:
    """Return who is killed, how, and after which update."""
    draw, agent, first, last = Random(3), "agent", "first rank", "last rank"
    drawn = [(draw.choice([agent, first, last]), draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]),
              2 * draw.randrange(1, STEPS // 2 - 20)) for _ in range(25 if FULL else 0)]
    return [(agent, signal.SIGKILL, 10), (last, signal.SIGKILL, 56), (last, signal.SIGTERM, 20), *drawn]


@pytest.mark.slow
@pytest.mark.parametrize(("whom", "number", "step"), kills())
def test_without_its_agent_or_a_rank_a_job_ends_says_why_and_goes_on_to_the_same_weights(
        start: Start, finish: Finish, undisturbed: dict[str, torch.Tensor], whom: str, number: signal.Signals,
        step: int) -> None:
    job = start(f"trainer.max_steps={STEPS}")
    job.reach(step)
    pids = job.rank_pids()
    place = {"first rank": 0, "last rank": 1}.get(whom)
    os.kill(job.process.pid if place is None else pids[place], number)
    code = job.ended(CLEAN_S)
    if number == signal.SIGTERM:
        assert code == 143
    elif place is None:
        assert code == -9
        assert gone(pids, CLEAN_S), "no rank lives on"
        assert Result.read(job.run_dir / "result.json").status == "terminated"
    else:
        assert code == 1
        assert gone(pids, 0.5)
        assert f"minitx: rank {place} was killed by SIGKILL" in job.said
        assert "Traceback" not in job.said
        assert f"rank {1 - place}, update" in job.said
    folder = job.run_dir / "checkpoints"
    assert len(list(folder.glob("step-*.safetensors"))) == len(list(whole_checkpoints(folder)))
    assert equal(finish(job.run_dir, f"trainer.max_steps={STEPS}"), undisturbed)


@pytest.mark.slow
def test_shares_of_a_model_go_on_with_their_own_moments(start: Start, finish: Finish, tmp_path: Path) -> None:
    """Processes that start one by one, not forked from one, each read a checkpoint in their own order."""
    fsdp2 = ("trainer.strategy=fsdp2", "trainer.max_steps=60", "optim.ema_decay=0.9")
    expected = finish(tmp_path / "whole", *fsdp2)
    job = start(*fsdp2, name="killed")
    job.reach(20)
    os.kill(job.process.pid, signal.SIGKILL)
    assert gone(job.rank_pids(), CLEAN_S)
    time.sleep(CLEAN_S / 2)
    again = start(*fsdp2, name="killed")
    assert again.ended(120) == 0, again.said
    found = newest(job.run_dir)
    assert expected.keys() == found.keys()
    assert all(torch.allclose(found[name], tensor, rtol=1e-4, atol=1e-7) for name, tensor in expected.items())


# --- broken


@pytest.mark.slow
def test_a_killed_rank_is_restarted_where_that_is_allowed(start: Start, undisturbed: dict[str, torch.Tensor]) -> None:
    job = start(f"trainer.max_steps={STEPS}", "trainer.max_restarts=1")
    job.reach(20)
    os.kill(job.rank_pids()[0], signal.SIGKILL)
    assert job.ended(120) == 0, job.said
    assert "minitx: a rank failed; all ranks restart (1 of 1 restarts)" in job.said
    assert "resuming at step" in job.said
    assert equal(newest(job.run_dir), undisturbed)


@pytest.mark.slow
def test_a_rank_that_hangs_is_named_in_time(start: Start) -> None:
    job = start("trainer.max_steps=100000", f"trainer.timeout_s={HANG_S}")
    job.reach(10)
    pids = job.rank_pids()
    os.kill(pids[1], signal.SIGSTOP)
    began = time.monotonic()
    assert job.ended(HANG_S + 45) == 1
    assert gone(pids, 0.5)
    assert "waited 5 s (trainer.timeout_s) for rank 1, which hangs or cannot be reached" in job.said
    print(f"{time.monotonic() - began:.1f} s")


FAULTS = {
    "raises": "raise ZeroDivisionError('a fault')",
    "runs out of memory": "raise RuntimeError(\"DefaultCPUAllocator: can't allocate memory: you tried 9 bytes\")",
}


@pytest.fixture
def faults(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder whose code each Python process runs first: on rank 1, the forward pass of update 13 fails."""
    folder = tmp_path / "faults"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(f"""
import os
if os.environ.get("RANK") == "1":
    from minitx.training.task import TranslationTask
    inner = TranslationTask.losses
    def losses(self, *args):
        if self.state.step == 12:
            {FAULTS[request.param]}
        return inner(self, *args)
    TranslationTask.losses = losses
""")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("faults", ["raises"], indirect=True)
def test_the_error_of_a_rank_comes_first(start: Start, faults: Path) -> None:
    job = start("trainer.max_steps=100000", faults=faults)
    assert job.ended(60) == 1
    first = job.said.index("minitx: rank 1, update 13: failed")
    assert "ZeroDivisionError: a fault" in job.said[first:]
    assert job.said.count("Traceback") == 1
    if "rank 0, update" in job.said:
        assert job.said.index("rank 0, update") > first
    assert "minitx: rank 1 failed first; its error is above" in job.said


@pytest.mark.slow
@pytest.mark.parametrize("faults", ["runs out of memory"], indirect=True)
def test_a_full_memory_is_reported_with_its_shape_and_remedy(start: Start, faults: Path) -> None:
    job = start("trainer.max_steps=100000", faults=faults)
    assert job.ended(60) == 2
    assert "out of memory at a micro-batch of" in job.said
    assert "lower data.max_tokens" in job.said
    assert "Traceback" not in job.said


@pytest.mark.slow
def test_a_mistake_is_reported_once_and_leaves_nothing(start: Start) -> None:
    job = start("trainer.tokens_per_update=1", "trainer.max_steps=10")
    assert job.ended(60) == 2
    assert job.said.count("minitx: error: trainer.devices=2: no update has more than 1 pair, so some ranks would") == 1
    assert "Traceback" not in job.said
    assert not job.run_dir.exists()
