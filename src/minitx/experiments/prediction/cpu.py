"""The method tested on what is at hand: updates on this CPU, predicted from constants of single operators, and timed.

The kernels of an update are recorded from the code itself, as for a GPU; products, passes over memory and calls are
measured one by one (`profiling/cpu_bench.py`), and no constant is tuned on an update.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch

from minitx.config.compose import compose
from minitx.config.schema import Config
from minitx.data.datamodule import PlannedUpdate
from minitx.experiments.prediction.update import HORIZON, LoneTask, Marks, plan, vocabulary
from minitx.models.registry import build_model
from minitx.profiling.cpu_bench import CPU, measure_constants, repeats
from minitx.profiling.cpu_pace import CPUConstants, CPUPace, CPUParts, seconds_by_kind
from minitx.profiling.cpu_recorder import recording_cpu
from minitx.profiling.kernels import Kernel
from minitx.profiling.provenance import environment, git_state, hardware, versions
from minitx.profiling.utilisation import Watch
from minitx.runs.result import disturbance
from minitx.training.launch import resolve
from minitx.training.recomputation import recompute
from minitx.training.state import RunState
from minitx.utils.console import Console, counted
from minitx.utils.progress import Progress
from minitx.utils.tables import aligned

PRECISION = "32-true"  # which every CPU has products for
SYSTEMS = {"lstm": ("model=lstm",), "lstm_cell_loop": ("model=lstm", "model.cell_loop=true"),
           "lstm_attention": ("model=lstm_attention",), "gnmt": ("model=gnmt",),
           "gnmt_cell_loop": ("model=gnmt", "model.cell_loop=true"), "linear_rnn": ("model=linear_rnn",),
           "linear_rnn_attention": ("model=linear_rnn_attention",), "transformer": ("model=transformer",),
           "transformer_rope": ("model=transformer_rope",), "transformer_nope": ("model=transformer_nope",)}
WITHOUT = {"shapes of products": CPUParts(shapes=False), "steps of recurrences": CPUParts(recurrence=False),
           "passes over memory": CPUParts(passes=False), "caches": CPUParts(cache=False),
           "kinds of passes": CPUParts(kinds=False), "calls": CPUParts(calls=False)}


@dataclass(frozen=True)
class Case:
    """An update that is predicted and timed."""

    size: str  # of the model
    sentences: int
    length: int  # tokens of a sentence on either side, EOS included


@dataclass(frozen=True)
class CPUSizes:
    """Which updates, and how long each is timed."""

    cases: tuple[Case, ...] = (Case("tiny", 16, 8),)
    systems: tuple[str, ...] = ("lstm", "transformer")
    updates: int = 3  # at least
    enough_s: float = 0.2


SIZES = {"smoke": CPUSizes(),
         "full": CPUSizes((Case("tiny", 64, 16), Case("small", 64, 16), Case("small", 16, 64), Case("base", 32, 16)),
                          tuple(SYSTEMS), updates=4, enough_s=2.0)}


def measure_cpu(sizes: CPUSizes, console: Console) -> dict[str, Any]:
    """Measure this CPU's constants, then predict and time each update. Ready for JSON; with its conditions."""
    began = perf_counter()
    with Watch(CPU) as watch:
        constants = measure_constants(console)
        constants_s = perf_counter() - began
        rows = list(predict_and_time(sizes, constants, console))
        other_cpu_pct = watch.usage().other_cpu_pct
    git_sha, git_dirty = git_state()
    conditions = {"precision": PRECISION, "threads": torch.get_num_threads(), "constants_s": constants_s,
                  "took_s": perf_counter() - began, "other_cpu_pct": other_cpu_pct, "git_sha": git_sha,
                  "git_dirty": git_dirty, "versions": versions(), "hardware": hardware(CPU),
                  "environment": environment()}
    return {"conditions": conditions, "constants": asdict(constants), "rows": rows,
            "errors": summary([row["error"] for row in rows]),
            "without": {part: summary([row["without"][part] for row in rows]) for part in WITHOUT}}


def predict_and_time(sizes: CPUSizes, constants: CPUConstants, console: Console) -> Iterator[dict[str, Any]]:
    """Predict each update before it is timed. Errors are the predicted seconds over the measured ones, less 1."""
    progress = Progress(console, float(len(sizes.cases) * len(sizes.systems)))
    for case, system in product(sizes.cases, sizes.systems):
        console.live(f"{system}, {case.size}, {case.sentences} x {case.length} tokens ...")
        task, planned = build(config(case.size, *SYSTEMS[system]), case)
        kernels = record(task, planned)
        by_kind = seconds_by_kind(kernels, CPUPace(constants))
        seconds = repeats(partial(update, task, planned), sizes.updates, sizes.enough_s)
        fastest = min(seconds)
        yield {"system": system} | asdict(case) | {
            "operators": sum(kernel.launches > 0 for kernel in kernels), "updates": len(seconds),
            "predicted_ms": 1e3 * sum(by_kind.values()), "measured_ms": 1e3 * fastest,
            "median_ms": 1e3 * median(seconds), "error": sum(by_kind.values()) / fastest - 1,
            "by_kind_ms": {kind: 1e3 * taken for kind, taken in by_kind.items()},
            "without": {part: sum(seconds_by_kind(kernels, CPUPace(constants, parts)).values()) / fastest - 1
                        for part, parts in WITHOUT.items()}}
        progress(f"{system}, {case.size}")


def config(size: str, *words: str) -> Config:
    """Compose and resolve a config that no data are read for; an update is one micro-batch."""
    return resolve(compose(["logger=none", "trainer.accelerator=cpu", "data.max_tokens=1000000", f"model.size={size}",
                            "tokenizer.vocab_size=8000", "model.dropout=0.1", *words]))


def build(cfg: Config, case: Case) -> tuple[LoneTask, PlannedUpdate]:
    """Build model, task and batch, in training mode."""
    lengths = np.full(case.sentences, case.length)
    return build_task(cfg, PRECISION), plan(cfg, lengths, lengths)


def build_task(cfg: Config, precision: str) -> LoneTask:
    """Build model and task on this CPU, in training mode."""
    torch.manual_seed(cfg.seed)
    model = build_model(cfg.model, src_vocab_size=vocabulary(cfg), tgt_vocab_size=vocabulary(cfg))
    if cfg.trainer.activation_checkpointing:
        recompute(model, cfg.model.family)
    task = LoneTask(model, cfg.optim, state=RunState(precision=precision, horizon_steps=HORIZON), precision=precision,
                    seed=cfg.seed)
    task.place = CPU
    task.optimizer = task.configure_optimizers()
    return task.train()


def record(task: LoneTask, planned: PlannedUpdate) -> list[Kernel]:
    """Return the kernels of an update, in order. Two are run: one before, which makes what is made only once."""
    update(task, planned)
    phases = task.phases
    with recording_cpu() as recorder:
        task.phases = Marks(recorder)
        update(task, planned)
    task.phases = phases
    return recorder.kernels


def update(task: LoneTask, planned: PlannedUpdate) -> None:
    """Train for one update."""
    task.training_step(planned, 0)
    task.state.step += 1


def summary(errors: Sequence[float]) -> dict[str, float]:
    """Return the median and the largest size of errors, and their median with its sign."""
    sizes = [abs(error) for error in errors]
    return {"median": median(sizes), "worst": max(sizes), "bias": median(errors)}


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the errors, what each part of the model is worth, and each update. found: as `measure_cpu` returns it"""
    conditions, whole = found["conditions"], found["errors"]
    yield (f"{conditions['hardware']['cpu']}, {counted(conditions['threads'], 'thread')}, "
           f"{conditions['precision']}: constants measured in {conditions['constants_s']:.0f} s, "
           f"all in {conditions['took_s']:.0f} s")
    if (others := disturbance(conditions["other_cpu_pct"])) is not None:
        yield f"disturbed: {others}; " + (
            "counted is the time that one thread ran" if conditions["threads"] == 1 else "measure on a quiet machine")
    yield from aligned([("errors of predicted updates", "median", "worst", "bias"),
                        *((name, *(f"{100 * errors[key]:+.0f} %" if key == "bias" else f"{100 * errors[key]:.0f} %"
                                   for key in ("median", "worst", "bias")))
                          for name, errors in [("all parts", whole), *(
                              (f"without {part}", errors) for part, errors in found["without"].items())])])
    yield ""
    rows = [("update", "size", "tokens", "operators", "predicted ms", "measured ms", "error", "of it, predicted")]
    for row in found["rows"]:
        total = row["predicted_ms"]
        parts = sorted(row["by_kind_ms"].items(), key=lambda item: -item[1])
        rows.append((row["system"], row["size"], f"{row['sentences']} x {row['length']}", f"{row['operators']:,}",
                     f"{total:,.1f}", f"{row['measured_ms']:,.1f}", f"{100 * row['error']:+.0f} %",
                     ", ".join(f"{kind} {100 * ms / total:.0f} %" for kind, ms in parts[:4])))
    yield from aligned(rows, "<<>>>>><")
