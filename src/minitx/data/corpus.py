"""One `Corpus` of (src, tgt) strings from any source: the embedded text, files, or the Hugging Face hub."""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path

from minitx.config.fields import nearest
from minitx.config.schema import CleanConfig, DataConfig
from minitx.data.cleaning import Cleaning, clean, hold_out, overlap
from minitx.data.files import LacksLanguage, Pair, SplitFiles, find_splits, warn_of_left_out
from minitx.data.hub import SHARD, HubSet, download, why_unreachable
from minitx.utils.errors import Exit, UserError
from minitx.utils.files import expand_home

Read = Callable[[str, int | None], list[Pair]]  # name of a split, largest number of pairs -> its first pairs
SAMPLE = 200_000  # pairs that a vocabulary is learned from if the text is streamed
SMALL = 8_000_000  # bytes of a split that is read whole within a second


@dataclass(frozen=True)
class Corpus:
    """The splits of a parallel text, read on demand.

    `splits`: "train", "valid", then the test sets; `test_sets`: those to score; `fingerprint`: sha256 of content and
    direction; `origin`: where the text was found, to be shown; `read`: every pair of a split, in order, not cleaned.
    A streamed text has `shards`, each a corpus with its part of the training split, whose `head` reads its first pairs.
    """

    src: str
    tgt: str
    splits: tuple[str, ...]
    test_sets: tuple[str, ...]
    fingerprint: str
    origin: str
    clean: CleanConfig
    read: Callable[[str], list[Pair]]
    read_phenomena: Callable[[str], list[frozenset[str]]] | None = None
    shards: tuple["Corpus", ...] = ()
    head: Callable[[int], list[Pair]] | None = None

    def pairs(self, split: str) -> list[Pair]:
        """Return a split, "train" cleaned. Errors: `UserError` naming file and line."""
        return self.training[0] if split == "train" else self.read(split)

    @cached_property
    def training(self) -> tuple[list[Pair], Cleaning]:
        """The pairs to train on, held until `forget`, and what became of the others."""
        read = self.read("train")
        pairs, dropped = clean(read, self.clean)
        sets = {name: self.read(name) for name in ("valid", *self.test_sets) if name in self.splits}
        return pairs, Cleaning(len(read), len(pairs), dropped, overlap(pairs, sets))

    def sample(self) -> list[Pair]:
        """Return pairs to learn a vocabulary from: all training pairs, or the first of each shard.

        Errors: `UserError` if more are left out than `clean` allows; with shards, if none of these pairs is left.
        """
        if not self.shards:
            pairs, cleaning = self.training
            cleaning.check(self.clean.max_dropped_pct)
            return pairs
        share = max(1, SAMPLE // len(self.shards))
        heads = [shard.head(share) for shard in self.shards if shard.head]
        cleaned = [clean(head, self.clean) for head in heads]
        Cleaning.combine([Cleaning(len(head), len(pairs), dropped, {})
                          for head, (pairs, dropped) in zip(heads, cleaned, strict=True)]).check(100)
        return [pair for pairs, _ in cleaned for pair in pairs]

    def forget(self) -> None:
        """Release the training pairs: they may be millions."""
        self.__dict__.pop("training", None)

    def phenomena(self, split: str) -> list[frozenset[str]] | None:
        """Return the phenomena that each sentence shows; None = not known (all but the synthetic text)."""
        return self.read_phenomena(split) if self.read_phenomena else None


def load_corpus(cfg: DataConfig) -> Corpus:
    """Find the text that `cfg` names, and read no more of it than the fingerprint needs.

    Errors: `UserError` for a missing folder, split, language or test set.
    """
    if cfg.source == "synthetic":
        return _synthetic(cfg)
    if folder := local_folder(cfg):
        return _files(cfg, folder)
    return _hub(cfg)


def check_text(cfg: DataConfig) -> None:
    """Refuse what is wrong whatever the files hold: a path that is missing, a language the synthetic text lacks.

    Errors: `UserError`. Reads no text, so it is cheap enough to run before anything is created.
    """
    if cfg.streaming:
        if cfg.source == "synthetic":
            raise UserError("data.streaming=true: reads shards of files or of the hub; the synthetic text is neither")
        for name in ("hold_out", "max_pairs"):
            if getattr(cfg, name) is not None:
                raise UserError(f"data.streaming=true data.{name}={getattr(cfg, name)}: exclude each other, since "
                                f"data.{name} needs the text as a whole")
    if cfg.source == "synthetic":
        _synthetic(cfg)
    elif local_folder(cfg) is None and cfg.hub_id is None:
        raise UserError("data.hub_id=null: names no data set; or set data.dir to a folder of files")


def spread(total: int, n: int) -> list[int]:
    """Return `n` places, or all there are, spread evenly over a list of `total`."""
    n = min(n, total)
    return [i * total // n for i in range(n)]


def find_text(cfg: DataConfig) -> None:
    """Refuse text that is not there, and what is wrong with small files: within seconds, before torch is imported.

    Of large files only the names are looked at, of large tables the first row. Nothing is downloaded.
    Errors: `UserError`, as `load_corpus` has it. What that warns of is not warned of here.
    """
    if cfg.source == "synthetic":
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if folder := local_folder(cfg):
            _look_into(cfg, folder)
        elif cfg.hub_id and (why := why_unreachable(cfg.hub_id)):
            download(cfg, why)  # there is a copy here, or the error comes now


def _look_into(cfg: DataConfig, folder: Path) -> None:
    """Look at the names of files, read small splits, and of others the first row of tables. Errors: `UserError`"""
    found = find_splits(folder, cfg.src, cfg.tgt, cfg.test_sets, _required(cfg))
    for files in found.values():
        files.check_headers(cfg.src, cfg.tgt)
    _corpus(cfg, tuple(found), "", str(folder), lambda split, limit: [])  # its sets are those that are asked for
    for split in _read_splits(cfg, found):
        files = found[split]
        is_small = sum(path.stat().st_size for path in files.paths) <= SMALL
        if is_small or files.format != "plain":
            files.read(cfg.src, cfg.tgt, strict=split != "train", limit=None if is_small else 1)


def local_folder(cfg: DataConfig) -> Path | None:
    """Return the folder to read: data.dir, else $MINITX_DATA/{data.folder}; None = read from the hub.

    Errors: `UserError` for a path that is missing.
    """
    if cfg.source == "synthetic":
        return None
    if cfg.dir is not None:
        return _folder("data.dir", cfg.dir)
    if (root := os.environ.get("MINITX_DATA")) and cfg.folder:
        folder = _folder("MINITX_DATA", expand_home(root)) / cfg.folder
        if folder.is_dir():
            return folder
    if cfg.source == "files":
        files = f"a folder with train.{cfg.src}, train.{cfg.tgt}, val.{cfg.src} ..."
        raise UserError(f"data=files needs data.dir: {files}" if cfg.folder is None else
                        f"data.dir=null: set it, or MINITX_DATA to where {cfg.folder} lies: {files}")
    return None


def _folder(name: str, value: str) -> Path:
    path = Path(value)
    if not path.is_dir():
        raise UserError(f"{name}={value}: " + ("is a file, not a folder" if path.exists() else "no such folder"))
    return path


def _synthetic(cfg: DataConfig) -> Corpus:
    from minitx.data.synthetic.text import SyntheticCorpus

    if {cfg.src, cfg.tgt} != {"en", "de"}:
        raise UserError(f"data.src={cfg.src} data.tgt={cfg.tgt}: the synthetic text is en-de or de-en")
    text = SyntheticCorpus(cfg.seed, cfg.train_size, cfg.train_words)

    def read(split: str, limit: int | None) -> list[Pair]:
        return text.pairs(split, cfg.src, limit)

    def phenomena(split: str) -> list[frozenset[str]]:
        return [sentence.phenomena for sentence in text.sentences(split)]

    return _corpus(cfg, text.split_names, _sha256([text.fingerprint, cfg.src, cfg.tgt]),
                   f"synthetic (data.seed={cfg.seed})", read, phenomena)


def _files(cfg: DataConfig, folder: Path) -> Corpus:
    found = find_splits(folder, cfg.src, cfg.tgt, cfg.test_sets, _required(cfg))

    def read(split: str, limit: int | None) -> list[Pair]:
        return found[split].read(cfg.src, cfg.tgt, strict=split != "train", limit=limit)

    digests = {path: _digest(path) for split in _read_splits(cfg, found) for path in found[split].paths}

    def fingerprint(splits: dict[str, SplitFiles]) -> str:
        parts = (part for split in _read_splits(cfg, splits) for path in splits[split].paths
                 for part in (split, path.name, digests[path]))
        return _sha256([cfg.src, cfg.tgt, *parts])

    for files in found.values():
        files.check_headers(cfg.src, cfg.tgt)
    corpus = _corpus(cfg, tuple(found), fingerprint(found), str(folder), read)
    if not cfg.streaming:
        return corpus
    train = found["train"]
    if len(train.shards) == 1:
        raise UserError(f"data.streaming=true: {train.paths[0]} holds all of the training text; cut it into shards "
                        f"named {_shard_names(train)}, of which one at a time is read", Exit.DATA)

    def read_shard(paths: tuple[Path, ...], limit: int | None = None) -> list[Pair]:
        pairs = train.read_shard(paths, cfg.src, cfg.tgt, False, limit)
        for path in paths:
            if limit is None and _digest(path) != digests[path]:
                raise UserError(f"{path}: has changed since the run began; start a new run", Exit.DATA)
        return pairs

    return _streamed(corpus, [(fingerprint(found | {"train": SplitFiles(train.format, (paths,))}),
                               partial(read_shard, paths)) for paths in train.shards])


def _shard_names(train: SplitFiles) -> str:
    return " and ".join(f"train-00000-of-00016.{path.name.partition('.')[2]}" for path in train.paths)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _streamed(corpus: Corpus, shards: Iterable[tuple[str, Callable[..., list[Pair]]]]) -> Corpus:
    """Give a corpus its shards, each a fingerprint and a function that reads its pairs, or the first so many."""
    read_other = cache(corpus.read)  # the sets that each shard is compared with

    def read(train: Callable[..., list[Pair]], split: str) -> list[Pair]:
        return train() if split == "train" else read_other(split)

    return replace(corpus, shards=tuple(replace(corpus, fingerprint=fingerprint, read=partial(read, train), head=train)
                                        for fingerprint, train in shards))


def _hub(cfg: DataConfig) -> Corpus:
    found = download(cfg)
    splits = _hub_splits(cfg, found)
    limit = cfg.max_pairs if cfg.hold_out is None else None

    def content() -> Iterable[str]:
        yield from (cfg.src, cfg.tgt)
        for split in _read_splits(cfg, splits):
            yield split
            for batch in found.batches(split, limit if split == "train" else None):
                for pair in batch:
                    yield from pair

    corpus = _corpus(cfg, splits, _sha256(content()), f"hub: {cfg.hub_id}", found.read)
    return corpus if not cfg.streaming else _streamed(
        corpus, [(_sha256([corpus.fingerprint, f"{begin} + {SHARD}"]), partial(found.read_shard, begin))
                 for begin in found.shards("train")])


def _hub_splits(cfg: DataConfig, found: HubSet) -> list[str]:
    """Name the splits that hold the pair, "train" and "valid" first."""
    names = sorted(found.tables, key=lambda name: (name != "train", name != "valid", name))
    if missing := [name for name in _required(cfg) if name not in names]:
        raise UserError(f"data.hub_id={cfg.hub_id}: has no {missing[0]} split, but {', '.join(names)}; data.hold_out "
                        "takes the other sets from train", Exit.DATA)
    splits, lacking = [name for name in names if name in ("train", "valid")], {}
    for name in filter(lambda name: name.startswith("test"), names):
        try:
            found.read(name, 1)
            splits.append(name)
        except LacksLanguage as error:
            if name in (cfg.test_sets or ()):
                raise
            lacking[name] = error.language
    if cfg.test_sets is None:
        warn_of_left_out(f"data.hub_id={cfg.hub_id}", lacking)
    return splits


def _required(cfg: DataConfig) -> tuple[str, ...]:
    """Name the splits that must be there."""
    return ("train", "valid") if cfg.hold_out is None else ("train",)


def _read_splits(cfg: DataConfig, splits: Iterable[str]) -> list[str]:
    """Choose the splits that a run reads, so that a test set which nobody asked for changes no fingerprint."""
    return [split for split in splits if cfg.test_sets is None or split in ("train", "valid", *cfg.test_sets)]


def _corpus(cfg: DataConfig, splits: Sequence[str], fingerprint: str, origin: str, read: Read,
            phenomena: Callable[[str], list[frozenset[str]]] | None = None) -> Corpus:
    """Make a corpus of the splits that exist: hold out those that do not, and cut the training text to `max_pairs`."""
    held_out = _held_out(cfg, splits, origin)

    @cache
    def held() -> dict[str, list[Pair]]:
        assert cfg.hold_out is not None
        sets = hold_out(read("train", None), cfg.hold_out, reverse=cfg.src > cfg.tgt)
        return {name: sets[name] for name in held_out}

    def read_part(split: str) -> list[Pair]:
        if split in held_out:
            return held()[split]
        if split != "train":
            return read(split, None)
        if not held_out:
            return read("train", cfg.max_pairs)
        excluded = {pair for pairs in held().values() for pair in pairs}
        return [pair for pair in read("train", None) if pair not in excluded][: cfg.max_pairs]

    limited = {"max_pairs": cfg.max_pairs, "hold_out": cfg.hold_out}
    if limits := [f"{name}={number}" for name, number in limited.items() if number is not None]:
        fingerprint = _sha256([fingerprint, *limits])
    tests = tuple(name for name in dict.fromkeys((*splits, *held_out)) if name not in ("train", "valid"))
    default = tuple(name for name in tests if phenomena is None or name in ("test", "minimal_pairs"))
    return Corpus(cfg.src, cfg.tgt, ("train", "valid", *tests), _chosen_tests(cfg, tests, default), fingerprint, origin,
                  cfg.clean, read_part, phenomena)


def _held_out(cfg: DataConfig, splits: Sequence[str], origin: str) -> tuple[str, ...]:
    """Name the sets to take from the training text."""
    if cfg.hold_out is None:
        return ()
    has_tests = any(name.startswith("test") for name in splits)
    missing = ("valid",) * ("valid" not in splits) + ("test",) * (not has_tests)
    if not missing:
        raise UserError(f"data.hold_out={cfg.hold_out}: {origin} has a validation set and test sets of its own; write "
                        "data.hold_out=null")
    return missing


def _chosen_tests(cfg: DataConfig, tests: tuple[str, ...], default: tuple[str, ...]) -> tuple[str, ...]:
    for name in cfg.test_sets or ():
        if name not in tests:
            raise UserError(f"data.test_sets: no test set {name}; there are: {', '.join(tests) or 'none'}"
                            f"{nearest(name, tests)}")
    return default if cfg.test_sets is None else tuple(cfg.test_sets)


def _sha256(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()
