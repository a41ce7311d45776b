"""Clusters on one machine: two hosts as network namespaces, and SLURM with two nodes. Both are gone after the block.

Nothing of them can be reached from another machine: the hosts share one cable of their own, SLURM listens for its key.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def run(*words: str | Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise OSError(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout


# --- two hosts


class Hosts:
    """Two hosts, "a" and "b", with a cable between them."""

    def __init__(self, folder: Path, mark: str) -> None:
        self.names = {host: f"{mark}{host}" for host in "ab"}
        self.cables = {host: f"{mark}{host}" for host in "ab"}
        self.addresses = {"a": "10.77.0.1", "b": "10.77.0.2"}
        self.known = folder / "hosts"
        self.known.write_text("127.0.0.1 localhost\n" + "".join(
            f"{self.addresses[host]} {name}\n" for host, name in self.names.items()))

    def plug(self) -> None:
        for name in self.names.values():
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        a, b = "ab"
        run("ip", "link", "add", self.cables[a], "netns", self.names[a], "type", "veth", "peer", "name", self.cables[b],
            "netns", self.names[b])
        for host, name in self.names.items():
            run("ip", "-n", name, "addr", "add", f"{self.addresses[host]}/24", "dev", self.cables[host])
            run("ip", "-n", name, "link", "set", self.cables[host], "up")

    def link(self, state: str) -> None:
        """Cut the cable ("down") or mend it ("up")."""
        for host, name in self.names.items():
            run("ip", "-n", name, "link", "set", self.cables[host], state)

    def on(self, host: str) -> list[str]:
        """Return the words before a command that let it run on a host."""
        enter = f"hostname {self.names[host]} && mount --bind {self.known} /etc/hosts && exec \"$@\""
        return ["nsenter", f"--net=/run/netns/{self.names[host]}", "unshare", "--uts", "--mount",
                "sh", "-c", enter, "on"]

    def unplug(self) -> None:
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@contextmanager
def two_hosts(folder: Path) -> Iterator[Hosts]:
    """Skip the test where this machine does not let us make network namespaces."""
    if missing := [tool for tool in ("ip", "nsenter", "unshare") if shutil.which(tool) is None]:
        pytest.skip(f"two hosts need {', '.join(missing)} (iproute2, util-linux)")
    hosts = Hosts(folder, f"mtx{os.getpid() % 10000}")
    try:
        hosts.plug()
    except OSError as error:
        hosts.unplug()
        pytest.skip(f"network namespaces cannot be made here: {error}")
    try:
        yield hosts
    finally:
        hosts.unplug()


# --- SLURM

CONF = """\
ClusterName=t
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge/sock,cred_expire=6
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=10
KillWait=5
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port={first}-{last} CPUs=4 RealMemory=2000
PartitionName=p Nodes=n1,n2 Default=YES MaxTime=60 OverSubscribe=YES:4 State=UP
"""


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the environment of clients. Skip the test where SLURM is not installed. folder: short, it holds a socket"""
    needed = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
    if missing := [tool for tool in needed if shutil.which(tool) is None]:
        pytest.skip(f"SLURM needs {', '.join(missing)} (Debian: slurm-wlm, munge)")
    port = 20_000 + os.getpid() % 10_000
    for name in ("state", "spool.n1", "spool.n2", "munge"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge/key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    for place in (folder, folder / "munge"):
        place.chmod(0o755)
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(folder=folder, host=socket.gethostname().partition(".")[0], port=port, first=port + 2,
                                last=port + 3, user="root" if os.geteuid() == 0 else os.environ["USER"]))
    env = os.environ | {"SLURM_CONF": str(conf)}
    at = folder / "munge"
    try:
        run("munged", "--force", "--num-threads=2", f"--key-file={key}", f"--socket={at}/sock", f"--pid-file={at}/pid",
            f"--log-file={at}/log", f"--seed-file={at}/seed", env=env)
        run("slurmctld", env=env)
        for node in ("n1", "n2"):
            run("slurmd", "-N", node, env=env)
        wait_for_nodes(env)
        yield env
    finally:
        for pid in (*folder.glob("slurmd.*.pid"), folder / "slurmctld.pid", at / "pid"):
            if pid.exists():
                subprocess.run(["kill", pid.read_text().strip()], capture_output=True, check=False)


def wait_for_nodes(env: dict[str, str], limit_s: float = 30) -> None:
    began = time.monotonic()
    while run("sinfo", "-h", "-t", "idle", "-o", "%D", env=env).strip() != "2":
        assert time.monotonic() - began < limit_s, run("sinfo", "-N", env=env)
        time.sleep(0.2)
