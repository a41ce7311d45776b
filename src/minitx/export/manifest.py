"""minitx.json, in every exported folder: what it holds, where it is from, and digests that prove it whole."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict

from minitx.config.fields import parse
from minitx.config.schema import DecodeConfig
from minitx.export.formats import FORMATS
from minitx.utils.errors import Exit, UserError
from minitx.utils.files import create

NAME = "minitx.json"
VERSION = 1  # of what this file and the folder hold
CHUNK = 1 << 20  # bytes hashed at a time


class FileRecord(TypedDict):
    """Prove a file whole."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Describe an exported folder. Lengths are in tokens, EOS included; None = any number."""

    version: int
    minitx: str  # the version that wrote it
    format: str
    quantization: str | None
    src: str
    tgt: str
    model: dict[str, Any]  # settings of the architecture, as in the run's config
    decode: DecodeConfig
    max_source_length: int | None
    max_target_length: int | None
    bleu_tokenizer: str | None  # of test scores; null = what suits the language
    data: dict[str, str | None]  # the text: `name`, `source`, `licence`; a licence of null is not known
    result: dict[str, Any] | None  # of the run, cut to its quality and its origin; null = it has none
    files: dict[str, FileRecord]  # all others of the folder, by path in it


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the file of a new folder. Errors: OSError"""
    values = asdict(manifest)
    create(folder / NAME, (json.dumps(values | {"sha256": _digest(values)}, indent=1, ensure_ascii=False)
                           + "\n").encode())


def is_exported(folder: Path) -> bool:
    """Tell whether a folder says that it was exported; `read_manifest` says whether it is whole."""
    return (folder / NAME).is_file()


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a folder, and compare all files with it.

    Errors: `UserError` for a folder that was not exported, is damaged, or is of another version.
    """
    manifest = read_description(folder)
    for name, record in manifest.files.items():
        _check_file(folder / name, record)
    return manifest


def read_description(folder: Path) -> Manifest:
    """Read the manifest alone, without a look at the files. Errors: as of `read_manifest`, but for these"""
    path = folder / NAME
    try:
        values = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder}: was not written by minitx export (it has no {NAME})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})", Exit.STORAGE) from error
    except ValueError as error:
        raise _damaged(path, f"not JSON: {error}") from error
    return _parse(values, path)


def records(folder: Path) -> dict[str, FileRecord]:
    """Hash the files of a folder, those of folders in it too."""
    return {path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
            for path in sorted(folder.rglob("*")) if path.is_file()}


def _parse(values: Any, path: Path) -> Manifest:
    if not isinstance(values, Mapping) or not isinstance(values.get("version"), int):
        raise UserError(f"{path}: is not a file of minitx export")
    if values["version"] != VERSION:
        raise UserError(f"{path}: of version {values['version']}, this minitx reads {VERSION}; export the run again")
    content = {name: value for name, value in values.items() if name != "sha256"}
    if values.get("sha256") != _digest(content):
        raise _damaged(path, "its content does not match its digest")
    if content.keys() != {f.name for f in fields(Manifest)} or content["format"] not in FORMATS:
        raise UserError(f"{path}: was written by another version; export the run again")
    content["decode"] = parse(DecodeConfig, content["decode"], f"{path}: decode.")
    if any(PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts for name in content["files"]):
        raise UserError(f"{path}: names files outside its folder")
    return Manifest(**content)


def _check_file(path: Path, record: FileRecord) -> None:
    try:
        size = path.stat().st_size
        whole = size == record["bytes"] and _sha256(path) == record["sha256"]
    except FileNotFoundError:
        raise _damaged(path, "is missing") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})", Exit.STORAGE) from error
    if not whole:
        raise _damaged(path, f"its content does not match {NAME}")


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path}: damaged ({why}); export the run again", Exit.STORAGE)


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
