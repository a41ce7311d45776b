"""The tables of docs/gpu.md and of docs/scaling.md: what the study `gpu` predicts, beside what others published.

A column of what was measured is there once results/gpu/ has a file of `scripts/gpu_merge.py` for the same update.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from minitx.experiments.reports import findings
from minitx.experiments.reports.findings import StudyResult
from minitx.experiments.reports.gpu_plots import MOST_TESTED, PUBLISHED, SYSTEMS
from minitx.profiling.devices import article, by_name, device_named
from minitx.profiling.fleet import Fleet, mean_largest
from minitx.utils.errors import UserError
from minitx.utils.tables import bullets, markdown

WAY = "v100 to a100"  # constants from kernels of a V100, trainings on A100: a newer GPU, as those that are asked about
ANSWER_ON = "h100"
FORMATS = {"half": "half", "tf32": "TF32", "fp32": "fp32", "bf16-mixed": "bf16", "16-mixed": "fp16",
           "32-true": "fp32"}
LIMITS = {"host": "waiting for the host", "recurrence": "steps of recurrence", "starts": "starts",
          "products": "products", "memory": "bytes"}  # as in `profiling.limits`, in the page's words
FEW, MANY = (1, 8, 16), (8, 64, 1024)  # GPUs: whose time to a BLEU is told, and whose efficiency
GROWN = 10_240, 81_920  # target tokens: of one GPU's update as published, and of one that 8 GPUs share
BEHIND = ("tiles and waves", "bytes", "the cache", "floors of kernels", "the host")

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Others:
    """What is no prediction: speeds and times that others published, and updates that were measured on GPUs.

    measured: by system, size, number format, target tokens of an update, GPU
    """

    training: Mapping[str, Any] = field(default_factory=dict)
    mlperf: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[tuple[Any, ...], Mapping[str, Any]] = field(default_factory=dict)


def read_others(ledger: Path) -> Others:
    """Read published/ and gpu/ of a ledger, as far as they are there. Errors: `UserError` for another kind of file"""
    training, mlperf_times = (_read(ledger / "published" / f"{name}.json") for name in ("training", "mlperf"))
    measured = dict[tuple[Any, ...], Mapping[str, Any]]()
    for path in sorted((ledger / "gpu").glob("*.json")):
        found = _read(path)
        try:
            device = device_named(found["conditions"]["hardware"]["gpu"])
            for row in found["updates"]:
                if device is not None and not row["compile"]:
                    tokens = row["sentences"] * row["tgt_len"]
                    measured[row["system"], row["size"], row["precision"], tokens, device.name] = row
        except (LookupError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not what `scripts/gpu_merge.py` writes: {error!r}") from error
    return Others(training, mlperf_times, measured)


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    return found


def render(name: str, study: StudyResult | None, others: Others) -> str:
    """Write one of `BLOCKS` as Markdown, or how its numbers are made."""
    return findings.render("gpu", None) if study is None else BLOCKS[name](study, others)


# --- how far off predictions are


def errors(study: StudyResult, others: Others) -> str:
    """Write every published training with its prediction, both ways."""
    parts = list[str]()
    for way, tested in study["tests"].items():
        one, other = way.upper().split(" TO ")
        rows = [(PUBLISHED[row["system"]], row["device"].upper(), f"{row['gpus']}", FORMATS[row["precision"]],
                 f"{row['published']:,.0f}", f"{row['predicted']:,.0f}", f"{100 * row['error']:+.0f} %")
                for row in tested["rows"]]
        parts += [f"**Trainings on {other}, predicted with constants of {article(one)}**: median error "
                  f"{_percent(tested['median'])}, largest {_percent(tested['worst'])}.",
                  markdown(("training", "GPU", "GPUs", "numbers", "published, tokens/s", "*predicted*", "error"), rows)]
    return _joined(*parts, "Error: predicted speed over published speed, less 1. By system and numbers:",
                   bullets(_systematic(study)), _sources(study),
                   findings.conditions(study),
                   f"```\n{findings.command('gpu', study)}\n```")


def _systematic(study: StudyResult) -> Iterator[str]:
    """Yield the least and the largest error of each system in each number format: of one sign, something is missing."""
    groups = dict[tuple[str, str], list[str]]()
    for way, tested in study["tests"].items():
        found = dict[tuple[str, str], list[float]]()
        for row in tested["rows"]:
            found.setdefault((row["system"], row["precision"]), []).append(100 * row["error"])
        for key, values in found.items():
            groups.setdefault(key, []).append(f"{min(values):+.0f} to {max(values):+.0f} % on {way.upper()[-4:]}")
    for (system, precision), told in groups.items():
        yield f"{PUBLISHED[system]}, {FORMATS[precision]}: {', '.join(told)}."


def parts_of_model(study: StudyResult, others: Others) -> str:
    """Write how much larger the errors are without each part of the model."""
    ways = list(study["tests"].items())
    head = ["model", *(f"{what} error, {way.upper().replace(' TO ', ' to ')}" for way, _ in ways
                       for what in ("median", "largest"))]
    whole = ["whole", *(_percent(tested[key]) for _, tested in ways for key in ("median", "worst"))]
    lines = [[f"without {part}", *(_percent(value) for _, tested in ways for value in tested["without"][part])]
             for part in BEHIND]
    return _joined(markdown(head, [whole, *lines]),
                   "Constants are not fitted anew: so this is what a part explains, given the others. Errors of all "
                   "trainings in the table before.")


def kernels(study: StudyResult, others: Others) -> str:
    """Write how predictions of single kernels compare with what was measured."""
    rows = [(name[0].upper() + name[1:], f"{found['kernels']}", f"{found['median_ratio']:.2f}",
             _percent(found["median_error"])) for name, found in study["kernels"].items()]
    return _joined(markdown(("kernels", "number", "*predicted* over measured time, median", "median error"), rows),
                   "Constants are fitted on those of the V100; the T4's are unseen. Below 1: predicted too fast.")


def published(study: StudyResult, others: Others) -> str:
    """Write the share of its peak that a published training reached on one GPU, and what the model predicts of it."""
    training = others.training
    predicted = {(row["system"], row["device"], row["precision"]): row["error"] for tested in study["tests"].values()
                 for row in tested["rows"] if row["gpus"] == 1}
    lines = list[Sequence[str]]()
    for values in training["rows"]:
        row = dict(zip(training["columns"], values, strict=True))
        key = row["system"], row["device"], row["precision"]
        if row["gpus"] == 1 and key in predicted:
            mfu = mfu_pct(row, training["systems"][row["system"]])
            lines.append((PUBLISHED[row["system"]], row["device"].upper(), FORMATS[row["precision"]],
                          f"{row['tokens_per_s']:,}", f"{mfu:.1f} %", f"{mfu * (1 + predicted[key]):.1f} %"))
    return _joined(markdown(("training", "GPU", "numbers", "published, tokens/s", "MFU of that", "*predicted* MFU"),
                            lines),
                   "MFU: operations of the model's products on real tokens, three times those forwards, over the data "
                   "sheet's peak in that number format. A token is one of either side for GNMT, and a target token for "
                   f"the Transformer. {_expected(study)}")


def mfu_pct(row: Mapping[str, Any], system: Mapping[str, Any]) -> float:
    """Return the MFU of a published training. system: its `multiply_adds` and lengths"""
    device = by_name(row["device"])
    peak = {"half": device.half, "tf32": device.tf32, "fp32": device.fp32}[row["precision"]]
    counted = 1 + system["src_len"] / system["tgt_len"] if row["tokens"] == "both" else 1.0  # for a target token
    flop = 3 * 2 * system["multiply_adds"] / counted
    return float(100 * row["tokens_per_s"] * flop / (1e12 * (peak or device.fp32) * row["gpus"]))


def mlperf(study: StudyResult, others: Others) -> str:
    """Write the minutes to target that were published, of an LSTM and a Transformer as fast as their makers could."""
    rows = [(name, *(f"{minutes:.2f}" for minutes in values)) for name, *values in others.mlperf["rows"]]
    return _joined(markdown(("published", "GNMT (LSTM), minutes", "Transformer, minutes"), rows),
                   f"{others.mlperf['what']} ({others.mlperf['source']}).")


# --- what is predicted of ours


def answer(study: StudyResult, others: Others) -> str:
    """Write the systems' updates on one GPU at the smallest and the largest size, and seconds to a BLEU."""
    cases = [case for case in ("small", "big") if case in study["sizes"]["cases"]]
    head = ["*predicted*", *(f"{case}: {what}" for case in cases for what in ("update, ms", "busy", "MFU"))]
    targets = _targets(study)
    lines = list[list[str]]()
    for system in _systems(study["speeds"]):
        cells = [SYSTEMS[system]]
        for case in cases:
            found = [row for row in study["speeds"] if (row["case"], row["system"], row["device"], row["gpus"]) == (
                case, system, ANSWER_ON, 1)]
            cells += [_range(found[0]), _busy(found[0]), _mfu(found[0])] if found else ["-", "-", "-"]
        lines.append([*cells, *(_seconds(_quality(study, "growing", system, ANSWER_ON, 1, bleu)) for bleu in targets)])
    head += [f"captions to BLEU {bleu:g}, s" for bleu in targets]
    return _joined(markdown(head, lines),
                   f"One {ANSWER_ON.upper()}, *predicted*; nothing was measured. In brackets, from fast to slow hosts "
                   "and small kernels; of seconds, seeds and the error of predictions as well. "
                   f"{_shapes(study)} {_expected(study)}")


def speeds(study: StudyResult, others: Others) -> str:
    """Write each system's update on each GPU, a table for each size; and what was measured of them, if any was."""
    parts = list[str]()
    for case in study["sizes"]["cases"]:
        rows = [row for row in study["speeds"] if row["case"] == case and row["gpus"] == 1]
        found = [others.measured.get((row["system"], case, row["precision"], row["tgt_tokens"], row["device"]))
                 for row in rows]
        head = ["*predicted*", "GPU", "numbers", "update, ms", "busy", "multiprocessors with work", "MFU",
                "target tokens/s", "as a CUDA graph, ms"]
        lines = [[SYSTEMS[row["system"]], row["device"].upper(), FORMATS[row["precision"]], _range(row), _busy(row),
                  f"{row['occupied_pct']:.0f} %", _mfu(row), f"{row['tgt_tokens_per_s']:,.0f}",
                  _ms(row["graphed_ms"])] for row in rows]
        if any(found):
            head += ["*measured*: ms", "busy"]
            for line, row in zip(lines, found, strict=True):
                line += ["-", "-"] if row is None else [_ms(row["update_ms"]), _percent_or_dash(row["busy_pct"])]
        parts += [f"**Size {case}**, {rows[0]['tgt_tokens']:,.0f} target tokens an update:", markdown(head, lines)]
    return _joined(*parts, f"In brackets, from fast to slow hosts and small kernels. {_expected(study)}")


def bounds(study: StudyResult, others: Others) -> str:
    """Write what the milliseconds of an update are lost to."""
    parts = list[str]()
    for case in study["sizes"]["cases"]:
        rows = [row for row in study["speeds"] if (row["case"], row["device"], row["gpus"]) == (case, ANSWER_ON, 1)]
        lines = [(SYSTEMS[row["system"]], f"{row['launches']:,}", _ms(row["update_ms"]),
                  *(_ms(row["by_limit_ms"][limit]) for limit in LIMITS)) for row in rows]
        parts += [f"**Size {case}**:", markdown(("*predicted*, ms", "kernels", "update", *LIMITS.values()), lines)]
    return _joined(*parts, f"One {ANSWER_ON.upper()}; a kernel's work is lost to its arithmetic or to its bytes, "
                           "whichever takes longer, and to starts or to steps what it takes on top. "
                           f"{_expected(study)}")


def quality(study: StudyResult, others: Others) -> str:
    """Write the seconds to each BLEU, by system: on one GPU of each kind, and on several of one kind."""
    parts = list[str]()
    devices = study["sizes"]["devices"]
    several = [gpus for gpus in FEW if gpus in study["sizes"]["gpus"]]
    for bleu in _targets(study):
        systems = [system for system in _systems(study["quality"])
                   if _quality(study, "growing", system, devices[0], 1, bleu)["minutes"] is not None]
        head = ["*predicted* seconds", "updates", *(f"1 {device.upper()}" for device in devices),
                *(f"{gpus} {ANSWER_ON.upper()}, {kind}" for gpus in several if gpus > 1
                  for kind in ("shared", "growing"))]
        lines = [[SYSTEMS[system], _updates(_quality(study, "growing", system, devices[0], 1, bleu)["updates"]),
                  *(_seconds(_quality(study, "growing", system, device, 1, bleu)) for device in devices),
                  *(_seconds(_quality(study, kind, system, ANSWER_ON, gpus, bleu)) for gpus in several if gpus > 1
                    for kind in ("shared", "growing"))] for system in systems]
        none = [SYSTEMS[system] for system in _systems(study["quality"]) if system not in systems]
        parts += [f"**To BLEU {bleu:g}** on the validation set of captions"
                  + (f" (not reached by every seed: {', '.join(none)})" if none else "") + ":", markdown(head, lines)]
    return _joined(*parts, "Updates: mean of the published runs' seeds; they were trained on CPUs, and a learning "
                           "curve over updates does not depend on the machine. In brackets: seeds, the error of "
                           f"predictions (95 %), slow and fast hosts and small kernels. {_expected(study)}")


# --- more GPUs


def scaling(study: StudyResult, others: Others) -> str:
    """Write how much several GPUs are worth: published, predicted, and where nothing was published."""
    tested = study["tests"][WAY]
    alone = {(row["system"], row["precision"]): row for row in tested["rows"] if row["gpus"] == 1}
    lines = [(PUBLISHED[row["system"]], FORMATS[row["precision"]], f"{row['gpus']}",
              *(_percent(row[key] / row["gpus"] / alone[row["system"], row["precision"]][key])
                for key in ("published", "predicted")))
             for row in tested["rows"] if row["gpus"] > 1]
    fitted = tested["fleet"]
    return _joined(
        markdown(("training on A100", "numbers", "GPUs", "published efficiency", "*predicted* efficiency"), lines),
        bullets([f"v = {fitted['uneven']:.3f}: by how much shares differ, standard deviation over mean",
                 f"e = {fitted['exposed']:.2f}: of the exchange that is not hidden",
                 f"f = {1e12 * fitted['parameter_s']:.0f} ps: lost in every update for each parameter"]),
        "Fitted on trainings on V100 (4, 8 and 16 GPUs), none of which is in this table.",
        *_extrapolated(study, others))


def _extrapolated(study: StudyResult, others: Others) -> Iterator[str]:
    """Yield the table of many A100, of Transformer big in half precision, from what one was published to need."""
    training = others.training
    found = [dict(zip(training["columns"], values, strict=True)) for values in training["rows"]]
    (row,) = [row for row in found if (row["system"], row["device"], row["gpus"], row["precision"]) == (
        "transformer_big", "a100", 1, "half")]
    one_s = GROWN[0] / row["tokens_per_s"]
    params = round(training["systems"]["transformer_big"]["params"])
    fleet = Fleet(by_name("a100"), **study["tests"][WAY]["fleet"])
    lines = list[Sequence[str]]()
    for gpus in MANY:
        shared_s = one_s * GROWN[1] / GROWN[0] / gpus
        grown, shared = (part / fleet.update_s(part, 2 * params, params, gpus) for part in (one_s, shared_s))
        seconds = fleet.exchange_s(2 * params, gpus), fleet.parameter_s * params, shared_s
        lines.append((f"{gpus:,}", f"{_percent(grown)}, {GROWN[0] * gpus:,} tokens an update", _percent(shared),
                      _percent(fleet.uneven * mean_largest(gpus)), *(f"{1e3 * part:.1f} ms" for part in seconds)))
    yield markdown(("GPUs", f"*predicted*: updates grow ({GROWN[0]:,} tokens a GPU)",
                    f"*predicted*: the same update ({GROWN[1]:,} tokens)", "the slowest has more to do by", "exchange",
                    "lost for all parameters", "work of a GPU in the same update"), lines)
    yield (f"Transformer big in half precision on A100, from the {1e3 * one_s:.0f} ms that one was published to need. "
           f"Beyond {MOST_TESTED} GPUs, and between machines, no published training tests this: it is extrapolation.")


# --- parts of a table


def _joined(*parts: str) -> str:
    return "\n\n".join(parts)


def _systems(rows: Rows) -> list[str]:
    """Return the systems of these rows, as the page tells of them."""
    return [name for name in SYSTEMS if any(row["system"] == name for row in rows)]


def _targets(study: StudyResult) -> list[float]:
    return sorted({row["bleu"] for row in study["quality"]})


def _quality(study: StudyResult, kind: str, system: str, device: str, gpus: int, bleu: float) -> Mapping[str, Any]:
    """Find how soon a system gets to a BLEU."""
    asked = (kind, system, device, gpus, bleu)
    rows: Rows = [row for row in study["quality"]
                  if tuple(row[key] for key in ("kind", "system", "device", "gpus", "bleu")) == asked]
    (row,) = rows
    return row


def _expected(study: StudyResult) -> str:
    """Say how far off predictions were where they could be tested."""
    tested = study["tests"][WAY]
    one, other = WAY.upper().split(" TO ")
    return (f"Expected error: of {len(tested['rows'])} published trainings on {other}, predicted with constants of "
            f"{article(one)}, a median of {_percent(tested['median'])} and {_percent(tested['worst'])} at most; these "
            "are larger models, which keep the GPU at work.")


def _shapes(study: StudyResult) -> str:
    """Say how many tokens an update of each size has."""
    tokens = {row["case"]: row["tgt_tokens"] for row in study["speeds"] if row["gpus"] == 1}
    return "Target tokens an update: " + ", ".join(f"{case} {n:,.0f}" for case, n in tokens.items()) + "."


def _sources(study: StudyResult) -> str:
    names = dict.fromkeys(row["source"] for tested in study["tests"].values() for row in tested["rows"])
    return f"Published by: {'; '.join(names)}."


def _range(row: Mapping[str, Any]) -> str:
    return f"{_ms(row['update_ms'])} ({_ms(row['fast_ms'])} to {_ms(row['slow_ms'])})"


def _busy(row: Mapping[str, Any]) -> str:
    low, high = row["busy_pct"]
    return f"{low:.0f} to {high:.0f} %"


def _mfu(row: Mapping[str, Any]) -> str:
    return "-" if row["mfu_pct"] is None else f"{row['mfu_pct']:.2g} %"


def _ms(value: float) -> str:
    return f"{value:,.1f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _percent_or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} %"


def _updates(needed: Sequence[float]) -> str:
    return f"{fmean(needed):,.0f}"


def _seconds(found: Mapping[str, Any]) -> str:
    """Write seconds with the ends of their range, or a dash if not every seed got there."""
    if found["minutes"] is None:
        return "-"
    middle, low, high = (f"{60 * minutes:.2g}" if 60 * minutes < 100 else f"{60 * minutes:,.0f}"
                         for minutes in found["minutes"])
    return f"{middle} ({low} to {high})"


BLOCKS: dict[str, Callable[[StudyResult, Others], str]] = {
    "gpu_answer": answer, "gpu_errors": errors, "gpu_parts": parts_of_model, "gpu_kernels": kernels,
    "gpu_published": published, "gpu_mlperf": mlperf, "gpu_speed": speeds, "gpu_bounds": bounds,
    "gpu_quality": quality, "gpu_scaling": scaling}
