"""Parallel text in files: which files make up a split, and their bytes -> (src, tgt) strings.

- Formats: `{split}.{lang}[.gz]`, `{split}.tsv[.gz]`, `{split}.jsonl[.gz]`, `{split}[-00000-of-00001].parquet`.
- Lines end at b"\\n" only: U+2028, U+0085, a form feed or a lone CR is text, so it never shifts a pair.
- A BOM and CRLF are tolerated; anything else odd is a `UserError` that names file and line.
"""

import gzip
import json
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minitx.errors import Exit, UserError

Pair = tuple[str, str]
VALID_NAMES = ("val", "valid", "validation", "dev")
TABLES = ("tsv", "jsonl", "parquet")
_TABLE = re.compile(r"(?P<split>.+?)(\.(?P<lines>tsv|jsonl)(\.gz)?|(-\d{5}-of-\d{5})?\.parquet)")
_SHARD = re.compile(r"-(?P<shard>\d{5})-of-(?P<shards>\d{5})\.")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class SplitFiles:
    """The files of one split: one a language (plain), one table, or one table's shards in order."""

    format: str
    paths: tuple[Path, ...]

    def read(self, src: str, tgt: str) -> list[Pair]:
        """Read the pairs; errors: `UserError` naming file and line."""
        pairs = _READERS[self.format](self.paths, src, tgt)
        if not pairs:
            raise UserError(f"{' + '.join(map(str, self.paths))}: empty, no pair of sentences in it", Exit.DATA)
        return pairs


def find_splits(folder: Path, src: str, tgt: str, test_sets: Sequence[str] | None = None) -> dict[str, SplitFiles]:
    """Find "train", "valid" and every test set, by file names alone.

    Errors: `UserError` for a missing split or language, or a split that is there twice.
    """
    try:
        names = sorted(path for place in (folder, folder / "data") if place.is_dir() for path in place.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from error
    found: dict[str, dict[str, list[Path]]] = {}  # split -> language or table format -> files
    for path in names:
        if named := _classify(path.name, src, tgt):
            found.setdefault(named[0], {}).setdefault(named[1], []).append(path)
    splits = {}
    for split in sorted(found, key=lambda name: (name != "train", name != "valid", name)):
        try:
            splits[split] = _split_files(split, found[split], src, tgt)
        except UserError:
            if test_sets is None or split in ("train", "valid", *test_sets):  # one nobody asked for may be broken
                raise
    for split, stem in (("train", "train"), ("valid", "val")):
        if split not in splits:
            shown = ", ".join(path.name for path in names[:8]) + (", ..." if len(names) > 8 else "")
            raise UserError(f"{folder}: no {split} split for {src}-{tgt}: wants {stem}.{src} and {stem}.{tgt} (or .gz) "
                            f"or {stem}.tsv, .jsonl, .parquet; there are: {shown or 'no files'}", Exit.DATA)
    return splits


def _classify(name: str, src: str, tgt: str) -> tuple[str, str] | None:
    """Return (split, kind) for a file name that belongs to a split; kind = a language, or a table's format."""
    if match := _TABLE.fullmatch(name):
        stem, kind = match["split"], match["lines"] or "parquet"
    else:
        stem, _, kind = name.removesuffix(".gz").rpartition(".")
        if kind not in (src, tgt):
            return None
    if stem == "train" or stem.startswith("test"):
        return stem, kind
    return ("valid", kind) if stem in VALID_NAMES else None


def _split_files(split: str, kinds: dict[str, list[Path]], src: str, tgt: str) -> SplitFiles:
    tables = [kind for kind in kinds if kind in TABLES]
    plain = [kind for kind in kinds if kind not in TABLES]
    paths = [path for kind in kinds for path in kinds[kind]]
    odd = [kind for kind in kinds if not _is_one_table(kinds[kind])]
    if odd and all("-of-" in path.name for path in kinds[odd[0]]):
        raise UserError(f"{paths[0]}: the {split} split has {len(paths)} of its shards, not all", Exit.DATA)
    if len(tables) + bool(plain) > 1 or odd:
        names = ", ".join(path.name for path in paths)
        raise UserError(f"{paths[0].parent}: the {split} split is there more than once ({names}); keep one", Exit.DATA)
    if tables:
        return SplitFiles(tables[0], tuple(paths))
    here, *other = paths
    stem = here.name.removesuffix(".gz").rpartition(".")[0]
    if not other or not other[0].name.startswith(f"{stem}."):
        there = ", ".join(sorted(path.name for path in here.parent.glob(f"{stem}.*")))
        hint = "" if split in ("train", "valid") else "; add it, or name the sets to score in data.test_sets"
        missing = src if here in kinds.get(tgt, ()) else tgt
        raise UserError(f"{here}: its other side, {stem}.{missing}, is missing (there are: {there}){hint}", Exit.DATA)
    return SplitFiles("plain", (kinds[src][0], kinds[tgt][0]))


def _is_one_table(paths: Sequence[Path]) -> bool:
    """Tell whether this is a single file, or all of the shards 0 to n-1 of n."""
    shards = [(int(match["shard"]), int(match["shards"])) for path in paths if (match := _SHARD.search(path.name))]
    return shards == [(i, len(paths)) for i in range(len(paths))] if shards else len(paths) == 1


def read_lines(path: Path | str) -> list[str]:
    """Read a text file, or a gzipped one by its suffix.

    Errors: `UserError` naming file, line and byte for invalid UTF-8 or a NUL byte.
    """
    data = _read_bytes(Path(path))
    if (nul := data.find(b"\0")) >= 0:
        raise UserError(f"{path}: line {_line(data, nul):,} holds a NUL byte (byte offset {nul:,}): a binary file?",
                        Exit.DATA)
    skipped = len(_BOM) if data.startswith(_BOM) else 0
    try:
        text = data[skipped:].decode()
    except UnicodeDecodeError as error:
        at = error.start + skipped
        raise UserError(f"{path}: line {_line(data, at):,} is not UTF-8 (byte 0x{data[at]:02x} at byte offset {at:,}); "
                        "convert the file, e.g. with iconv", Exit.DATA) from error
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines] if "\r" in text else lines


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: a damaged gzip file ({error})", Exit.DATA) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _line(data: bytes, offset: int) -> int:
    return data.count(b"\n", 0, offset) + 1


def _read_plain(paths: Sequence[Path], src: str, tgt: str) -> list[Pair]:
    sides = [read_lines(path) for path in paths]
    if len(sides[0]) != len(sides[1]):
        raise UserError(f"{paths[0]} has {len(sides[0]):,} lines and {paths[1].name} has {len(sides[1]):,}: "
                        "line n of one must translate line n of the other", Exit.DATA)
    return list(zip(*sides, strict=True))


def _read_tsv(paths: Sequence[Path], src: str, tgt: str) -> list[Pair]:
    """Read two columns, source and target in this order; or any columns below a header that names both languages."""
    rows = [line.split("\t") for path in paths for line in read_lines(path)]
    header = rows[0] if rows and {src, tgt} <= set(rows[0]) else None
    width, s, t = (len(header), header.index(src), header.index(tgt)) if header else (2, 0, 1)
    for number, row in enumerate(rows, 1):
        if len(row) != width:
            hint = "" if header else f" ({src}, {tgt}; other layouts need a header line that names them)"
            raise UserError(f"{paths[0]}: line {number:,} has {len(row)} tab-separated columns, not {width}{hint}",
                            Exit.DATA)
    return [(row[s], row[t]) for row in rows[bool(header):]]


def _read_jsonl(paths: Sequence[Path], src: str, tgt: str) -> list[Pair]:
    return [_json_pair(line, src, tgt, f"{path}: line {number:,}")
            for path in paths for number, line in enumerate(read_lines(path), 1)]


def _json_pair(line: str, src: str, tgt: str, where: str) -> Pair:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is not JSON ({error})", Exit.DATA) from error
    pair = row_pair(row, src, tgt, where)
    try:
        "".join(pair).encode()
    except UnicodeEncodeError as error:  # JSON's \ud800 can say what UTF-8 cannot
        raise UserError(f"{where} holds a lone surrogate, which is no text", Exit.DATA) from error
    return pair


def _read_parquet(paths: Sequence[Path], src: str, tgt: str) -> list[Pair]:
    import pyarrow.parquet  # type: ignore[import-untyped]

    pairs: list[Pair] = []
    for path in paths:
        try:
            rows = pyarrow.parquet.read_table(path).to_pylist()
        except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid and UnicodeDecodeError are ValueErrors
            raise UserError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]})", Exit.DATA) from error
        pairs += [row_pair(row, src, tgt, f"{path}: row {number:,}") for number, row in enumerate(rows, 1)]
    return pairs


def row_pair(row: Any, src: str, tgt: str, where: str) -> Pair:
    """Take the pair out of a record, flat or below "translation".

    Errors: `UserError` that starts with `where`, for a record without both languages as text.
    """
    fields = row.get("translation", row) if isinstance(row, dict) else row  # the hub's two layouts
    if not isinstance(fields, dict):
        raise UserError(f"{where} is no record with fields {src} and {tgt}", Exit.DATA)
    for lang in (src, tgt):
        if lang not in fields:
            raise UserError(f"{where} has no field {lang} (it has {', '.join(map(str, fields)) or 'none'})", Exit.DATA)
        if not isinstance(fields[lang], str):
            shown = json.dumps(fields[lang], default=str)[:40]
            raise UserError(f"{where}: field {lang} is {shown}, not text", Exit.DATA)
    return fields[src], fields[tgt]


_READERS: dict[str, Callable[[Sequence[Path], str, str], list[Pair]]] = {
    "plain": _read_plain, "tsv": _read_tsv, "jsonl": _read_jsonl, "parquet": _read_parquet,
}
