"""The work that every system is given, and how a worker reports on it.

Standard library only: this runs in each peer's own environment.
"""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

SRC, TGT, TEST = "en", "de", "test_2016_flickr"
LAYERS, D_MODEL, HEADS, D_FF = 3, 256, 4, 1024
DROPOUT, SMOOTHING, BETA1, BETA2 = 0.1, 0.1, 0.9, 0.98
VOCAB, UNK, PAD, BOS, EOS = 8000, 0, 1, 2, 3
TOKENS = 4096  # real target tokens an update, EOS included, as closely as a peer's batching allows
LR, WARMUP = 1e-3, 200  # inverse square root
LENGTH = 16  # target tokens of every hypothesis where decoding is timed
MOST_BATCHES = 100  # of a timed pass: with one sentence a batch, a tenth of the test set is enough
FOREVER = 1_000_000  # updates; the measurement ends the worker


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker works on."""

    text: str  # folder that `benchmarks.text` prepared
    folder: str  # new, for this worker alone
    precision: str
    threads: int
    translate_every_s: float | None = None  # seconds of training between two translations of the test set
    batch_sizes: tuple[int, ...] = ()  # of timed decoding
    beam_sizes: tuple[int, ...] = ()  # the same, 1 = greedy
    options: tuple[str, ...] = ()  # further arguments for minitx

    @classmethod
    def parse(cls, text: str) -> "Job":
        """Return the job that `json` has written."""
        values = json.loads(text)
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})

    def json(self) -> str:
        """Return the job as one line."""
        return json.dumps(asdict(self))

    @property
    def here(self) -> Path:
        """The worker's own folder."""
        return Path(self.folder)

    @cached_property
    def vocab(self) -> list[str]:
        """The pieces that the peers share, by id."""
        return read_lines(Path(self.text, "joint.pieces"))

    def ids(self, split: str, lang: str) -> list[list[int]]:
        """Read one side of a split as ids, without specials."""
        index = {piece: i for i, piece in enumerate(self.vocab)}
        return [[index.get(piece, UNK) for piece in line.split()] for line in self.pieces(split, lang)]

    def pieces(self, split: str, lang: str) -> list[str]:
        """Read one side of a split as pieces with spaces between them."""
        return read_lines(self.piece_file(split, lang))

    def piece_file(self, split: str, lang: str) -> Path:
        """Return the file of one side of a split as pieces."""
        return Path(self.text, "pieces", f"{split}.{lang}")

    def words(self, ids: Iterable[int]) -> str:
        """Turn the ids before EOS back into text, without specials."""
        pieces = []
        for i in ids:
            if i == EOS:
                break
            if i > EOS:
                pieces.append(self.vocab[i])
        return "".join(pieces).replace("▁", " ").strip()


class Report:
    """Print JSON objects, one a line; the output of libraries goes to standard error instead."""

    def __init__(self) -> None:
        """Take over standard output."""
        self.out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def __call__(self, **values: Any) -> None:
        print(json.dumps(values), file=self.out, flush=True)


class Meter:
    """Report each update, and translate the test set every so often with the clock stopped."""

    def __init__(self, job: Job, report: Report) -> None:
        """Start the clock."""
        self.job, self.report = job, report
        self.updates = self.tokens = self.translations = 0
        self.off_s, self.began = 0.0, perf_counter()

    def update(self, tokens: int, translate: Callable[[], Sequence[str]] | None = None) -> None:
        """Count an update. tokens: real target tokens; translate: returns the test set's translations"""
        self.updates, self.tokens = self.updates + 1, self.tokens + tokens
        seconds = perf_counter() - self.began - self.off_s
        self.report(seconds=seconds, updates=self.updates, tokens=self.tokens)
        every_s = self.job.translate_every_s
        if every_s is None or translate is None or seconds < every_s * (self.translations + 1):
            return
        paused = perf_counter()
        path = self.job.here / f"{self.translations}.{TGT}"
        path.write_text("".join(f"{line}\n" for line in translate()), encoding="utf-8")
        self.translations += 1
        self.report(seconds=seconds, updates=self.updates, tokens=self.tokens, hypotheses=str(path))
        self.off_s += perf_counter() - paused


Search = Callable[[Sequence[int], int, int], Sequence[int]]  # rows, sentences a batch, beam --> tokens of each output


def time_decoding(job: Job, report: Report, rows: int, search: Search) -> None:
    """Time the search with each beam at each batch size, after one pass of warm-up. rows: of the test set"""
    for beam in job.beam_sizes:
        search(range(rows), max(job.batch_sizes), beam)
        for size in job.batch_sizes:
            chosen = evenly(rows, MOST_BATCHES * size)
            about = {"batch_size": size, "beam_size": beam}
            report(**about, begins=True)
            began = perf_counter()
            lengths = search(chosen, size, beam)
            report(**about, sentences=len(lengths), seconds=perf_counter() - began)
            if odd := set(lengths) - {LENGTH}:
                raise SystemExit(f"hypotheses of {min(odd)} to {max(odd)} tokens, not of {LENGTH}: nothing was "
                                 "measured")


def evenly(rows: int, most: int) -> Sequence[int]:
    """Return row numbers, so many at most, at equal distances."""
    return range(0, rows, -(-rows // most))


def longest_first(rows: Sequence[Sequence[int]], size: int, chosen: Sequence[int] | None = None) -> list[list[int]]:
    """Return batches of `size` row numbers, sorted by falling length. chosen: these rows alone"""
    order = sorted(range(len(rows)) if chosen is None else chosen, key=lambda i: -len(rows[i]))
    return [order[i:i + size] for i in range(0, len(order), size)]


def read_lines(path: Path) -> list[str]:
    """Read lines, split at line feeds only."""
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
