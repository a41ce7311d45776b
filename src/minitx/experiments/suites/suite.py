"""A suite: several systems, each trained with several seeds, every run in a process of its own.

`conf/suite/NAME.yaml` lists for each size the systems, in words of train.py's command line, and the seeds. Finished
runs are skipped and interrupted ones continue, so a suite may span days and machines; a run that fails does not stop
the others.
"""

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from time import monotonic
from types import MappingProxyType
from typing import Any

import yaml

from minitx.config.compose import compose
from minitx.config.fields import nearest, text_word
from minitx.config.schema import Config, config_sha256, resolve_size
from minitx.data.corpus import check_text
from minitx.experiments.reports import results
from minitx.experiments.reports.command_line import command_line
from minitx.experiments.reports.markdown import publish
from minitx.experiments.reports.results import Row
from minitx.experiments.reports.tables import TABLES
from minitx.runs.directory import held
from minitx.runs.result import Result, disturbance, system_name
from minitx.utils.checkout import CONF, MINITX, TRAIN
from minitx.utils.console import Console, duration
from minitx.utils.errors import Exit, UserError
from minitx.utils.tables import aligned

SUITES = CONF / "suite"
OVERHEAD = 1.08  # what evaluation, checkpoints and start-up add to a run limited by minutes
POLL_S = 1.0
# What the process that trains gets where we get a signal: a terminal that closes asks it to save, as SIGTERM does.
FORWARDED: dict[int, int] = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM,
                             signal.SIGHUP: signal.SIGTERM}


@dataclass(frozen=True, eq=False)
class Job:
    """One run of a suite. words: as after train.py; cfg: what they compose to, widths resolved"""

    words: tuple[str, ...]
    cfg: Config
    run_dir: Path

    @property
    def system(self) -> str:
        """Return what the seeds of this run have in common: its experiment and its model."""
        return system_name(self.cfg.choices.experiment, self.cfg.choices.model)

    @property
    def command(self) -> str:
        """Return what a person would type."""
        return f"{TRAIN} {shlex.join(self.words)}"

    @property
    def argv(self) -> list[str]:
        """Return the same as it is run here: it begins the run, or continues it."""
        return [sys.executable, *MINITX, "train", *self.words, text_word("run_dir", str(self.run_dir)), "resume=auto"]

    @property
    def log(self) -> Path:
        """Return where its output goes: beside its run directory, which a new run wants empty."""
        return self.run_dir.with_name(f"{self.run_dir.name}.log")


@dataclass
class State:
    """How far a job is: published, finished, disturbed, interrupted, waiting or failed. why: shown below its line"""

    state: str
    result: Result | None = None
    why: str = ""
    code: int = Exit.OK

    @property
    def trained(self) -> bool:
        """Whether there is nothing left to train."""
        return self.state in ("published", "finished", "disturbed")


def load(name: str, size: str, folder: Path, overrides: Sequence[str] = ()) -> list[Job]:
    """Read a suite's jobs, seed by seed: a suite that is cut short has about as many seeds of each system.

    overrides: for all of its jobs. Errors: `UserError` for a suite or a size that does not exist, and for what train.py
    would refuse.
    """
    for word in overrides:
        if word.partition("=")[0].lstrip("+") in ("seed", "run_dir", "resume", "experiment"):
            raise UserError(f"{word}: the suite sets this itself; leave it out, or use train.py")
    names = sorted(path.stem for path in SUITES.glob("*.yaml"))
    if name not in names:
        raise UserError(f"{name}: no such suite{nearest(name, names)} ({', '.join(names)})")
    sizes: dict[str, dict[str, Any]] = yaml.safe_load((SUITES / f"{name}.yaml").read_text(encoding="utf-8"))
    if size not in sizes:
        raise UserError(f"{name}: has no size {size}; it has {', '.join(sizes)}")
    jobs = []
    for seed in sizes[size]["seeds"]:
        for system in sizes[size]["systems"]:
            words = (*shlex.split(system), *overrides, *([f"seed={seed}"] if seed != 1 else []))
            cfg = compose(words)
            cfg = replace(cfg, model=resolve_size(cfg.model))
            system_folder = system_name(cfg.choices.experiment, cfg.choices.model)
            jobs.append(Job(words, cfg, folder / f"{system_folder}.{seed}"))
    if len({job.run_dir for job in jobs}) < len(jobs):
        raise UserError(f"{SUITES / f'{name}.yaml'}: two systems of {size} have one experiment and one model")
    return jobs


def find_state(job: Job, rows: Sequence[Row] = ()) -> State:
    """Return how far a job is. rows: published ones that count as done

    Errors: `UserError` for a run directory that was trained with other settings.
    """
    sha256 = config_sha256(job.cfg)
    for row in rows:
        alike = (row.result.system, row.result.seed) == (job.system, job.cfg.seed)
        if alike and (row.result.config_sha256 == sha256 or row.command == command_line(job.cfg)):
            changed = (f"{row.name}: of the same command and another config: what conf/ says has changed since; delete "
                       "the row to train it again")
            return State("published", row.result, changed if row.result.config_sha256 != sha256 else "")
    if (path := job.run_dir / "result.json").exists():
        result = Result.read(path)
        if result.status == "finished" and result.config_sha256 != sha256:
            raise UserError(f"{job.run_dir}: was trained with other settings; name another folder for these runs with "
                            "--runs")
        if result.status == "finished":
            return State("disturbed" if result.disturbed else "finished", result)
    return State("interrupted" if job.run_dir.exists() else "waiting")


class Suite:
    """Train what is not trained yet, one run after the other: each has the machine to itself."""

    def __init__(self, jobs: Sequence[Job], console: Console, ledger: Path | None = None) -> None:
        """ledger: where each run is published as it ends, and where published runs count as done; None = nowhere."""
        self.jobs, self.console, self.ledger = jobs, console, ledger
        rows = [] if ledger is None else results.read_rows(ledger, may_be_empty=True)
        self.states = {job: find_state(job, rows) for job in jobs}

    def run(self) -> int:
        """Train, publish, and show each run as it ends. --> the exit code of what interrupted it, or of what failed

        Errors: `UserError`, before the first run, for a text that is missing, a run that no table would show, or
        another suite in this folder.
        """
        for job in self.jobs:
            if not self.states[job].trained:
                check_text(job.cfg.data)
            experiment = job.cfg.choices.experiment
            if self.ledger is not None and not any(table.covers(experiment) for table in TABLES.values()):
                raise UserError(f"experiment={experiment}: is in no table, so it is not published; leave --publish out")
        folder = self.jobs[0].run_dir.parent
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder):
            self.console.line(row(*HEAD))
            for job in self.jobs:
                if self.states[job].trained:
                    self.publish(job)
                    self.show(job)
            for number, job in enumerate(self.jobs, 1):
                if self.states[job].trained:
                    continue
                code = self.train(job, f"{number}/{len(self.jobs)}")
                self.publish(job)
                self.show(job)
                if code in (Exit.INTERRUPTED, Exit.TERMINATED, Exit.STORAGE):  # a full disk stops the next run too
                    self.console.line(f"stopped; the same command continues with {job.system}, seed {job.cfg.seed}")
                    return code
        return max(state.code for state in self.states.values())

    def train(self, job: Job, place: str) -> int:
        """Train one run in a process. --> its exit code, or that of the signal we got"""
        began = monotonic()
        with child_process(job.argv, job.log) as (child, signals):
            while child.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(POLL_S)
                self.console.live(f"{place}  {job.system} seed {job.cfg.seed}: {last_line(job.log)}  | suite eta "
                                  f"{self.eta(job, monotonic() - began)}")
        code = child.returncode if child.returncode >= 0 else 128 - child.returncode
        self.states[job] = find_state(job)
        if code and self.states[job].state == "waiting" or code not in (0, Exit.INTERRUPTED, Exit.TERMINATED):
            why = f"exit code {code}: {last_line(job.log)} (its output: {job.log})"
            self.states[job] = State("failed", why=why, code=code)
        return 128 + FORWARDED[signals[0]] if signals else code

    def publish(self, job: Job) -> None:
        """Publish a trained run, unless other processes disturbed its times."""
        state = self.states[job]
        if self.ledger is None or state.state not in ("finished", "disturbed"):
            return
        if state.result is not None and (others := disturbance(state.result.other_cpu_pct)) is not None:
            state.why = (f"{others}, so it is not published; "
                         f"delete {job.run_dir} to train it again, or publish it as it is: minitx report {job.run_dir}")
            return
        try:
            publish([job.run_dir], self.ledger, self.console.line)
            state.state = "published"
        except UserError as error:
            self.states[job] = State("failed", state.result, str(error), error.code)

    def show(self, job: Job) -> None:
        """Write a run's line of the table."""
        self.console.line(line(job, self.states[job]))

    def eta(self, now: Job, running_s: float) -> str:
        """Say when all will be done, if it can be said."""
        expected = {job: expected_s(job, self.states) for job in self.jobs
                    if self.states[job].state in ("waiting", "interrupted")}
        if None in expected.values():
            return "unknown"
        left = {job: seconds or 0.0 for job, seconds in expected.items()}
        return duration(sum(left.values()) - min(running_s, left.get(now, 0.0)))


def expected_s(job: Job, states: Mapping[Job, State], measured: Mapping[str, float] = MappingProxyType({})
               ) -> float | None:
    """Estimate a run's seconds: from its system's other seeds, its limit in minutes, or the suite's other runs.

    measured: of its updates, by system, which are better than other systems' runs
    """
    results = [(other, state.result) for other, state in states.items() if state.result is not None]
    alike = [result.wall_s for other, result in results if other.system == job.system]
    if alike:
        return fmean(alike)
    if job.cfg.trainer.max_minutes is not None:
        return OVERHEAD * 60 * job.cfg.trainer.max_minutes
    if job.system in measured:
        return measured[job.system]
    return fmean(result.wall_s for _, result in results) if results else None


@contextmanager
def child_process(words: Sequence[str], log: Path) -> Iterator[tuple["subprocess.Popen[bytes]", list[int]]]:
    """Yield a process to which we forward each signal once, and the list of signals we got.

    It has its own session: a terminal's Ctrl-C would otherwise reach it twice. Signals that are ignored here, as under
    nohup, stay ignored.
    """
    child: subprocess.Popen[bytes] | None = None
    signals: list[int] = []

    def forward(number: int, _: Any) -> None:
        signals.append(number)
        if child is not None:
            child.send_signal(FORWARDED[number])

    handled = [number for number in FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, forward) for number in handled}
    try:
        with log.open("ab") as output:
            child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                     start_new_session=True)
        for number in signals:  # those we got before it was there
            child.send_signal(FORWARDED[number])
        yield child, signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if child is not None and child.poll() is None:  # on an error of ours, leave no process behind
            child.terminate()
            child.wait()


def last_line(log: Path) -> str:
    """Return the last line of a file that is not blank, or "" if its end has none."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").splitlines()
    return next((text.strip() for text in reversed(lines) if text.strip()), "")


# --- what is shown

HEAD = ("system", "seed", "state", "training", "tokens/s", "to target", "BLEU")
WIDTHS = (34, 4, 11, 8, 9, 10, 6)  # at least: a run's line is printed as the run ends


def row(*cells: str) -> str:
    """Return one line of the table that grows while a suite trains."""
    return aligned([cells], "<><>", WIDTHS)[0]


def line(job: Job, state: State) -> str:
    """Write a run's line: what is known of it, and where it failed, why."""
    result, figures = state.result, ["-"] * 4
    if result is not None:
        bleu = next((f"{score['bleu']:.1f}" for score in result.test.values()), "-")
        goal = ("-" if result.target_bleu is None else f"> {duration(result.train_s)}"
                if result.time_to_target_s is None else duration(result.time_to_target_s))
        figures = [duration(result.train_s), f"{result.tgt_tokens_per_s or 0:,.0f}", goal, bleu]
    text = row(job.system, str(job.cfg.seed), state.state, *figures)
    return f"{text}\n    {state.why}" if state.why else text


def plan(jobs: Sequence[Job], states: Mapping[Job, State], measured: Mapping[str, float] = MappingProxyType({})
         ) -> Iterator[str]:
    """Yield what a suite would do: each run's state, the time it would take, and its command. measured: `expected_s`"""
    expected = {job: expected_s(job, states, measured) for job in jobs if not states[job].trained}
    guesses = ("" if job not in expected else "?" if (seconds := expected[job]) is None else duration(seconds)
               for job in jobs)
    yield from aligned([(states[job].state, guess, job.command) for job, guess in zip(jobs, guesses, strict=True)],
                       "<><")
    known = [seconds for seconds in expected.values() if seconds is not None]
    yield (f"{len(expected)} of {len(jobs)} to train" + (f": about {duration(sum(known))}" if known else "")
           + (f"; of {len(expected) - len(known)} it is not known how long" if len(known) < len(expected) else "")
           + ("" if len(known) == len(expected) or measured else "; with --measure a few updates of each system tell"))
    if measured:
        yield ("measured on this machine as it is now, updates alone: validation and the test sets come on top "
               f"({', '.join(measured)})")


def as_json(jobs: Sequence[Job], states: Mapping[Job, State], measured: Mapping[str, float] = MappingProxyType({})
            ) -> str:
    """Write how far a suite is, for programs. measured: as for `expected_s`"""
    return json.dumps([{"system": job.system, "seed": job.cfg.seed, "command": job.command, "run_dir": str(job.run_dir),
                        "state": states[job].state, "expected_s": expected_s(job, states, measured)}
                       for job in jobs], indent=1)
