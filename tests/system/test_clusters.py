"""Two hosts and SLURM: trained on, cut apart, preempted; what goes on afterwards ends in the same weights."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from clusters import Hosts, run, slurm, two_hosts, wait_for_nodes
from safetensors.torch import load_file
from toys import ROOT
from trials import QUICK
from zygote import Zygote

from minitx.runs.result import Result

FULL = os.environ.get("MINITX_FAULTS") == "full"  # make test-faults
STEPS = 400 if FULL else 150
TIMEOUT_S = 10
APART_S = TIMEOUT_S + 25.0  # from the cut until nothing is left on either host


def words(text: Path, run_dir: Path, *more: str) -> list[str]:
    return ["data=files", f"data.dir={text}", f"run_dir={run_dir}", *QUICK, "data.max_tokens=64", "resume=auto",
            f"trainer.max_steps={STEPS}", "checkpoint.every_n_steps=25", f"trainer.timeout_s={TIMEOUT_S}", *more]


@pytest.fixture(scope="module")
def expected(zygote: Zygote, text: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The end of a run that two ranks trained in peace."""
    run_dir = tmp_path_factory.mktemp("two") / "run"
    done = zygote.run(words(text, run_dir), ranks=2)
    assert done.returncode == 0, done.stderr
    return newest(run_dir)


def newest(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(max((run_dir / "checkpoints").glob("step-*.safetensors")))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def reach(run_dir: Path, step: int, limit_s: float = 120) -> None:
    began, metrics = time.monotonic(), run_dir / "metrics.jsonl"
    while not metrics.exists() or f'"step": {step}' not in metrics.read_text():
        assert time.monotonic() - began < limit_s
        time.sleep(0.05)


# --- two hosts


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    with two_hosts(tmp_path) as made:
        yield made


def start(hosts: Hosts, run_dir: Path, text: Path, attempt: str) -> dict[str, subprocess.Popen[bytes]]:
    """Start torchrun on both hosts."""
    names = ("MALLOC_", "GLIBC_", "OMP_", "MKL_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    env |= {"PYTHONPATH": str(ROOT / "src"), "MINITX_ALLOCATOR": "as it is"}
    started = {}
    for host in "ab":
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1",
                    "--rdzv-backend=c10d", f"--rdzv-id={attempt}", f"--rdzv-endpoint={hosts.addresses['a']}:29500"]
        log = run_dir.with_suffix(f".{attempt}.{host}.log").open("wb")
        started[host] = subprocess.Popen(
            [*hosts.on(host), *torchrun, str(ROOT / "train.py"), *words(text, run_dir)], stdout=log, stderr=log,
            env=env | {"GLOO_SOCKET_IFNAME": hosts.cables[host]}, start_new_session=True)
    return started


@pytest.mark.slow
def test_two_hosts_are_cut_apart_and_go_on(hosts: Hosts, text: Path, expected: dict[str, torch.Tensor], tmp_path: Path,
                                           record_property: pytest.FixtureRequest) -> None:
    run_dir = tmp_path / "run"
    started = start(hosts, run_dir, text, "first")
    try:
        reach(run_dir, 60)
        hosts.link("down")
        cut = time.monotonic()
        for host, process in started.items():
            assert process.wait(max(1.0, APART_S - (time.monotonic() - cut))) != 0, host
        print(f"both ends gone {time.monotonic() - cut:.1f} s after the cut (trainer.timeout_s={TIMEOUT_S})")
    finally:
        for process in started.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    for host in "ab":
        said = run_dir.with_suffix(f".first.{host}.log").read_text()
        assert "waited 10 s (trainer.timeout_s)" in said or "another rank is gone" in said, said
    hosts.link("up")
    for host, process in start(hosts, run_dir, text, "second").items():
        assert process.wait(120) == 0, run_dir.with_suffix(f".second.{host}.log").read_text()
    assert Result.read(run_dir / "result.json").world_size == 2
    assert same(newest(run_dir), expected)


# --- SLURM


@pytest.fixture
def cluster() -> Iterator[dict[str, str]]:
    folder = Path(mkdtemp(prefix="mtx", dir="/tmp"))  # a socket's path must be short
    try:
        with slurm(folder) as env:
            yield env
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def submit(env: dict[str, str], text: Path, run_dir: Path, log: Path) -> str:
    names = ("MALLOC_", "GLIBC_", "OMP_", "MKL_")
    clean = {name: value for name, value in env.items() if not name.startswith(names)}
    clean |= {"PYTHONPATH": str(ROOT / "src"), "PYTHON": sys.executable, "MASTER_ADDR": "127.0.0.1",
              "GLOO_SOCKET_IFNAME": "lo", "MINITX_ALLOCATOR": "as it is"}
    said = run("sbatch", "--parsable", "--nodes=2", "--ntasks-per-node=1", "--time=10", f"--output={log}",
               f"--chdir={ROOT}", ROOT / "scripts/train.sbatch", *words(text, run_dir), env=clean)
    return said.strip()


def state_of(env: dict[str, str], job: str) -> str:
    found = run("scontrol", "-o", "show", "job", job, env=env)
    return found.partition("JobState=")[2].split()[0]


def wait_for(env: dict[str, str], job: str, states: tuple[str, ...], limit_s: float) -> str:
    began = time.monotonic()
    while (state := state_of(env, job)) not in states:
        assert time.monotonic() - began < limit_s, state
        time.sleep(0.2)
    return state


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(10 if FULL else 1))
def test_a_preempted_job_is_queued_again_and_goes_on(cluster: dict[str, str], text: Path, tmp_path: Path, attempt: int,
                                                     expected: dict[str, torch.Tensor]) -> None:
    run_dir, log = tmp_path / "run", tmp_path / "log"
    job = submit(cluster, text, run_dir, log)
    reach(run_dir, 60)
    run("scancel", "--signal=USR1", job, env=cluster)
    wait_for(cluster, job, ("PENDING",), 30)
    assert Result.read(run_dir / "result.json").status == "terminated"
    wait_for_nodes(cluster)  # else the job may start on a node that still ends its first attempt, and fail
    run("scontrol", "update", f"jobid={job}", "starttime=now", env=cluster)
    assert wait_for(cluster, job, ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED"), 120) == "COMPLETED", log.read_text()
    assert "resuming at step" in log.read_text()
    assert same(newest(run_dir), expected)


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(10 if FULL else 1))
def test_a_cancelled_job_ends_with_all_saved(cluster: dict[str, str], text: Path, tmp_path: Path, attempt: int) -> None:
    run_dir, log = tmp_path / "run", tmp_path / "log"
    job = submit(cluster, text, run_dir, log)
    reach(run_dir, 60)
    run("scancel", "--signal=TERM", job, env=cluster)
    wait_for(cluster, job, ("FAILED", "COMPLETED", "CANCELLED"), 30)
    result = Result.read(run_dir / "result.json")
    assert (result.status, result.world_size) == ("terminated", 2)
    assert int(max((run_dir / "checkpoints").glob("step-*")).name[5:13]) == result.steps
    assert "Traceback" not in log.read_text()
