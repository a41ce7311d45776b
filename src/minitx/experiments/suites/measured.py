"""How long a suite's runs would take on this machine: `minitx doctor` trains a few updates of each system."""

import json
import subprocess
import sys
from collections.abc import Sequence

from minitx.experiments.suites.suite import Job
from minitx.utils.checkout import MINITX
from minitx.utils.console import Console
from minitx.utils.errors import Exit, UserError
from minitx.utils.progress import Progress


def measure_updates(jobs: Sequence[Job], console: Console) -> dict[str, float]:
    """Return the seconds that all updates of a run would take, by system, of those that are bounded at all.

    Each system is examined in a process that is set up as its training would be. Errors: `UserError` for one that
    could not be trained here, with what the doctor says of it.
    """
    first_of = {job.system: job for job in reversed(jobs)}
    progress, found = Progress(console, len(first_of)), dict[str, float]()
    for system in dict.fromkeys(job.system for job in jobs):
        console.live(f"measuring {system} ...")
        if (seconds := _examined(first_of[system])) is not None:
            found[system] = seconds
        progress(f"measured {system}")
    console.clear()
    return found


def _examined(job: Job) -> float | None:
    """Return what the doctor expects of a run's updates, in seconds; None = nothing bounds it."""
    done = subprocess.run([sys.executable, *MINITX, "doctor", "--json", *job.words], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False)
    if not done.stdout:
        raise UserError(f"{job.system}: cannot be measured: {done.stderr.strip().rpartition('minitx: error: ')[2]}",
                        Exit(done.returncode) if done.returncode in set(Exit) else Exit.USAGE)
    cost = json.loads(done.stdout)
    if "run_s" not in cost.get("cost", {}):
        raise UserError(f"{job.system}: cannot be measured: {'; '.join(cost['problems'])}", Exit(done.returncode))
    seconds: float | None = cost["cost"]["run_s"]
    return seconds
