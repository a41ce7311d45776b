"""One rank's process, from its start among others to its end: joining them, training, and who is told what of errors.

`python -m minitx.training.worker` is what our own agent starts. Under torchrun or srun, `train.py` itself is a rank.
"""

import ctypes
import os
import shutil
import signal
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from torch import distributed

from minitx.config.saved import read_config
from minitx.config.schema import Config, config_sha256
from minitx.distributed.ranks import EXIT_CODE, FOLDER, LOST, PATIENCE_S, Ranks, join, peers_lost
from minitx.profiling.provenance import git_state, versions
from minitx.runs.directory import open_run_dir
from minitx.training.build import choose_device
from minitx.training.train import train
from minitx.utils.console import ignore_write_errors
from minitx.utils.errors import Exit, UserError
from minitx.utils.files import write_atomically

PR_SET_PDEATHSIG = 1  # prctl(2)
AGENT_S = 5.0  # that an agent has to end by itself


def main() -> NoReturn:
    """Train what the agent's folder says, unless the job ended on purpose before this rank was begun again."""
    ignore_write_errors("stdout", "stderr")
    folder = Path(os.environ[FOLDER])
    if (folder / EXIT_CODE).exists():
        sys.exit(Exit.OK)
    sys.exit(run_rank(read_config(folder), folder))


def run_rank(cfg: Config, folder: Path | None = None) -> int:
    """Be one rank of a training. folder: of our own agent, who has opened the run directory; else the first rank does

    --> exit code. Does not return after an error: other ranks may be stuck, and nothing that this process would clean
    up is worth the wait.
    """
    ranks: Ranks | None = None
    code: int
    agent = os.getppid()
    try:
        if "TORCHELASTIC_RUN_ID" in os.environ:
            end_with_parent()
        if (again := int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))) and os.environ["RANK"] == "0":
            print(f"minitx: a rank has failed; all are begun again, for the {again}. time", file=sys.stderr, flush=True)
        device = choose_device(cfg.trainer, int(os.environ["LOCAL_RANK"]))
        ranks = join(cfg.trainer.timeout_s, on_gpu=device.type == "cuda")
        if folder is None:
            cfg = opened_by_first(cfg, ranks)
        agree(cfg, ranks)
        code = train(cfg, ranks)
    except UserError as slip:
        if ranks is None or ranks.is_first_to_say(str(slip)):  # most slips are every rank's
            print(f"minitx: error: {slip}", file=sys.stderr, flush=True)
        code = slip.code
    except Exception as error:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # the agent ends all ranks when one ends; this one does, but says why
        code = report(ranks, error, cfg.trainer.timeout_s)
    stuck = code not in (Exit.OK, Exit.INTERRUPTED, Exit.TERMINATED, Exit.DIVERGED)
    ended_early = code in (Exit.CRASH, LOST)
    if folder is not None and os.getppid() != agent:
        shutil.rmtree(folder, ignore_errors=True)  # nobody else will
    elif folder is not None and not ended_early:
        write_atomically(folder / EXIT_CODE, str(int(code)).encode())
        code = Exit.OK  # our agent would begin anew what leaves with more
    if stuck:
        if ended_early and int(os.environ.get("GROUP_WORLD_SIZE", 1)) > 1:
            end_agent()
        sys.stderr.flush()
        os._exit(code)
    distributed.destroy_process_group()
    return code


def opened_by_first(cfg: Config, ranks: Ranks) -> Config:
    """Return the config with the run directory that the first rank has opened for all. Errors: `UserError` on all."""
    with ranks.main_process_first("the run directory, opened"):
        if ranks.is_main:
            cfg = replace(cfg, run_dir=str(open_run_dir(cfg)[0].absolute()))
    return replace(cfg, run_dir=ranks.broadcast(cfg.run_dir))


def agree(cfg: Config, ranks: Ranks) -> None:
    """See that all ranks mean the same and can do it. Errors: `UserError` on all of them."""
    found = {"config": config_sha256(cfg), "commit": str(git_state()[0]), "torch": versions()["torch"]}
    ranks.agree(**found)
    assert cfg.run_dir is not None
    seen = ranks.all_gather(Path(cfg.run_dir).is_dir())
    if not all(seen):
        raise UserError(f"run_dir={cfg.run_dir}: rank {seen.index(False)} does not see it; name a folder that all "
                        "hosts share", Exit.STORAGE)


def end_with_parent() -> None:
    """Have the kernel send SIGTERM when the agent dies: nothing is left behind, and the run stops as if told to."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise UserError("the process that began this rank is gone")


def end_agent() -> None:
    """End the agent that began this rank: cut off from the other hosts' it would wait for minutes, deaf to SIGTERM."""
    agent = os.getppid()
    os.kill(agent, signal.SIGTERM)
    until = time.monotonic() + AGENT_S
    while os.getppid() == agent and time.monotonic() < until:
        time.sleep(0.1)
    if os.getppid() == agent:
        os.kill(agent, signal.SIGKILL)


def report(ranks: Ranks | None, error: Exception, timeout_s: float) -> int:
    """Say what went wrong where: in full what happened here, in one line what follows from another rank's end.

    --> exit code
    """
    where = ", ".join([f"rank {os.environ['RANK']}", *getattr(error, "__notes__", [])])
    lost = peers_lost(error)
    if lost is None:
        told = f"failed\n{''.join(traceback.format_exception(error))}"
    elif ranks is None:
        told = f"could not meet the other ranks: {lost}"
    else:
        waited = lost.startswith("waited")
        late = ", ".join(map(str, ranks.missing(where.partition(", ")[2], PATIENCE_S if waited else 0)))
        told = (f"waited {timeout_s:g} s (trainer.timeout_s) for rank {late or 'unknown'}, which hangs or cannot be "
                "reached" if waited else f"another rank is gone ({lost})")
    print(f"minitx: {where}: {told}", file=sys.stderr, flush=True)
    return Exit.CRASH if lost is None else LOST


if __name__ == "__main__":
    main()
