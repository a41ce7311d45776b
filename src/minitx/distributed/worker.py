"""One rank's process, from its start to its end: join the others, do the work, say what went wrong.

`elastic` starts a module whose `main` calls `serve`. Under torchrun or srun, `train.py` itself calls `run_rank`.
"""

import ctypes
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import NoReturn

import torch
from torch import distributed

from minitx.config.saved import read_config
from minitx.config.schema import Config, TrainerConfig
from minitx.distributed.cluster import FOLDER
from minitx.distributed.ranks import EXIT_CODE, LOST, PATIENCE_S, Ranks, join, peers_lost
from minitx.utils.errors import Exit, UserError
from minitx.utils.files import write_atomically

PR_SET_PDEATHSIG = 1  # prctl(2)
AGENT_S = 5.0  # that an agent has to end by itself
PARENT_EVERY_S = 1.0  # between two looks at whether it is there, where the kernel does not tell

Work = Callable[[Config, Ranks, torch.device, Path | None], int]  # the folder is `elastic`'s; returns an exit code
ChooseDevice = Callable[[TrainerConfig, int], torch.device]  # of the local rank


def serve(work: Work, choose_device: ChooseDevice) -> NoReturn:
    """Be a rank that `elastic` started: work on the config in its folder, unless the job has ended on purpose."""
    folder = Path(os.environ[FOLDER])
    if (folder / EXIT_CODE).exists():  # a rank that failed late was restarted after the others had finished
        sys.exit(Exit.OK)
    sys.exit(run_rank(read_config(folder), work, choose_device, folder))


def run_rank(cfg: Config, work: Work, choose_device: ChooseDevice, folder: Path | None = None) -> int:
    """Join the other ranks, do the work, and return the exit code. folder: of `elastic`, where it started this rank

    Ends the process instead of returning after an error: other ranks may hang, and there is nothing to clean up that
    would be worth waiting for them.
    """
    ranks: Ranks | None = None
    code: int
    agent = os.getppid()
    try:
        if "TORCHELASTIC_RUN_ID" in os.environ:
            end_with_parent()
        announce_restart()
        device = choose_device(cfg.trainer, int(os.environ["LOCAL_RANK"]))
        ranks = join(cfg.trainer.timeout_s, on_gpu=device.type == "cuda")
        code = work(cfg, ranks, device, folder)
        ranks.all_gather(None)  # all are through: the agent may end the others when one leaves
    except UserError as error:
        if ranks is None or ranks.is_first_to_say(str(error)):  # most errors of the user are every rank's
            print(f"minitx: error: {error}", file=sys.stderr, flush=True)
        code = error.code
    except Exception as error:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # the agent ends all ranks when one ends; first say why
        code = report(ranks, error, cfg.trainer.timeout_s)
    may_be_stuck = code not in (Exit.OK, Exit.INTERRUPTED, Exit.TERMINATED, Exit.DIVERGED)
    failed = code in (Exit.CRASH, LOST)
    if folder is not None and os.getppid() != agent:
        shutil.rmtree(folder, ignore_errors=True)  # the agent is gone and cannot
    elif folder is not None and not failed:
        write_atomically(folder / EXIT_CODE, str(int(code)).encode())
        code = Exit.OK  # the agent would restart a rank that leaves with another
    if may_be_stuck:
        if failed and int(os.environ.get("GROUP_WORLD_SIZE", 1)) > 1:
            end_agent()
        sys.stderr.flush()
        os._exit(code)
    distributed.destroy_process_group()
    return code


def announce_restart() -> None:
    """Say, as the first rank, that the ranks were restarted, if they were."""
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    if restarts and os.environ["RANK"] == "0":
        allowed = os.environ.get("TORCHELASTIC_MAX_RESTARTS", restarts)
        print(f"minitx: a rank failed; all ranks restart ({restarts} of {allowed} restarts)", file=sys.stderr,
              flush=True)


def end_with_parent() -> None:
    """Have this process get SIGTERM when the agent dies, so that no rank outlives it and the run stops cleanly.

    Linux sends it by itself; elsewhere a thread looks.
    """
    parent = os.getppid()
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    except (AttributeError, TypeError, OSError):
        Thread(target=_end_after, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        raise UserError("the process that started this rank is gone")


def _end_after(parent: int) -> None:
    """Wait until the agent is gone, and end this process as `kill` would."""
    while os.getppid() == parent:
        time.sleep(PARENT_EVERY_S)
    os.kill(os.getpid(), signal.SIGTERM)


def end_agent() -> None:
    """End the agent that started this rank: cut off from other hosts, it waits for minutes and ignores SIGTERM."""
    agent = os.getppid()
    os.kill(agent, signal.SIGTERM)
    until = time.monotonic() + AGENT_S
    while os.getppid() == agent and time.monotonic() < until:
        time.sleep(0.1)
    if os.getppid() == agent:
        os.kill(agent, signal.SIGKILL)


def report(ranks: Ranks | None, error: Exception, timeout_s: float) -> int:
    """Print what went wrong and where, and return the exit code.

    An error of this rank comes with its traceback; one that follows from another rank's end takes one line.
    """
    where = ", ".join([f"rank {os.environ['RANK']}", *getattr(error, "__notes__", [])])
    lost = peers_lost(error)
    if lost is None:
        text = f"failed\n{''.join(traceback.format_exception(error))}"
    elif ranks is None:
        text = f"could not meet the other ranks: {lost}"
    else:
        waited = lost.startswith("waited")
        late = ", ".join(map(str, ranks.missing(where.partition(", ")[2], PATIENCE_S if waited else 0)))
        text = (f"waited {timeout_s:g} s (trainer.timeout_s) for rank {late or 'unknown'}, which hangs or cannot be "
                "reached" if waited else f"another rank is gone ({lost})")
    print(f"minitx: {where}: {text}", file=sys.stderr, flush=True)
    return Exit.CRASH if lost is None else LOST
