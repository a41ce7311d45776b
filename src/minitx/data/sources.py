"""Where the text comes from: the embedded grammar, files, or the hub -> one `Corpus` of (src, tgt) strings."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minitx.config import DataConfig
from minitx.data.files import VALID_NAMES, Pair, SplitFiles, find_splits, row_pair
from minitx.errors import Exit, UserError
from minitx.schema import nearest


@dataclass(frozen=True)
class Corpus:
    """Name the splits of a parallel text and read them on demand.

    `splits`: "train", "valid", then the test sets; `test_sets`: those to score; `fingerprint`: sha256 of content and
    direction; `origin`: where it was found, to be shown.
    """

    src: str
    tgt: str
    splits: tuple[str, ...]
    test_sets: tuple[str, ...]
    fingerprint: str
    origin: str
    read: Callable[[str], list[Pair]]
    read_phenomena: Callable[[str], list[frozenset[str]]] | None = None

    def pairs(self, split: str) -> list[Pair]:
        """Read a split, every pair in file order; errors: `UserError` naming file and line."""
        return self.read(split)

    def phenomena(self, split: str) -> list[frozenset[str]] | None:
        """Return what each sentence exercises, or None where the text does not say (all but synthetic)."""
        return self.read_phenomena(split) if self.read_phenomena else None


def load_corpus(cfg: DataConfig) -> Corpus:
    """Find the text that `cfg` names, reading as little of it as the fingerprint needs.

    Errors: `UserError` for a missing folder, split, language or test set.
    """
    if cfg.source == "synthetic":
        return _synthetic(cfg)
    if folder := local_folder(cfg):
        return _files(cfg, folder)
    return _hub(cfg)


def local_folder(cfg: DataConfig) -> Path | None:
    """Return the folder to read: data.dir, else for a hub set $MINITX_DATA/folder; None = go to the hub.

    Errors: `UserError` for a path that is not there. Cheap enough for the door.
    """
    if cfg.source == "synthetic":
        return None
    if cfg.dir is not None:
        if not Path(cfg.dir).is_dir():
            raise UserError(f"data.dir={cfg.dir}: no such folder")
        return Path(cfg.dir)
    if cfg.source == "files":
        raise UserError(f"data=files needs data.dir: a folder with train.{cfg.src}, train.{cfg.tgt}, val.{cfg.src} ...")
    if (root := os.environ.get("MINITX_DATA")) and cfg.folder:
        if not Path(root).is_dir():
            raise UserError(f"MINITX_DATA={root}: no such folder")
        if (folder := Path(root, cfg.folder)).is_dir():
            return folder
    return None


def _synthetic(cfg: DataConfig) -> Corpus:
    from minitx.data.synthetic import SyntheticCorpus

    if {cfg.src, cfg.tgt} != {"en", "de"}:
        raise UserError(f"data.src={cfg.src} data.tgt={cfg.tgt}: the synthetic text is en-de or de-en")
    text = SyntheticCorpus(cfg.seed, cfg.train_size)

    def read(split: str) -> list[Pair]:
        pairs = [(sentence.src, sentence.tgt) for sentence in text.sentences(split)]
        return pairs if cfg.src == "en" else [(tgt, src) for src, tgt in pairs]

    splits = tuple(text.split_names)
    ordinary = tuple(split for split in splits[2:] if not split.startswith("length_"))
    return Corpus(
        cfg.src, cfg.tgt, splits, _chosen(cfg, splits[2:], ordinary), _sha256(text.fingerprint, cfg.src, cfg.tgt),
        f"synthetic (data.seed={cfg.seed})", read,
        lambda split: [sentence.phenomena for sentence in text.sentences(split)],
    )


def _files(cfg: DataConfig, folder: Path) -> Corpus:
    found = find_splits(folder, cfg.src, cfg.tgt, cfg.test_sets)
    splits = tuple(found)
    return Corpus(
        cfg.src, cfg.tgt, splits, _chosen(cfg, splits[2:], splits[2:]), _fingerprint(found, cfg), str(folder),
        lambda split: found[split].read(cfg.src, cfg.tgt),
    )


def _fingerprint(found: dict[str, SplitFiles], cfg: DataConfig) -> str:
    parts = [cfg.src, cfg.tgt]
    for split, files in found.items():
        for path in files.paths:
            try:
                with path.open("rb") as file:
                    parts += [split, path.name, hashlib.file_digest(file, "sha256").hexdigest()]
            except OSError as error:
                raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return _sha256(*parts)


def _hub(cfg: DataConfig) -> Corpus:
    tables = _download(cfg)
    names = {"valid" if name in VALID_NAMES else name: name for name in tables}
    tests = tuple(sorted(name for name in names if name.startswith("test")))
    if not {"train", "valid"} <= set(names):
        raise UserError(f"data.hub_id={cfg.hub_id}: wants a train and a validation split; it has {', '.join(tables)}",
                        Exit.DATA)
    splits = ("train", "valid", *tests)

    def read(split: str) -> list[Pair]:
        where, rows = f"{cfg.hub_id} {names[split]}: row", tables[names[split]].to_list()
        return [row_pair(row, cfg.src, cfg.tgt, f"{where} {n:,}") for n, row in enumerate(rows, 1)]

    content = [text for split in splits for text in (split, *(side for pair in read(split) for side in pair))]
    return Corpus(cfg.src, cfg.tgt, splits, _chosen(cfg, tests, tests), _sha256(cfg.src, cfg.tgt, *content),
                  f"hub: {cfg.hub_id}", read)


def _download(cfg: DataConfig) -> dict[str, Any]:
    """Load the hub's data set, or its copy in the hub's own cache."""
    from datasets import load_dataset  # type: ignore[import-untyped]  # 1.6 s: only when the hub is wanted

    try:
        return dict(load_dataset(cfg.hub_id))
    except Exception as error:  # whatever the hub's client, its network library or the cache raise
        remedies = f"set data.dir=FOLDER (train.{cfg.src}, train.{cfg.tgt}, val.{cfg.src}, ...)"
        if cfg.folder:
            remedies += f", or MINITX_DATA to a folder that holds {cfg.folder}/"
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise UserError(f"data.hub_id={cfg.hub_id}: not to be had from the hub, and no copy here ({reason}); "
                        f"{remedies}, or connect once", Exit.DATA) from error


def _chosen(cfg: DataConfig, there: tuple[str, ...], default: tuple[str, ...]) -> tuple[str, ...]:
    for name in cfg.test_sets or ():
        if name not in there:
            raise UserError(f"data.test_sets: no test set {name}; there are: {', '.join(there) or 'none'}"
                            f"{nearest(name, there)}")
    return default if cfg.test_sets is None else tuple(cfg.test_sets)


def _sha256(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()
