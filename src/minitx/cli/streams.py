"""What commands read and write: pairs of files, outputs that appear whole or not at all."""

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from minitx.data.lines import check_pairs, read_lines
from minitx.utils.errors import Exit, UserError

WRONG_PATH = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


def exit_of(error: OSError) -> Exit:
    """Return USAGE for a path that leads nowhere, STORAGE for a device that refuses."""
    return Exit.USAGE if error.errno in WRONG_PATH else Exit.STORAGE


@contextmanager
def created(path: Path | None, *inputs: Path | None) -> Iterator[BinaryIO]:
    """Open an output; None = standard output. A file gets its content at the end, at once.

    Errors: `UserError` for a path that leads nowhere or is one of the inputs, for a closed standard output, and for
    storage that is full or refuses; after any error the file is as it was.
    """
    if path is None and sys.stdout is None:
        raise UserError("standard output: cannot be written: it is closed", Exit.STORAGE)
    if any(path and other and path.exists() and path.samefile(other) for other in inputs):
        raise UserError(f"--output={path} is the input: write to another file")
    place = path and path.resolve()  # through a link to the file behind it
    replaces = place and (place.is_file() or not place.exists())  # unlike /dev/null or a fifo
    beside = place.with_name(f".{place.name}.{os.getpid()}") if place and replaces else place
    try:
        if beside is None:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
            return
        with beside.open("wb") as file:
            yield file
        if place and replaces:
            beside.replace(place)
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename not in (None, str(beside)):
            raise  # of another file
        if path is None:
            drop_stdout()
        where = path or "standard output"
        raise UserError(f"{where}: cannot be written: {error.strerror}", exit_of(error)) from error
    finally:
        if beside and replaces:
            with suppress(OSError):  # where it could not be made, it cannot be removed
                beside.unlink()


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Write to standard output in a block that ends quietly when its reader, `head` for one, has what it wanted.

    Errors: `UserError` where the rest of it cannot be written, for Python's last flush would fail with a traceback.
    """
    try:
        yield
        try:
            print(end="", flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            drop_stdout()
            raise UserError(f"standard output: cannot be written: {error.strerror}", exit_of(error)) from error
    except BrokenPipeError:
        drop_stdout()


def drop_stdout() -> None:
    """Discard what is still buffered, or Python's flush at exit would report an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def read_pairs(src: Path, ref: Path) -> tuple[list[str], list[str]]:
    """Read two files that pair line by line. Errors: `UserError` if they do not, or hold no text."""
    sources, references = read_lines(src), read_lines(ref)
    check_pairs(sources, references, str(src), str(ref))
    return sources, references


def encode_line(text: str) -> bytes:
    """Encode one output as one line, whatever characters the model wrote."""
    return text.replace("\n", " ").encode(errors="replace") + b"\n"


def size_bytes(file: BinaryIO) -> int | None:
    """Return the bytes of a regular file; None for a pipe or a terminal."""
    status = os.fstat(file.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None
