"""Who has started this process among others: torchrun, srun, or nobody; and what each is told in the end."""

import os
import re
import subprocess

from minitx.utils.console import Console
from minitx.utils.errors import Exit, UserError


def outer_ranks() -> int:
    """Return how many ranks torchrun or srun has started, 0 if neither has; srun's names become torchrun's."""
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        return int(env["WORLD_SIZE"])
    ranks = int(env.get("SLURM_STEP_NUM_TASKS", 1))  # set by srun alone, not in a batch script
    if ranks == 1:
        return 0
    port = 10_000 + int(env["SLURM_JOB_ID"]) * 16 % 50_000 + int(env["SLURM_STEP_ID"]) % 16
    here = re.fullmatch(r"(\d+)(\(x\d+\))?", env["SLURM_STEP_TASKS_PER_NODE"])
    first = re.match(r"([^\[,]+)(?:\[(\w+))?", env["SLURM_STEP_NODELIST"])  # "n[01-04,07]", "a,b"
    if here is None:
        raise UserError(f"SLURM_STEP_TASKS_PER_NODE={env['SLURM_STEP_TASKS_PER_NODE']}: hosts need equally many tasks; "
                        "set --ntasks-per-node")
    assert first is not None
    names = {"RANK": env["SLURM_PROCID"], "WORLD_SIZE": str(ranks), "LOCAL_RANK": env["SLURM_LOCALID"],
             "LOCAL_WORLD_SIZE": here[1], "MASTER_ADDR": "".join(first.groups("")), "MASTER_PORT": str(port)}
    for name, value in names.items():
        env.setdefault(name, value)
    return ranks


def ended_on_purpose(code: int) -> int:
    """Return the code for whoever started us: torchrun begins anew, or calls failed, what leaves with more than 0."""
    stopped = code in (Exit.INTERRUPTED, Exit.TERMINATED)
    return Exit.OK if stopped and "TORCHELASTIC_RUN_ID" in os.environ else code


def requeue(console: Console) -> None:
    """Have SLURM begin this job again, where its script says resume=auto."""
    job = os.environ["SLURM_JOB_ID"]
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True)
        console.line(f"{'requeued':>16}  SLURM job {job}")
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", None) or error
        console.warn(f"SLURM job {job} could not be requeued ({' '.join(str(why).split())}); begin it again yourself")
