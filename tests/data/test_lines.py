"""The one reader of text: the same lines from a file and from a stream, packed or not, in pieces of any size."""

import codecs
import gzip
import io
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx.data import lines as reading
from minitx.data.lines import arriving_lines, decode_line, is_blank, open_text, read_lines
from minitx.utils.errors import Exit, UserError

BOM = codecs.BOM_UTF8
LINE = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\n\0"), max_size=20).filter(
    lambda line: not line.endswith("\r"))


def streamed(data: bytes, name: str = "text") -> list[str]:
    """Read as `minitx translate` does; no line may be odd."""
    def warn(what: str) -> None:
        raise AssertionError(what)

    blocks = arriving_lines(io.BufferedReader(io.BytesIO(data)), name)
    return [decode_line(line, warn) for block in blocks for line in block]


def refusals(path: Path, data: bytes) -> set[str]:
    """Write a file, and return what is said of it when it is read whole and as a stream."""
    path.write_bytes(data)
    lines = set()
    for read in (lambda: read_lines(path), lambda: streamed(data, str(path))):
        with pytest.raises(UserError) as caught:
            read()
        assert caught.value.code == Exit.DATA
        lines.add(str(caught.value).replace(f"{path.parent}/", ""))
    return lines


@given(st.lists(LINE, min_size=1, max_size=10), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans(),
       st.booleans(), st.sampled_from([1, 2, 3, 7, 1 << 16]))
@settings(max_examples=150)
def test_lines_end_at_newline_only(tmp_path_factory, lines, end, bom, last, packed, chunk):
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    data = (end.join(lines) + (end if last or not lines[-1] else "")).encode()
    data = BOM * (bom or data.startswith(BOM)) + data
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "CHUNK_BYTES", chunk)
        assert read_lines(path) == lines
        assert streamed(path.read_bytes()) == lines
        assert read_lines(path, limit=3) == lines[:3]


@pytest.mark.parametrize("chunk", [1, 5, 1 << 16])
def test_packed_files_that_were_joined_lose_each_its_bom(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(reading, "CHUNK_BYTES", chunk)
    members = [BOM + b"one\n", BOM + b"two\r\n", b"", b"three ", BOM + b"and\n", "\u2028\ufeff\n".encode()]
    data = b"".join(map(gzip.compress, members)) + bytes(20)  # zeros may follow
    (tmp_path / "text").write_bytes(data)
    assert read_lines(tmp_path / "text") == streamed(data) == ["one", "two", "three and", "\u2028\ufeff"]


@pytest.mark.parametrize(("name", "data", "line"), [
    ("a", "x\ny".encode("utf-16"), "a: is UTF-16; convert the file, e.g. with iconv -f UTF-16 -t UTF-8"),
    ("a", b"\xfe\xff\0x", "a: is UTF-16; convert the file, e.g. with iconv -f UTF-16 -t UTF-8"),
    ("a", "x\ny".encode("utf-32"), "a: is UTF-32; convert the file, e.g. with iconv -f UTF-32 -t UTF-8"),
    ("a", gzip.compress("x".encode("utf-16")), "a: is UTF-16; convert the file, e.g. with iconv -f UTF-16 -t UTF-8"),
    ("a", gzip.compress(b"text" * 99)[:-9], "a: a damaged gzip file (it ends too early)"),
    ("a.gz", b"text\n",
     "a.gz: a damaged gzip file (Error -3 while decompressing data: incorrect header check)"),
    ("a", gzip.compress(b"text") + b"more",
     "a: a damaged gzip file (Error -3 while decompressing data: incorrect header check)"),
])
def test_what_is_refused_is_so_by_either_way_of_reading(tmp_path, name, data, line):
    assert refusals(tmp_path / name, data) == {line}


def test_lines_arrive_as_soon_as_they_are_complete():
    source, sink = io.BytesIO(b"one\ntw"), []
    blocks = arriving_lines(io.BufferedReader(source), "text")
    sink += next(blocks)
    assert sink == [b"one"]
    source.write(b"o\nthree")
    source.seek(6)
    assert [*blocks] == [[b"two"], [b"three"]]


@pytest.mark.parametrize(("line", "text", "what"), [
    (b"a\xff\xfeb", "a\ufffd\ufffdb", "byte 0xff at offset 1 is not UTF-8; replaced by U+FFFD"),
    (b"a\0b\0", "a\ufffdb\ufffd", "byte 0x00 at offset 1 is no text; replaced by U+FFFD"),
])
def test_what_is_no_text_in_a_stream_is_replaced_with_a_warning(line, text, what):
    said = []
    assert decode_line(line, said.append) == text
    assert said == [what]


def test_a_stream_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    class Broken(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            raise OSError(5, "Input/output error")

    with pytest.raises(UserError, match=r"^standard input: cannot be read \(Input/output error\)$"):
        next(arriving_lines(io.BufferedReader(Broken()), "standard input"))
    monkeypatch.setattr(sys, "stdin", None)  # as Python has it where the shell says <&-
    with pytest.raises(UserError, match="^standard input is closed: name a file to read, or leave it open$"), \
            open_text(None):
        pass


@pytest.mark.parametrize("text", ["", " \t\r", "\u200b", "\ufeff", "\u00ad", "\u2060", " \u200b\u00a0\u200d\u2028"])
def test_a_line_that_shows_nothing_is_blank(text):
    assert is_blank(text)


def test_all_white_space_is_blank_and_no_letter_mark_or_symbol_is():
    chars = list(map(chr, range(sys.maxunicode + 1)))
    assert all(is_blank(char) for char in chars if char.isspace())
    assert not any(is_blank(char) for char in chars if char.isprintable() and char not in " \u034f\u115f\u1160\u17b4"
                   "\u17b5\u3164\uffa0" and not "\u180b" <= char <= "\u180f" and not "\ufe00" <= char <= "\ufe0f"
                   and not "\U000e0100" <= char <= "\U000e01ef")
    assert not is_blank("\u200ba")
