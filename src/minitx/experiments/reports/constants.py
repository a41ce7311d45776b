"""Tables of docs/gpu.md on what predictions rest on: a host's operators and a CPU's updates as measured, and how long a
step of cuDNN's LSTM was published to take.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from minitx.experiments.prediction.published import LSTMRun, lstm_runs
from minitx.experiments.reports import gpu_plots
from minitx.profiling.timeline import FAST, SLOW, Constants
from minitx.runs.result import disturbance
from minitx.utils.console import counted, duration
from minitx.utils.errors import UserError
from minitx.utils.tables import markdown

SYSTEMS = gpu_plots.SYSTEMS | {"gnmt": "GNMT", "gnmt_cell_loop": gpu_plots.PUBLISHED["gnmt_cell_loop"],
                               "linear_rnn": "linear RNN", "linear_rnn_attention": "linear RNN + attention",
                               "transformer_rope": "Transformer, rotary positions"}
LAUNCHES_OTHERS = {"lstm", "lstm_attention", "gnmt"}  # whose layers a CPU and cuDNN issue differently
KERNELS_OF_STEP = 2  # of cuDNN's LSTM: a product, and the gates
FORMATS = {"half": "half", "float": "fp32"}

Found = Mapping[str, Any]


@dataclass(frozen=True)
class Evidence:
    """What was measured on hosts and on CPUs, a file each, and what was published of steps."""

    hosts: Sequence[Found] = ()
    cpus: Sequence[Found] = ()
    lstms: Sequence[LSTMRun] = ()
    lstms_source: str = ""


def read_evidence(ledger: Path) -> Evidence:
    """Read host/, cpu/ and published/ of a ledger, as far as they are there. Errors: `UserError` for another file"""
    hosts, cpus = ([_read(path) for path in sorted((ledger / folder).glob("*.json"))] for folder in ("host", "cpu"))
    steps = ledger / "published" / "cudnn_steps.json"
    if not steps.exists():
        return Evidence(hosts, cpus)
    return Evidence(hosts, cpus, lstm_runs(steps.parent), json.loads(steps.read_text(encoding="utf-8"))["source"])


def _read(path: Path) -> Found:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not found["rows"] or "hardware" not in found["conditions"]:
            raise LookupError("no rows")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path}: not what `scripts/{path.parent.name}_model.py` writes: {error!r}") from error
    return found


def render(name: str, evidence: Evidence) -> str:
    """Write one of `BLOCKS` as Markdown."""
    return BLOCKS[name](evidence)


def hosts(evidence: Evidence) -> str:
    """Write the microseconds that an operator costs each host, where the CPU issues what a GPU is given."""
    if not evidence.hosts:
        return "Not measured yet: `python scripts/host_model.py --size full -o results/host/NAME.json` makes this part."
    parts = list[str]()
    for found in evidence.hosts:
        known = found["conditions"]
        rows = [(SYSTEMS[row["system"]], f"{row['operators']:,}", f"{row['views']:,}", f"{row['update_us'] / 1e3:.1f}",
                 "{:.1f} to {:.1f}".format(*row["operator_us"]))
                for row in found["rows"] if row["system"] not in LAUNCHES_OTHERS]
        parts += [markdown(("*measured*", "operators", "views", "update, ms", "an operator, µs"), rows),
                  f"{known['hardware']['cpu']}, one thread, torch {known['versions']['torch']}: {known['layers']} "
                  f"layers of toys on either side, {known['sentences']} sentences of {known['length']} tokens, "
                  f"median of {known['updates']} updates.{_disturbed(known)}"]
    usual = Constants().operator_us
    return "\n\n".join([*parts, "At least: without what the CPU's own kernels take by themselves; at most: with it. "
                        "Nothing of CUDA is in either. A view counts as a fourth of an operator. Predictions take "
                        f"{FAST.operator_us:g} to {SLOW.operator_us:g} µs, usually {usual:g}."])


def steps(evidence: Evidence) -> str:
    """Write how long a step of cuDNN's LSTM was published to take, beside what predictions take it for."""
    if not evidence.lstms:
        return "No published steps: they lie in `results/published/cudnn_steps.json`."
    rows = list[Sequence[str]]()
    for dtype, name in FORMATS.items():
        runs = [run for run in evidence.lstms if run.dtype == dtype and run.layers == 1]
        for way, small in (("forward", False), ("backward", False), ("forward", True), ("backward", True)):
            took = sorted(run.step_us(getattr(run, f"{'small_' if small else ''}{way}_ms")) for run in runs)
            rows.append((f"{name}, {way}s", "for narrow states" if small else "step by step",
                         f"{median(took):.1f}", f"{took[0]:.1f} to {took[-1]:.1f}"))
    widths = [run.d_hidden for run in evidence.lstms if run.layers == 1]
    sizes = [run.sentences for run in evidence.lstms if run.layers == 1]
    floors = [KERNELS_OF_STEP * each.step_us for each in (FAST, Constants(), SLOW)]
    return "\n\n".join([
        markdown(("published", "kernel", "a step, µs (median)", "least to most"), rows),
        f"{len(widths) // len(FORMATS)} LSTMs of one layer, {min(widths)} to {max(widths)} wide, {min(sizes)} to "
        f"{max(sizes)} sentences, thousands of steps; which GPU is not told. {evidence.lstms_source}.",
        f"Predictions take {floors[0]:g} to {floors[2]:g} µs, usually {floors[1]:g}, and the step's work on top."])


def cpus(evidence: Evidence) -> str:
    """Write each update that was timed on a CPU, and how far off its prediction was."""
    parts = list[str]()
    for found in evidence.cpus:
        known, rows = found["conditions"], found["rows"]
        shapes = list(dict.fromkeys((row["size"], row["sentences"], row["length"]) for row in rows))
        by_place = {(row["system"], row["size"], row["sentences"], row["length"]): row for row in rows}
        lines = [[SYSTEMS[system], *(_timed(by_place.get((system, *shape))) for shape in shapes)]
                 for system in dict.fromkeys(row["system"] for row in rows)]
        errors = found["errors"]
        parts += [markdown(("*measured*, ms, and error of the prediction",
                            *(f"{size}, {sentences} x {length}" for size, sentences, length in shapes)), lines),
                  f"{known['hardware']['cpu']}, {counted(known['threads'], 'thread')}, {known['precision']}, torch "
                  f"{known['versions']['torch']}; {duration(known['took_s'])}. Sentences x tokens; the fastest of some "
                  f"updates. Median error {100 * errors['median']:.0f} %, largest {100 * errors['worst']:.0f} %."
                  f"{_disturbed(known)}"]
    return "\n\n".join(parts) or ("Not measured yet: `python scripts/cpu_model.py --size full -o "
                                  "results/cpu/NAME.json` makes this part.")


def _timed(row: Found | None) -> str:
    return "-" if row is None else f"{row['measured_ms']:,.0f} ({100 * row['error']:+.0f} %)"


def _disturbed(known: Found) -> str:
    others = disturbance(known["other_cpu_pct"])
    return "" if others is None else f" Disturbed: {others}."


BLOCKS: dict[str, Callable[[Evidence], str]] = {"gpu_hosts": hosts, "gpu_steps": steps, "gpu_cpus": cpus}
