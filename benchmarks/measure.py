"""Measure systems in turn, A B C, A B C, so that changes of the machine's speed affect all of them alike."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.text import references, tokens_per_sentence, with_test_as_valid
from benchmarks.venvs import ROOT, NotInstalled, python
from benchmarks.watch import Worker, WorkerFailed
from benchmarks.work import Job
from minitx.evaluation.metrics import score
from minitx.runs.result import DISTURBED_PCT
from minitx.utils.console import Console, duration
from minitx.utils.progress import Eta

WARM_UP_UPDATES = 5  # the first are slow
RETRIES = 2  # of a disturbed measurement
Row = dict[str, Any]
Save = Callable[[list[Row]], None]


@dataclass(frozen=True)
class System:
    """A peer, or minitx, at one precision."""

    name: str
    precision: str

    def __str__(self) -> str:
        return f"{self.name}:{self.precision}"


@dataclass(frozen=True)
class Bench:
    """What all measurements share. save: called with all rows after each new one, in case the machine goes down"""

    peers: Path
    text: Path
    threads: int
    options: tuple[str, ...]
    console: Console
    save: Save

    def worker(self, system: System, action: str, **job: Any) -> Worker:
        """Prepare a worker in a new folder. Errors: `NotInstalled`"""
        interpreter = python(system.name, self.peers)
        folder = _new(self.peers / "runs", f"{system.name}-{system.precision}-{action}")
        settings = {"text": self.text, "threads": self.threads, "options": self.options} | job
        description = Job(folder=str(folder), precision=system.precision, **settings | {"text": str(settings["text"])})
        return Worker([str(interpreter), "-m", "benchmarks.worker", system.name, action, description.json()], cwd=ROOT,
                      log=folder / "log", threads=self.threads)


def training(bench: Bench, systems: Sequence[System], rounds: int, warm_up_s: float, window_s: float,
             ) -> list[Row]:
    """Measure real target tokens a second in windows after a warm-up. --> a row for each window"""
    def measure(system: System) -> Iterator[Row]:
        with bench.worker(system, "train") as worker:
            yield training_window(worker, warm_up_s, window_s, tokens_per_sentence(bench.text),
                                  _shown(bench.console, system))

    return _in_turn(bench, systems, rounds, measure)


def decoding(bench: Bench, systems: Sequence[System], rounds: int, batch_sizes: Sequence[int],
             beam_sizes: Sequence[int]) -> list[Row]:
    """Measure sentences a second of search, all hypotheses of one length. --> a row for each pass"""
    sizes = {"batch_sizes": tuple(batch_sizes), "beam_sizes": tuple(beam_sizes)}

    def measure(system: System) -> Iterator[Row]:
        with bench.worker(system, "decode", **sizes) as worker:
            yield from decoding_passes(worker)

    return _in_turn(bench, systems, rounds, measure)


def quality(bench: Bench, systems: Sequence[System], minutes: float, every: float, own_minutes: Sequence[float],
            ) -> list[Row]:
    """Train peers for some minutes, scored every few, then see when minitx reaches their scores. --> a row for each run

    Only in these runs minitx validates on the test set. Each of its runs has its own horizon.
    """
    plans = [(system, minutes, bench.text, bench.options) for system in systems]
    own_text = with_test_as_valid(bench.text)
    plans += [(System("minitx", "auto"), m, own_text, (*bench.options, f"trainer.max_minutes={m}"))
              for m in own_minutes]
    rows: list[Row] = []
    for system, length, text, options in plans:
        row: Row = {"system": system.name, "precision": system.precision, "minutes": length, "curve": []}
        rows.append(row)
        try:
            worker = bench.worker(system, "train", text=text, options=options, translate_every_s=60 * every)
            with worker:
                _learn(worker, row, length, references(text), bench, system, rows)
        except (WorkerFailed, NotInstalled) as error:
            row["error"] = str(error)
            bench.console.line(f"{system}: {error}")
        bench.save(rows)
    return rows


def _learn(worker: Worker, row: Row, minutes: float, wanted: list[str], bench: Bench, system: System, rows: list[Row],
           ) -> None:
    """Follow one run to its end, and add [seconds, updates, BLEU] of each translation of the test set to its row."""
    start = worker.cpu_time()
    show = _shown(bench.console, system)
    for line in worker.lines():
        bleu = line.get("bleu")
        if path := line.get("hypotheses"):
            bleu = score(Path(path).read_text(encoding="utf-8").removesuffix("\n").split("\n"), wanted).bleu
        if bleu is not None:
            row["curve"].append([round(line["seconds"], 1), line["updates"], round(bleu, 2)])
            row["foreign_pct"], row["peak_gib"] = start.foreign_pct(worker.cpu_time()), worker.peak_gib()
            bench.console.line(f"{system}: BLEU {bleu:.1f} after {duration(line['seconds'])}")
            bench.save(rows)
        else:
            show(line, 60 * minutes - line["seconds"])
        if path and line["seconds"] > 60 * minutes - 1:
            return


def training_window(worker: Worker, warm_up_s: float, window_s: float, per_sentence: float,
                    show: Callable[[Row, float], None]) -> Row:
    """Wait for the end of the warm-up, then measure. per_sentence: target tokens, unless the worker reports them

    Errors: `WorkerFailed` if the worker ends before the window does
    """
    opening = first = None
    for line in worker.lines():
        opening = opening or line
        if first is None:
            if line["seconds"] - opening["seconds"] >= warm_up_s and line["updates"] >= WARM_UP_UPDATES:
                first, before = line, worker.cpu_time()
        elif line["seconds"] - first["seconds"] >= window_s:
            row = rates(first, line, per_sentence)
            return row | {"foreign_pct": before.foreign_pct(worker.cpu_time()), "peak_gib": worker.peak_gib()}
        left_s = window_s + (warm_up_s if first is None else 0)
        show(line, left_s - (line["seconds"] - (first or opening)["seconds"]))
    raise WorkerFailed("ended before its window did")


def rates(first: Row, last: Row, per_sentence: float) -> Row:
    """Return a worker's rates between two of its lines."""
    seconds, tokens = last["seconds"] - first["seconds"], last["tokens"] - first["tokens"]
    updates, per_sentence = last["updates"] - first["updates"], last.get("tokens_per_sentence", per_sentence)
    return {"seconds": seconds, "updates": updates, "tokens_per_s": tokens / seconds,
            "sentences_per_s": tokens / seconds / per_sentence, "tokens_per_update": tokens / updates,
            "tokens_per_sentence": per_sentence}


def decoding_passes(worker: Worker) -> Iterator[Row]:
    """Yield a row for each beam and batch size."""
    before = None
    for line in worker.lines():
        now = worker.cpu_time()
        if "sentences" in line and before is not None:
            yield {"beam_size": line["beam_size"], "batch_size": line["batch_size"], "seconds": line["seconds"],
                   "sentences_per_s": line["sentences"] / line["seconds"], "foreign_pct": before.foreign_pct(now),
                   "peak_gib": worker.peak_gib()}
        before = now


def _in_turn(bench: Bench, systems: Sequence[System], rounds: int, measure: Callable[[System], Iterable[Row]],
             ) -> list[Row]:
    """Measure every system once a round, and again at once if it was disturbed. After a failure, leave it out."""
    rows: list[Row] = []
    eta, failed = Eta(rounds * len(systems)), set[System]()
    for turn in range(rounds * len(systems)):
        system = systems[turn % len(systems)]
        for attempt in range(1 + RETRIES):
            if system in failed:
                break
            measured: list[Row] = []
            about = {"system": system.name, "precision": system.precision, "round": turn // len(systems) + 1}
            try:
                for row in measure(system):  # rows made before a failure stay
                    measured += [about | row | {"disturbed": row["foreign_pct"] > DISTURBED_PCT}]
            except (WorkerFailed, NotInstalled) as error:
                failed.add(system)
                measured.append(about | {"error": str(error)})
            rows += measured
            bench.save(rows)
            for row in measured:
                bench.console.line(f"{system}, round {row['round']}: {describe(row)}")
            bench.console.line(f"{turn + 1} of {rounds * len(systems)} measured{eta(turn + 1)}")
            if not any(row.get("disturbed") for row in measured) or attempt == RETRIES:
                break
    return rows


def describe(row: Row) -> str:
    """Return a row in words."""
    if error := row.get("error"):
        return str(error)
    size = (f"beam {row['beam_size']}, batch {row['batch_size']}, " if "batch_size" in row
            else f"{row['tokens_per_s']:,.0f} tokens/s, ")
    return (f"{size}{row['sentences_per_s']:,.1f} sentences/s, {row['peak_gib']:.1f} GiB, {row['foreign_pct']:.1f} % "
            f"of the CPU used by others{': disturbed' * row['disturbed']}")


def _shown(console: Console, system: System) -> Callable[[Row, float], None]:
    def show(line: Row, left_s: float) -> None:
        console.live(f"{system}: update {line['updates']}, eta {duration(left_s)}")

    return show


def _new(parent: Path, name: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        folder = parent / f"{name}-{number}"
        if not folder.exists():
            folder.mkdir()
            return folder
    raise AssertionError
