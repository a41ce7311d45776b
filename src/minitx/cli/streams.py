"""What commands read and write: lines of bytes as they arrive, files that appear whole or not at all."""

import codecs
import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from minitx.utils.errors import Exit, UserError

CHUNK_BYTES = 1 << 16  # about a thousand lines: enough to sort by length, few enough for output to begin soon
WRONG_PATH = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


def exit_of(error: OSError) -> Exit:
    """Tell a path that leads nowhere from storage that refuses."""
    return Exit.USAGE if error.errno in WRONG_PATH else Exit.STORAGE


@contextmanager
def opened(path: Path | None) -> Iterator[BinaryIO]:
    """Open what is to be read; None = standard input. Errors: `UserError` for a path that cannot be read."""
    if path is None:
        yield sys.stdin.buffer
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    with file:
        yield file


@contextmanager
def created(path: Path | None, *inputs: Path | None) -> Iterator[BinaryIO]:
    """Open what is to be written; None = standard output. A file gets its content at the end, at once.

    Errors: `UserError` for a path that leads nowhere or is one of the inputs, and for storage that is full or refuses;
    after any error the file is as it was.
    """
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
    """Let what is still buffered go nowhere: Python's last flush would fail aloud."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def read_pairs(src: Path, ref: Path) -> tuple[list[str], list[str]]:
    """Read two files that pair line by line. Errors: `UserError` if they do not, or hold nothing."""
    from minitx.data.files import read_lines

    sources, references = read_lines(src), read_lines(ref)
    if len(sources) != len(references):
        raise UserError(f"{src} has {len(sources):,} lines, {ref} has {len(references):,}: "
                        "they must pair line by line", Exit.DATA)
    if not sources:
        raise UserError(f"{src}: no lines to score", Exit.DATA)
    return sources, references


def arriving(source: BinaryIO) -> Iterator[tuple[int, list[bytes], int]]:
    """Yield complete lines as soon as there are any: one from a person, hundreds from a file.

    --> number of the first (from 1), the lines (ended by b"\\n" alone, CRLF and a BOM tolerated), bytes read so far
    """
    first, n_bytes, rest = 1, 0, b""
    while block := source.read1(CHUNK_BYTES):  # type: ignore[attr-defined]
        block = block if n_bytes else block.removeprefix(codecs.BOM_UTF8)
        n_bytes += len(block)
        *lines, rest = (rest + block).split(b"\n")
        if lines:
            yield first, lines, n_bytes
            first += len(lines)
    if rest:
        yield first, [rest], n_bytes


def decoded(row: int, line: bytes, warn: Callable[[int, str], None]) -> str:
    """Decode one line; a broken one stays one line."""
    line = line.removesuffix(b"\r")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        warn(row, f"byte 0x{line[error.start]:02x} at offset {error.start} is not UTF-8; replaced by U+FFFD")
        return line.decode(errors="replace")


def encoded(text: str) -> bytes:
    """Encode one output as one line, whatever the model wrote."""
    return text.replace("\n", " ").encode(errors="replace") + b"\n"


def size(file: BinaryIO) -> int | None:
    """Return the bytes of a regular file; None for what has no end in sight."""
    status = os.fstat(file.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None
