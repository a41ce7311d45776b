"""Several ranks on this machine: torch's elastic agent, in this process, starts, watches and restarts them.

They meet in files of a temporary folder and talk over the loopback device: nothing listens to other machines. A rank
that ends on purpose writes its exit code into that folder and leaves with 0, so that the agent does not restart it.
"""

import logging
import os
import signal
import socket
import sys
from pathlib import Path
from secrets import token_hex

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from minitx.config.saved import freeze
from minitx.config.schema import Config
from minitx.distributed.cluster import FOLDER
from minitx.distributed.ranks import EXIT_CODE, LOST
from minitx.utils.errors import Exit

# Until a rank has its own handlers, Ctrl-C ends it without a traceback of what it was importing.
START = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); from {} import main; main()"
GRACE_S = 30  # from a signal until ranks that have not left are killed: time for an update, an exchange, a checkpoint
CODE_OF = {signal.SIGINT: Exit.INTERRUPTED, signal.SIGTERM: Exit.TERMINATED}
if "SLURM_JOB_ID" in os.environ:
    CODE_OF[signal.SIGUSR1] = Exit.TERMINATED


def run_ranks(cfg: Config, folder: Path, module: str = "minitx.training.worker") -> int:
    """Run a module as `trainer.devices` ranks, and return the exit code.

    folder: empty; holds their config, is where they meet, and where the module may leave results. module: its `main`
    calls `minitx.distributed.worker.serve`
    """
    agent_log = logging.getLogger("torch.distributed.elastic")
    agent_log.propagate = False  # what matters of it is printed below
    agent_log.addHandler(logging.NullHandler())
    freeze(cfg, folder)
    os.environ |= {FOLDER: str(folder), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, loopback())
    launch = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=cfg.trainer.devices, run_id=token_hex(8), rdzv_backend="c10d",
        rdzv_configs={"store_type": "file"}, rdzv_endpoint=str(folder / "agent"), local_addr="127.0.0.1",
        max_restarts=cfg.trainer.max_restarts, monitor_interval=0.1, shutdown_timeout=GRACE_S,
        signals_to_handle=",".join(number.name for number in CODE_OF),
        logs_specs=DefaultLogsSpecs(log_dir=str(folder / "logs")))
    before = {number: signal.getsignal(number) for number in CODE_OF}
    try:
        elastic_launch(launch, sys.executable)("-P", "-c", START.format(module))
    except SignalException as stop:
        if (code := _exit_code(folder)) is None:
            print("minitx: warning: stopped before the ranks had anything new to save; repeat the command",
                  file=sys.stderr)
            return CODE_OF[stop.sigval]
        return code
    except ChildFailedError as failed:
        if (code := _exit_code(folder)) is None:
            print(f"minitx: {_blame(list(failed.failures.values()))}", file=sys.stderr)
            return Exit.CRASH
        return code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return _exit_code(folder) or Exit.OK


def loopback() -> str:
    """Return what this system calls the network device that leads nowhere else: Linux lo, macOS lo0."""
    names = [name for _, name in socket.if_nameindex()]
    return "lo0" if "lo0" in names and "lo" not in names else "lo"


def _exit_code(folder: Path) -> int | None:
    """Read the code that a rank which ended on purpose has left."""
    path = folder / EXIT_CODE
    return int(path.read_text()) if path.exists() else None


def _blame(failures: list[ProcessFailure]) -> str:
    """Say which rank ended the job, and how: not one that left because another had, or that the agent ended."""
    first = min(failure.timestamp for failure in failures)

    def least_likely(failure: ProcessFailure) -> tuple[bool, bool, bool, int]:
        ended_by_agent = failure.exitcode == -signal.SIGTERM or failure.timestamp > first + 5
        return failure.exitcode == LOST, ended_by_agent, failure.exitcode >= 0, failure.timestamp

    cause = min(failures, key=least_likely)
    if cause.exitcode == LOST:
        return "the ranks lost each other; what they waited for is above"
    if cause.exitcode >= 0:
        return f"rank {cause.local_rank} failed first; its error is above"
    if cause.exitcode == -signal.SIGKILL and cause.timestamp > first + 5:
        return f"rank {cause.local_rank} did not answer and was killed; go on with resume=auto"
    how = signal.Signals(-cause.exitcode).name
    why = " (the kernel does so when memory runs out: lower data.max_tokens)" if how == "SIGKILL" else ""
    return f"rank {cause.local_rank} was killed by {how}{why}; go on with resume=auto"
