"""Training inside another program, a script or a notebook: its process is afterwards as it was before.

Nothing is restarted, and each training takes its number of threads and its start from its own settings.
"""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minitx.config.schema import Config
from minitx.distributed.cluster import outer_ranks
from minitx.training.launch import launch_here, require_text
from minitx.training.process import limit_spinning
from minitx.utils.errors import Exit, UserError
from minitx.utils.files import ensure_home


def train_in_process(cfg: Config) -> Path:
    """Train to the end and return the run directory; a training that diverged has one too, and its result says so.

    Errors: `UserError` for text, settings or storage that cannot be used, in another thread than the main one, and in a
    process that torchrun or srun started as one of several. KeyboardInterrupt after Ctrl-C, SystemExit after SIGTERM:
    in both cases once the update at hand is done, and checkpoint and result are written.
    """
    if threading.current_thread() is not threading.main_thread():
        raise UserError("minitx.train: works only in the main thread, which receives signals")
    if ranks := outer_ranks():
        raise UserError(f"minitx.train: this process is one of {ranks} ranks that torchrun or srun started, and each "
                        "would train by itself; start train.py with them, or set trainer.devices")
    require_text(cfg)
    ensure_home()
    with _process_restored():
        run_dir, code = launch_here(cfg)
    if code == Exit.INTERRUPTED:
        raise KeyboardInterrupt
    if code == Exit.TERMINATED:
        raise SystemExit(code)
    if code not in (Exit.OK, Exit.DIVERGED):  # of ranks: an error in this process was raised
        raise UserError("minitx.train: the ranks failed; what they say is above", Exit(code))
    return run_dir


@contextmanager
def _process_restored() -> Iterator[None]:
    """Give back the environment, the threads, the random state and the level of a logger that a training changes."""
    environment, logger = dict(os.environ), logging.getLogger("lightning.pytorch")
    level = logger.level
    limit_spinning()

    import torch

    threads = torch.get_num_threads()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        os.environ.clear()
        os.environ |= environment
        torch.set_num_threads(threads)
        logger.setLevel(level)
