"""Who started this process: torchrun, srun, or nobody. Both say so in environment variables.

Only a whole set makes this process a rank. srun's set is put under torchrun's names, which all else here reads.

| torchrun | srun | what it says |
|---|---|---|
| `TORCHELASTIC_RUN_ID` | `SLURM_JOB_ID`, `SLURM_STEP_ID` | the job |
| `WORLD_SIZE` | `SLURM_STEP_NUM_TASKS` | how many ranks it has |
| `RANK` | `SLURM_PROCID` | which of them this is, from 0 |
| `LOCAL_WORLD_SIZE` | `SLURM_STEP_TASKS_PER_NODE`, as in `4(x2)` | how many of them are on this host |
| `LOCAL_RANK` | `SLURM_LOCALID` | which of those this is |
| `MASTER_ADDR` | the first of `SLURM_STEP_NODELIST`, as in `rack[1-2]n[03,07]` | the host where all meet |
| `MASTER_PORT` | made from the numbers of job and step | the port there |

Source: "Environment Variables" of torch.distributed.run; srun(1), "OUTPUT ENVIRONMENT VARIABLES".
"""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from itertools import product

from minitx.utils.console import Console
from minitx.utils.errors import Exit, UserError

FOLDER = "MINITX_RANKS"  # names the folder of ranks that `elastic` starts: they meet there, not at a port
PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
SRUN = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID",
        "SLURM_STEP_TASKS_PER_NODE", "SLURM_STEP_NODELIST")
# What torch, Lightning and this package believe one by one: a lone RANK=1 silences Lightning's loggers
# (lightning.fabric.utilities.rank_zero), a lone LOCAL_WORLD_SIZE=2 halves the threads.
OF_A_RANK = (*PLACE, "GROUP_RANK", "GROUP_WORLD_SIZE", "NODE_RANK", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT",
             "TORCHELASTIC_USE_AGENT_STORE", "SLURM_PROCID", "JSM_NAMESPACE_RANK")

HOST = r"(?:[^\[\],\s]|\[\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*\])+"


def outer_ranks() -> int:
    """Return how many ranks torchrun or srun started, this process one of them; 0 if neither did.

    Variables that are left over from elsewhere are removed, with a warning. Call it before torch is imported.

    Errors: `UserError` where srun's hosts have unequally many tasks, or their list cannot be read.
    """
    env = os.environ
    can_meet = FOLDER in env or (env.get("MASTER_ADDR") and env.get("MASTER_PORT", "").isdecimal())
    if env.get("TORCHELASTIC_RUN_ID") and can_meet and _is_place(env):
        return int(env["WORLD_SIZE"])
    place = _srun_place(env)
    expected = place or {"SLURM_PROCID": "0"}  # every batch script has this one
    stale = {name: env.pop(name) for name in OF_A_RANK if name in env and env[name] != expected.get(name)}
    env |= place
    if stale and env.get("RANK", "0") == "0":
        listed = ", ".join(f"{name}={value or repr(value)}" for name, value in stale.items())
        launcher = "srun alone" if place else "neither torchrun nor srun"
        Console().warn(f"ignored {listed}: left over from another job, for {launcher} started this process")
    return int(place.get("WORLD_SIZE", 0))


def _is_place(env: Mapping[str, str]) -> bool:
    """Tell whether the four numbers are there, and name a place that there can be."""
    if not all(env.get(name, "").isdecimal() for name in PLACE):
        return False
    rank, size, local_rank, local_size = (int(env[name]) for name in PLACE)
    return rank < size and local_rank < local_size <= size


def _srun_place(env: Mapping[str, str]) -> dict[str, str]:
    """Return a rank's place as torchrun would name it; nothing unless srun started several. Errors: as `outer_ranks`"""
    *numbers, tasks, hosts = (env.get(name, "") for name in SRUN)
    if not all(map(str.isdecimal, numbers)) or not tasks or not hosts:
        return {}
    job, step, size, rank, local_rank = numbers
    if size == "1":
        return {}
    here = re.fullmatch(r"(\d+)(\(x\d+\))?", tasks)
    if here is None:
        raise UserError(f"SLURM_STEP_TASKS_PER_NODE={tasks}: hosts need equally many tasks; set --ntasks-per-node")
    place = dict(zip(PLACE, (rank, size, local_rank, here[1]), strict=True))
    port = 10_000 + int(job) * 16 % 50_000 + int(step) % 16
    return {**place, "SLURM_PROCID": rank, "MASTER_ADDR": env.get("MASTER_ADDR") or next(expand_hosts(hosts)),
            "MASTER_PORT": env.get("MASTER_PORT") or str(port)} if _is_place(place) else {}


def expand_hosts(listed: str) -> Iterator[str]:
    """Yield the hosts of a SLURM list, in its order: rack[1-2]n[03,07] is rack1n03, rack1n07, rack2n03, rack2n07.

    Errors: `UserError` where it is no such list.
    """
    if not re.fullmatch(f"{HOST}(?:,{HOST})*", listed):
        raise UserError(f"SLURM_STEP_NODELIST={listed}: not a list of hosts like n[01-04,07]; set MASTER_ADDR to the "
                        "first host")
    for host in re.findall(HOST, listed):
        parts = re.split(r"\[(.*?)\]", host)  # name, numbers, name, ..., name
        yield from map("".join, product(*(_numbers(part) if i % 2 else [part] for i, part in enumerate(parts))))


def _numbers(listed: str) -> Iterator[str]:
    """Yield what stands between brackets: 08-10,12 is 08, 09, 10, 12."""
    for part in listed.split(","):
        first, _, last = part.partition("-")
        yield from (f"{number:0{len(first)}}" for number in range(int(first), int(last or first) + 1))


def outer_exit_code(code: int) -> int:
    """Return the code to leave with: torchrun restarts, or calls failed, a rank that leaves with another than 0."""
    stopped = code in (Exit.INTERRUPTED, Exit.TERMINATED)
    return Exit.OK if stopped and "TORCHELASTIC_RUN_ID" in os.environ else code


def requeue(console: Console) -> None:
    """Put this SLURM job in the queue again. Its script goes on from the checkpoint with resume=auto."""
    job = os.environ["SLURM_JOB_ID"]
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True)
        console.line(f"{'requeued':>16}  SLURM job {job}")
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", None) or error
        console.warn(f"SLURM job {job} could not be requeued ({' '.join(str(why).split())}); submit it again yourself")
