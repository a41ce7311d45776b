"""Parallel text in files: which files make up a split, and their lines or rows -> (src, tgt) strings.

- Formats: `{split}.{lang}[.gz]`, `{split}.tsv[.gz]`, `{split}.jsonl[.gz]`, `{split}.parquet`; or a split in shards,
  each a text of its own: `{split}-00000-of-00016.{lang}` and so on.
- `data.lines` says what a line is, and what becomes of bytes that are no text: they cost a training split
  (`strict` = False) their pairs alone, which are warned of here and left out by `data.cleaning`.
- Anything else odd is a `UserError` that names file and line.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from minitx.data.lines import read_lines
from minitx.utils.console import notify
from minitx.utils.errors import Exit, UserError

Pair = tuple[str, str]
VALID_NAMES = ("val", "valid", "validation", "dev")
TABLES = ("tsv", "jsonl", "parquet")
_NAME = re.compile(r"(?P<split>.+?)(-\d{5}-of-\d{5})?\.(?P<kind>[^.]+)(?P<gz>\.gz)?")
_SHARD = re.compile(r"-(?P<shard>\d{5})-of-(?P<shards>\d{5})\.")
# What columns are called: words for a side, and languages by English, own and ISO 639 names.
_HEADER_WORDS = frozenset(re.findall(r"\w+", """
    column input label original output ref reference sentence segment source src target text tgt translated translation
    trg ara arabic ces chi chinese cze czech čeština dan danish dansk deu deutsch dut dutch ell eng english español fin
    finnish fra français fre french ger german greek heb hebrew hin hindi hun hungarian ita italian italiano japanese
    jpn kor korean magyar nederlands nld nor norsk norwegian pol polish polski por portuguese português rom romanian
    română ron rum rus russian русский spa spanish suomi svenska swe swedish tur turkish türkçe ukr ukrainian vie
    vietnamese zho"""))
_LOCALE = re.compile(r"[a-z]{2,3}[-_][a-z]{2,4}")


class LacksLanguage(UserError):
    """Say that a file has other languages than the pair's: of a test set that nobody asked for, no error."""

    def __init__(self, message: str, language: str) -> None:
        super().__init__(message, Exit.DATA)
        self.language = language


@dataclass(frozen=True)
class SplitFiles:
    """The files of one split, by shard: a shard is one file for each language (plain), or one table."""

    format: str
    shards: tuple[tuple[Path, ...], ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Return the files of all shards, in order."""
        return tuple(chain.from_iterable(self.shards))

    def read(self, src: str, tgt: str, strict: bool = True, limit: int | None = None) -> list[Pair]:
        """Read the pairs, or the first `limit` of them. Errors: `UserError` naming file and line."""
        pairs: list[Pair] = []
        for paths in self.shards:
            if limit is not None and len(pairs) >= limit:
                break
            pairs += self.read_shard(paths, src, tgt, strict, None if limit is None else limit - len(pairs))
        if not pairs:
            raise UserError(f"{' + '.join(map(str, self.paths))}: empty, no pair of sentences in it", Exit.DATA)
        return pairs

    def read_shard(self, paths: tuple[Path, ...], src: str, tgt: str, strict: bool, limit: int | None) -> list[Pair]:
        """Read the pairs of one shard, or the first `limit` of them; there may be none."""
        return _READERS[self.format](*paths, src, tgt, strict, limit)[:limit]

    def check_headers(self, src: str, tgt: str) -> None:
        """Refuse shards of which some have a header and some have none. Errors: `UserError`"""
        if self.format != "tsv" or len(self.shards) == 1:
            return
        firsts = [(path, read_lines(path, strict=False, limit=1)) for path in self.paths]
        headed = [_header(lines[0], src, tgt, path) is not None if lines else None for path, lines in firsts]
        if True in headed and False in headed:
            path = self.paths[headed.index(False)]
            raise UserError(f"{path}: has no header, and {self.paths[headed.index(True)].name} has one: write the same "
                            "into each shard, or none", Exit.DATA)


def find_splits(folder: Path, src: str, tgt: str, test_sets: Sequence[str] | None = None,
                required: Sequence[str] = ("train", "valid")) -> dict[str, SplitFiles]:
    """Find "train", "valid" and every test set of a pair; those `required`, and the `test_sets` named, must be there.

    Test sets that lack a language of the pair are left out, with one warning that names them if all are to be scored.
    Errors: `UserError` for a missing split or language, or a split that is there twice.
    """
    names = _list_files(folder)
    found = _group_by_split(names, src, tgt)
    splits, lacking = {}, {}
    for split in sorted(found, key=lambda name: (name != "train", name != "valid", name)):
        is_required = split in ("train", "valid", *(test_sets or ()))
        try:
            files = _split_files(split, found[split], src, tgt)
            if test_sets is None and not is_required and files.format != "plain":
                files.read_shard(files.shards[0], src, tgt, strict=True, limit=1)
            splits[split] = files
        except LacksLanguage as error:
            if is_required:
                raise
            lacking[split] = error.language
        except UserError:
            if test_sets is None or is_required:
                raise
    if test_sets is None:
        warn_of_left_out(str(folder), lacking)
    for split in required:
        if split not in splits:
            raise UserError(_missing_split(split, folder, src, tgt, names), Exit.DATA)
    return splits


def _list_files(folder: Path) -> list[Path]:
    """List a folder and the folder `data` in it. Errors: `UserError` where they cannot be read."""
    try:
        return sorted(path for place in (folder, folder / "data") if place.is_dir() for path in place.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from error


def _group_by_split(names: Sequence[Path], src: str, tgt: str) -> dict[str, dict[str, list[Path]]]:
    """Group files by split, and within it by language or table format; leave out what belongs to no split."""
    found: dict[str, dict[str, list[Path]]] = {}
    for path in names:
        if named := _classify(path.name, src, tgt):
            found.setdefault(named[0], {}).setdefault(named[1], []).append(path)
    return found


def _missing_split(split: str, folder: Path, src: str, tgt: str, names: Sequence[Path]) -> str:
    stem = {"valid": "val"}.get(split, split)
    shown = ", ".join(path.name for path in names[:8]) + (", ..." if len(names) > 8 else "")
    hint = "; or hold pairs of train out with data.hold_out" if split == "valid" else ""
    return (f"{folder}: no {split} split for {src}-{tgt}: wants {stem}.{src} and {stem}.{tgt} (or .gz) or {stem}.tsv, "
            f".jsonl, .parquet; there are: {shown or 'no files'}{hint}")


def warn_of_left_out(where: str, lacking: Mapping[str, str]) -> None:
    """Name the test sets that lack a language of the pair, and which one each lacks."""
    if lacking:
        names = ", ".join(f"{split} (no {language})" for split, language in lacking.items())
        notify(f"{where}: leaves out test sets without this pair: {names}", stacklevel=3)


def _classify(name: str, src: str, tgt: str) -> tuple[str, str] | None:
    """Return (split, kind) for a file name that belongs to a split; kind = a language, or a table's format."""
    match = _NAME.fullmatch(name)
    if match is None or match["kind"] not in (src, tgt, *TABLES) or match["kind"] == "parquet" and match["gz"]:
        return None
    split, kind = match["split"], match["kind"]
    if split == "train" or split.startswith("test"):
        return split, kind
    return ("valid", kind) if split in VALID_NAMES else None


def _split_files(split: str, kinds: dict[str, list[Path]], src: str, tgt: str) -> SplitFiles:
    tables = [kind for kind in kinds if kind in TABLES]
    plain = [kind for kind in kinds if kind not in TABLES]
    paths = [path for kind in kinds for path in kinds[kind]]
    odd = [kind for kind in kinds if not _is_whole(kinds[kind])]
    kinds_at_once = len(tables) + bool(plain) > 1
    if odd and not kinds_at_once and _are_some(there := kinds[odd[0]]):
        raise UserError(f"{there[0].parent}: the {split} split has {len(there)} of its shards, not all; missing: "
                        f"{_missing(there)}", Exit.DATA)
    if kinds_at_once or odd:
        names = ", ".join(path.name for path in paths)
        raise UserError(f"{paths[0].parent}: the {split} split is there more than once ({names}); keep one", Exit.DATA)
    if tables:
        return SplitFiles(tables[0], tuple((path,) for path in paths))
    sides = kinds.get(src, []), kinds.get(tgt, [])
    for shard in zip_longest(*sides):
        here, *other = sorted(path for path in shard if path is not None)
        stem = _stem(here)
        if not other or _stem(other[0]) != stem:
            names = ", ".join(sorted(path.name for path in here.parent.glob(f"{stem}.*")))
            hint = "" if split in ("train", "valid") else "; add it, or leave the set out of data.test_sets"
            missing = tgt if here in sides[0] else src
            raise LacksLanguage(f"{here}: its other side, {stem}.{missing}, is missing (there are: {names}){hint}",
                                missing)
    return SplitFiles("plain", tuple(zip(*sides, strict=True)))


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rpartition(".")[0]


def _is_whole(paths: Sequence[Path]) -> bool:
    """Tell whether this is a single file, or all of the shards 0 to n-1 of n."""
    shards = _shards(paths)
    return shards == [(i, len(paths)) for i in range(len(paths))] if shards else len(paths) == 1


def _shards(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Read numbers and totals from the names of those that are shards."""
    return [(int(match["shard"]), int(match["shards"])) for path in paths if (match := _SHARD.search(path.name))]


def _are_some(paths: Sequence[Path]) -> bool:
    """Tell whether these are shards of one cut, each there once."""
    shards = _shards(paths)
    return len(shards) == len(paths) == len(set(shards)) and len({total for _, total in shards}) == 1


def _missing(paths: Sequence[Path]) -> str:
    """Name the first of the shards that are not there."""
    shards = _shards(paths)
    there, total = {number for number, _ in shards}, shards[0][1]
    names = [_SHARD.sub(f"-{i:05}-of-{total:05}.", paths[0].name) for i in range(total) if i not in there]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _read_plain(src_path: Path, tgt_path: Path, src: str, tgt: str, strict: bool, limit: int | None) -> list[Pair]:
    sides = [read_lines(path, strict, limit) for path in (src_path, tgt_path)]
    if len(sides[0]) != len(sides[1]):
        raise UserError(f"{src_path} has {len(sides[0]):,} lines and {tgt_path.name} has {len(sides[1]):,}: "
                        "line n of one must translate line n of the other", Exit.DATA)
    return list(zip(*sides, strict=True))


def _read_tsv(path: Path, src: str, tgt: str, strict: bool, limit: int | None) -> list[Pair]:
    """Read two columns, source and target in this order; or any columns below a header that names both languages."""
    lines = read_lines(path, strict, None if limit is None else limit + 1)  # with the header
    header = _header(lines[0], src, tgt, path) if lines else None
    rows = [line.split("\t") for line in lines]
    width, s, t = (len(header), header.index(src), header.index(tgt)) if header else (2, 0, 1)
    for number, row in enumerate(rows, 1):
        if len(row) != width:
            hint = "" if header else f" ({src}, {tgt}; other layouts need a header line that names them)"
            raise UserError(f"{path}: line {number:,} has {len(row)} tab-separated columns, not {width}{hint}",
                            Exit.DATA)
    return [(row[s], row[t]) for row in rows[bool(header):]]


def _header(line: str, src: str, tgt: str, path: Path) -> list[str] | None:
    """Read the columns' names, the pair's languages as `src` and `tgt` write them; None = the line is a pair.

    Errors: `UserError` for a line that names columns, but not both languages: it must not be trained on.
    """
    names = [cell.strip(" #'\"").casefold() for cell in line.split("\t")]
    names = [{src.casefold(): src, tgt.casefold(): tgt}.get(name, name) for name in names]
    lacking = [language for language in (src, tgt) if language not in names]
    if not lacking:
        return names
    message = (f"{path}: line 1 reads as a header, {', '.join(line.split(chr(9)))[:60]!r}, that lacks "
               f"{' and '.join(lacking)}; write one that names {src} and {tgt}")
    if len(lacking) == 1:
        raise LacksLanguage(message, lacking[0])
    known = _HEADER_WORDS | {src.casefold(), tgt.casefold()}
    if all(_LOCALE.fullmatch(name) or known.issuperset(re.findall(r"[^\W\d_]+", name) or [name]) for name in names):
        raise UserError(message, Exit.DATA)
    return None


def _read_jsonl(path: Path, src: str, tgt: str, strict: bool, limit: int | None) -> list[Pair]:
    return [_json_pair(line, src, tgt, strict, f"{path}: line {number:,}")
            for number, line in enumerate(read_lines(path, strict, limit), 1)]


def _json_pair(line: str, src: str, tgt: str, strict: bool, where: str) -> Pair:
    try:
        row = json.loads(line, strict=strict)
    except RecursionError:
        row = None  # thousands of brackets are no record
    except ValueError as error:
        raise UserError(f"{where} is not JSON ({error})", Exit.DATA) from error
    pair = row_pair(row, src, tgt, where)
    try:
        "".join(pair).encode()
    except UnicodeEncodeError as error:  # JSON's \ud800 can say what UTF-8 cannot
        if strict:
            raise UserError(f"{where} holds a lone surrogate, which is no text", Exit.DATA) from error
    return pair


def _read_parquet(path: Path, src: str, tgt: str, strict: bool, limit: int | None) -> list[Pair]:
    import pyarrow.parquet  # type: ignore[import-untyped]

    pairs: list[Pair] = []
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                if limit is not None and len(pairs) >= limit:
                    break
                pairs += table_pairs(pyarrow.Table.from_batches([batch]), src, tgt, f"{path}: row", len(pairs) + 1)
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid and UnicodeDecodeError are ValueErrors
        raise UserError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]})", Exit.DATA) from error
    return pairs


def table_pairs(table: Any, src: str, tgt: str, where: str, first: int = 1) -> list[Pair]:
    """Take the pairs out of an Arrow table whose first row has the number `first`; errors as in `row_pair`."""
    flat = table.flatten()  # columns: as records, the same rows take ten times as long
    below = "translation." if any(name.startswith("translation.") for name in flat.column_names) else ""
    if {below + src, below + tgt} <= set(flat.column_names):
        sides = [flat[below + lang].to_pylist() for lang in (src, tgt)]
        if all(isinstance(text, str) for text in chain(*sides)):
            return list(zip(*sides, strict=True))
    return [row_pair(row, src, tgt, f"{where} {number:,}") for number, row in enumerate(table.to_pylist(), first)]


def row_pair(row: Any, src: str, tgt: str, where: str) -> Pair:
    """Take the pair out of a record, flat or below "translation", which is but a column where it is no mapping.

    Errors: `UserError` that starts with `where`, for a record without both languages as text.
    """
    nested = row.get("translation") if isinstance(row, dict) else None
    fields = nested if isinstance(nested, dict) else row  # the hub's two layouts
    if not isinstance(fields, dict):
        raise UserError(f"{where} is no record with fields {src} and {tgt}", Exit.DATA)
    for lang in (src, tgt):
        if lang not in fields:
            names = ", ".join(map(str, fields)) or "none"
            raise LacksLanguage(f"{where} has no field {lang} (it has {names})", lang)
        if not isinstance(fields[lang], str):
            shown = json.dumps(fields[lang], default=str)[:40]
            raise UserError(f"{where}: field {lang} is {shown}, not text", Exit.DATA)
    return fields[src], fields[tgt]


_READERS: dict[str, Callable[..., list[Pair]]] = {  # of one shard
    "plain": _read_plain, "tsv": _read_tsv, "jsonl": _read_jsonl, "parquet": _read_parquet,
}
