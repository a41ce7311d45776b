"""The lines of a text, from a file or a stream: one reader, with the same rules for training, test sets and commands.

- A line ends at b"\\n" only: U+2028, U+0085, a form feed or a lone CR is text, so none of them shifts a line.
- CRLF is read as a line end, and a UTF-8 byte-order mark (BOM) is left out. UTF-16 and UTF-32 are refused.
- gzip is unpacked, whatever the file's name, since no UTF-8 begins with its first two bytes; a file named .gz must be
  gzip. Files that were joined after packing are read as their texts joined: each may have a BOM of its own.
- Invalid UTF-8 and NUL are no text. A test set that holds them is refused, a training text loses those lines alone, and
  a stream to translate gets U+FFFD in their place, for each line in must give a line out.
"""

import codecs
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from minitx.utils.console import notify
from minitx.utils.errors import Exit, UserError

CHUNK_BYTES = 1 << 16  # about a thousand lines: enough to sort by length, few enough for output to begin soon
_GZIP = b"\x1f\x8b"
_ENCODINGS = {codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32",  # before UTF-16, whose BOM begins theirs
              codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
_SIGNATURES = (_GZIP, codecs.BOM_UTF8, *_ENCODINGS)
# White space, and the characters that Unicode calls default ignorable (DerivedCoreProperties.txt): they show nothing.
_BLANK = re.compile(
    "[\\s\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]*")


def is_blank(text: str) -> bool:
    """Tell whether a text shows nothing: it is empty, or all white space and invisible characters such as U+200B."""
    return _BLANK.fullmatch(text) is not None


@contextmanager
def open_text(path: Path | None) -> Iterator[BinaryIO]:
    """Open a file to be read; None = standard input. Errors: `UserError` for one that cannot be opened."""
    if path is None:
        if sys.stdin is None:
            raise UserError("standard input is closed: name a file to read, or leave it open")
        yield sys.stdin.buffer
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise _unreadable(str(path), error) from error
    with file:
        yield file


def read_lines(path: Path | str, strict: bool = True, limit: int | None = None) -> list[str]:
    """Read a whole file, or its first `limit` lines.

    Invalid bytes become lone surrogates, and NUL stays, with one warning, unless `strict`.
    Errors: `UserError` naming the file, and the line and byte that is no text.
    """
    with open_text(Path(path)) as file:
        data = _first_lines(text_blocks(file, str(path)), limit)  # with its BOM: offsets count from the first byte
    if invalid := _first_invalid(data):
        if strict:
            raise UserError(f"{path}: {invalid}", Exit.DATA)
        notify(f"{path}: {invalid}; training goes on without such pairs")
    text = data.removeprefix(codecs.BOM_UTF8).decode(errors="strict" if strict else "surrogateescape")
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines] if b"\r" in data else lines


def check_pairs(sources: Sequence[str], references: Sequence[str], src: str = "src", ref: str = "ref") -> None:
    """Refuse texts that do not pair line by line, or hold no line. src, ref: their names. Errors: `UserError`"""
    if len(sources) != len(references):
        raise UserError(f"{src} has {len(sources):,} lines, {ref} has {len(references):,}: they must pair line by line",
                        Exit.DATA)
    if not sources:
        raise UserError(f"{src}: no lines to score", Exit.DATA)


def arriving_lines(file: BinaryIO, name: str) -> Iterator[list[bytes]]:
    """Yield complete lines as soon as there are any: one from a person, hundreds from a file.

    Errors: as in `text_blocks`. Each line is for `decode_line`.
    """
    unfinished: list[bytes] = []
    blocks = text_blocks(file, name)
    head = next(blocks, b"").removeprefix(codecs.BOM_UTF8)
    for block in chain([head], blocks):
        first, *others = block.split(b"\n")
        unfinished.append(first)
        if others:
            yield [b"".join(unfinished), *others[:-1]]
            unfinished = others[-1:]
    if last := b"".join(unfinished):
        yield [last]


def decode_line(line: bytes, warn: Callable[[str], None]) -> str:
    """Decode one of the `arriving_lines`. What is no text becomes U+FFFD, and `warn` is told of the first such byte."""
    line = line.removesuffix(b"\r")
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        warn(f"byte 0x{line[error.start]:02x} at offset {error.start} is not UTF-8; replaced by U+FFFD")
        text = line.decode(errors="replace")
    if "\0" in text:
        warn(f"byte 0x00 at offset {line.index(0)} is no text; replaced by U+FFFD")
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text


def text_blocks(file: BinaryIO, name: str) -> Iterator[bytes]:
    """Yield a text's bytes as they arrive, unpacked. A BOM is whole in the first block; later gzip members lose theirs.

    Errors: `UserError` beginning with `name` for a damaged gzip file, for UTF-16 and UTF-32, and where reading fails.
    """
    blocks = _with_whole_signature(_read_blocks(file, name))
    head = next(blocks)
    packed = head.startswith(_GZIP) or name.endswith(".gz")
    blocks = chain([head], blocks)
    try:
        for number, part in enumerate(_gzip_members(blocks) if packed else [blocks]):
            part = _with_whole_signature(part)
            head = next(part)
            if encoding := next((_ENCODINGS[bom] for bom in _ENCODINGS if head.startswith(bom)), None):
                raise UserError(f"{name}: is {encoding}; convert the file, e.g. with iconv -f {encoding} -t UTF-8",
                                Exit.DATA)
            yield head.removeprefix(codecs.BOM_UTF8) if number else head
            yield from part
    except (EOFError, zlib.error) as error:
        raise UserError(f"{name}: a damaged gzip file ({error})", Exit.DATA) from error


def _read_blocks(file: BinaryIO, name: str) -> Iterator[bytes]:
    try:
        while block := file.read1(CHUNK_BYTES):  # type: ignore[attr-defined]
            yield block
    except OSError as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: OSError) -> UserError:
    return UserError(f"{name}: cannot be read ({error.strerror})")


def _with_whole_signature(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the same bytes; the first block, which may be empty, holds all of the signature that they begin with."""
    head = b""
    for block in blocks:
        head += block
        if not any(signature.startswith(head) and signature != head for signature in _SIGNATURES):
            break
    yield head
    yield from blocks


def _gzip_members(packed: Iterator[bytes]) -> Iterator[Iterator[bytes]]:
    """Yield the unpacked blocks of each gzip member: read them before you ask for the next member."""
    rest = b""

    def member() -> Iterator[bytes]:
        nonlocal rest
        unpacker = zlib.decompressobj(wbits=31)  # 31 = gzip alone
        while not unpacker.eof:
            block, rest = rest or next(packed, b""), b""
            if not block:
                raise EOFError("it ends too early")
            yield unpacker.decompress(block)
        rest = unpacker.unused_data.lstrip(b"\0")  # zeros may pad what follows

    for block in packed:
        rest = block.lstrip(b"\0")
        while rest:
            yield member()


def _first_lines(blocks: Iterator[bytes], limit: int | None) -> bytes:
    if limit is None:
        return b"".join(blocks)
    parts, missing = [], limit
    for block in blocks:
        parts.append(block)
        missing -= block.count(b"\n")
        if missing <= 0:
            break
    *lines, rest = b"".join(parts).split(b"\n", limit)
    return b"".join(line + b"\n" for line in lines) + (rest if len(lines) < limit else b"")


def _first_invalid(data: bytes) -> str | None:
    """Say where the first byte is that is no text, or None."""
    if (nul := data.find(b"\0")) >= 0:
        return f"line {_line_number(data, nul):,} holds a NUL byte (byte offset {nul:,}): a binary file?"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        at = error.start
        return (f"line {_line_number(data, at):,} is not UTF-8 (byte 0x{data[at]:02x} at byte offset {at:,}); "
                "convert the file, e.g. with iconv")
    return None


def _line_number(data: bytes, offset: int) -> int:
    return data.count(b"\n", 0, offset) + 1
