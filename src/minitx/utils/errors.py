"""A user's mistake becomes one line and an exit code, never a traceback."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of `train.py` and `minitx`."""

    OK = 0
    CRASH = 1
    USAGE = 2
    DATA = 3
    DIVERGED = 4
    STORAGE = 5
    INTERRUPTED = 130
    TERMINATED = 143


MEANINGS = {  # as the site's table of exit codes shows them
    Exit.OK: "done",
    Exit.CRASH: "an error of ours, with a traceback: please report it",
    Exit.USAGE: "a wrong key, value, path or command line",
    Exit.DATA: "the text itself cannot be used; `minitx doctor` says so before a run",
    Exit.DIVERGED: "too many updates were not finite",
    Exit.STORAGE: "a full disk, a damaged file, or a folder that is not empty, not writable or held by another run; "
                  "`minitx doctor` says so before a run",
    Exit.INTERRUPTED: "Ctrl-C: the update at hand is finished, checkpoint and result are written; with one process, a "
                      "second Ctrl-C ends it at once",
    Exit.TERMINATED: "SIGTERM: the update at hand is finished, checkpoint and result are written",
}


class UserError(Exception):
    """Say in one line what is wrong, where, and what to do; below it, if need be, one line for each difference."""

    def __init__(self, message: str, code: Exit = Exit.USAGE) -> None:
        super().__init__(message)
        self.code = code
