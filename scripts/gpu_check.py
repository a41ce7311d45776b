"""Every check of CUDA that needs a GPU, in one command.

`python scripts/gpu_check.py` compares the GPU with the CPU and times it, in under 10 minutes; after a failure the other
checks still run. It prints a line a check and writes gpu_check.json. Exit code 1 if a check failed. Without a GPU it
lists the checks that it cannot run; `--device cpu` runs those that need none, on toys.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import gpu_numbers as numbers
import gpu_speed as speed
import torch
from families import FAMILIES, Workbench, workbench

from minitx.profiling.provenance import hardware, versions
from minitx.profiling.utilisation import find_gpu
from minitx.utils.console import Console, duration
from minitx.utils.progress import Eta

TOY = ("experiment=quick", "data.train_size=200", "trainer.tokens_per_update=256")
REAL = ("data.train_size=20_000", "model.size=base", "data.max_tokens=16384", "trainer.tokens_per_update=16384",
        "optim.warmup_steps=20")
PLAIN = ("transformer", "lstm", "lstm dot")  # trained and timed: the others differ from these in a detail only
Check = Callable[[], tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Row:
    """The outcome of a check."""

    check: str
    status: str  # ok, failed, unseen
    text: str
    seconds: float
    values: dict[str, Any]


def facts(device: torch.device) -> tuple[str, dict[str, Any]]:
    """Return hardware and versions."""
    values = hardware(device) | versions()
    if device.type == "cuda":
        values |= {"capability": torch.cuda.get_device_capability(device), "cudnn": torch.backends.cudnn.version()}
    return ", ".join(f"{name} {value}" for name, value in values.items()), values


def nvml(device: torch.device) -> tuple[str, dict[str, Any]]:
    """Read the GPU's own counters."""
    gpu = find_gpu(device)
    gpu.sample()
    values = {name: value for name, value in vars(gpu).items() if isinstance(value, (int, float, str, dict, list))}
    return ", ".join(f"{name} {value}" for name, value in values.items()), values


def checks(bench: Workbench, real: Workbench, device: torch.device, toys: bool) -> dict[str, tuple[bool, Check]]:
    """Return each check by its name, and whether it needs a GPU. bench: small models; real: models that are timed"""
    found: dict[str, tuple[bool, Check]] = {"facts": (False, partial(facts, device))}
    for family in FAMILIES:
        for precision in ("32-true", "bf16-mixed"):
            found[f"gradients, {family}, {precision}"] = (
                False, partial(numbers.gradients, bench, device, family, precision))
        for name, beam_size in (("greedy", 1), ("beam", 4)):
            found[f"{name}, {family}"] = False, partial(numbers.search, bench, device, family, beam_size)
        found[f"waits, {family}"] = True, partial(numbers.waits, bench, device, family, "bf16-mixed")
    count = 3 if toys else numbers.UPDATES
    for family in PLAIN:
        for precision in ("32-true", "bf16-mixed"):
            found[f"training, {family}, {precision}"] = (
                False, partial(numbers.training, bench, device, family, precision, count))
    repeats = 2 if toys else 20
    found |= {"attention kernels": (False, partial(speed.attention, device, repeats)),
              "AdamW": (False, partial(speed.optimizers, real, device, repeats)),
              "copies": (True, partial(speed.copies, device)),
              "NVML": (True, partial(nvml, device))}
    for family in PLAIN:
        for precision in ("32-true", "bf16-mixed"):
            found[f"update, {family}, {precision}"] = (
                False, partial(speed.step, real, device, family, precision, 2 if toys else 20))
        for name, beam_size in (("greedy", 1), ("beam 5", 5)):
            found[f"{name} speed, {family}"] = False, partial(speed.decoding, real, device, family, beam_size)
    return found


def run(name: str, check: Check) -> Row:
    """Run one check, and return its outcome even if it raises an error."""
    began = perf_counter()
    try:
        text, values = check()
        status = "ok"
    except Exception as error:
        status, text, values = "failed", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", {}
    return Row(name, status, text, round(perf_counter() - began, 2), values)


def main(argv: list[str] | None = None) -> int:
    """Run the checks that this machine allows, print a line each, and write all outcomes as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: without a GPU, on toys")
    parser.add_argument("--only", default="", metavar="WORD", help="only checks with this in their name")
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"), help="file for all values (%(default)s)")
    args = parser.parse_args(argv)
    console, device = Console(sys.stdout), torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        names = checks(None, None, device, toys=True)  # type: ignore[arg-type]  # only for the names
        console.line("torch sees no GPU here, so this is unseen:")
        console.line("\n".join(f"  {name}" for name in names if args.only in name))
        return 0
    toys = device.type == "cpu"
    console.line("generating text ...")
    bench = workbench(*TOY, sentences=4 if toys else 64)
    real = bench if toys else workbench(*REAL, sentences=256)
    found = {name: check for name, check in checks(bench, real, device, toys).items() if args.only in name}
    rows, eta = list[Row](), Eta(len(found))
    for name, (needs_gpu, check) in found.items():
        console.live(f"[{len(rows) + 1}/{len(found)}] {name} ...{eta(len(rows))}")
        rows.append(Row(name, "unseen", "needs a GPU", 0.0, {}) if toys and needs_gpu else run(name, check))
        console.line(f"{rows[-1].status:7} {name:44} {rows[-1].text}")
    args.out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    failed = [row.check for row in rows if row.status == "failed"]
    console.line(f"{len(rows)} checks in {duration(monotonic() - eta.began)}, {len(failed)} failed; {args.out}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
