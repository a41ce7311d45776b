"""Files that are put in place whole or not at all, and the home folder: everyone has one, and ~ is its name."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir, mkdtemp

from minitx.utils.console import Console, warn_once

UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)  # what a file system says to a call that it does not have


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` in place: written to a temporary file beside it, flushed, renamed, the folder flushed.

    Errors: OSError as it comes; the file that stood there is untouched. A file system that cannot flush is no error: it
    is warned of, for a power cut may then lose the file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        create(temporary, content, "wb")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _flush_path(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, which takes that name once the block has filled it; else it is removed.

    Errors: OSError as it comes, also where `path` is a file or a folder with something in it by then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed process of this number
    temporary.mkdir()
    try:
        yield temporary
        for written in [*temporary.rglob("*"), temporary]:
            _flush_path(written)
        temporary.rename(path)
        _flush_path(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def create(path: Path, content: bytes, mode: str = "xb") -> None:
    """Write a file and flush it. Errors: OSError; FileExistsError where it exists, so that one of two writers fails."""
    with path.open(mode) as file:
        file.write(content)
        file.flush()
        _flush(file.fileno(), path.parent)


def _flush_path(path: Path) -> None:
    """Flush a file or a folder that is closed."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _flush(descriptor, path if path.is_dir() else path.parent)
    finally:
        os.close(descriptor)


def _flush(descriptor: int, folder: Path) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        warn_once(f"{folder}: its file system cannot flush to disk ({error.strerror}): a power cut may lose what was "
                  "written last; a killed process loses nothing")


def expand_home(path: str) -> str:
    """Return a path with the home folder in the place of a leading `~` or `~name`, as a shell writes it if unquoted."""
    if path.startswith("~"):
        ensure_home()
    return os.path.expanduser(path)


def ensure_home() -> Path:
    """Return the user's home folder. One who has none, as in a container, gets one among the temporary files, as HOME.

    Without it libraries fail, or write into a folder called "~".
    """
    try:
        return Path.home()
    except RuntimeError:  # no HOME, and no entry in the system's list of users
        folder = Path(gettempdir(), f"minitx-{os.getuid()}")
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():  # somebody else's
                folder = Path(mkdtemp(prefix="minitx-"))
        os.environ["HOME"] = str(folder)
        Console().warn(f"user {os.getuid()} has no home folder: caches go to {folder}; HOME names another")
        return folder
