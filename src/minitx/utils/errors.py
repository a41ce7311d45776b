"""A user's mistake becomes one line and an exit code, never a traceback."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of `train.py` and `minitx`; README's table is tested against these."""

    OK = 0
    CRASH = 1  # an error of ours: with traceback
    USAGE = 2  # a wrong key, value, path or command line
    DATA = 3  # the text itself cannot be used
    DIVERGED = 4  # too many non-finite updates
    STORAGE = 5  # disk full, directory unwritable or held by another run
    INTERRUPTED = 130  # Ctrl-C: checkpoint and result are written
    TERMINATED = 143  # SIGTERM: checkpoint and result are written


class UserError(Exception):
    """Say in one line what is wrong, where, and what to do; below it, if need be, one line for each difference."""

    def __init__(self, message: str, code: Exit = Exit.USAGE) -> None:
        super().__init__(message)
        self.code = code
