"""`minitx suite`: several systems, several seeds, one table."""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from minitx.cli.arguments import add_gpu, add_json
from minitx.cli.streams import reader_may_leave
from minitx.utils.console import Console, show_warnings
from minitx.utils.errors import UserError
from minitx.utils.progress import Progress
from minitx.utils.tables import aligned

if TYPE_CHECKING:
    from minitx.experiments.suites.suite import Job
    from minitx.profiling.devices import Device

HELP = "train a list of systems, each with several seeds, and compare them"
DESCRIPTION = ("Train every system of a suite with every seed, one after the other, each in a process of its own. "
               "Finished runs are skipped and interrupted ones continue: repeat the command until all is done.")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("name", metavar="NAME", help="a file of conf/suite")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="for each of its runs, as after minitx train")
    parser.add_argument("--size", default="smoke", help="smoke (default): minutes; small: hours on a CPU; full: GPUs")
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="where runs are kept (default: runs/NAME-SIZE)")
    parser.add_argument("--publish", action="store_true",
                        help="publish each run in the ledger as it ends; what is there is not trained again")
    parser.add_argument("--ledger", type=Path, default=Path("results"), metavar="FOLDER",
                        help="folder of published rows (default: results)")
    parser.add_argument("--dry-run", action="store_true", help="list what would be trained, and how long it would take")
    parser.add_argument("--measure", action="store_true",
                        help="with --dry-run: train a few updates of each system of which nothing says how long it "
                             "takes, and tell; less than a minute each on a machine that is idle")
    add_gpu(parser, when="with --dry-run: ")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Train, or list what would be trained."""
    from minitx.experiments.reports.results import require_ledger
    from minitx.experiments.suites.measured import measure_updates
    from minitx.experiments.suites.suite import Suite, as_json, expected_s, load, plan
    from minitx.experiments.suites.summary import side_by_side, summary

    if args.json and args.on is not None:
        raise UserError("--on: is not part of the JSON; leave --json out")
    if args.gpus is not None and args.on is None:
        raise UserError(f"--gpus {args.gpus}: of which kind? Add --on")
    for name in ("json", "on", "measure"):
        if getattr(args, name) and not args.dry_run:
            raise UserError(f"--{name}: is about what would be trained; add --dry-run")
    if args.publish:
        require_ledger(args.ledger)
    folder = args.runs or Path("runs", f"{args.name}-{args.size}")
    jobs = load(args.name, args.size, folder, args.overrides)
    console = Console(every_s=60)
    suite = Suite(jobs, console, args.ledger if args.publish else None)
    if args.dry_run:
        unknown = [job for job in jobs if not suite.states[job].trained and expected_s(job, suite.states) is None]
        measured = measure_updates(unknown, console) if args.measure else {}
        print(as_json(jobs, suite.states, measured) if args.json else "\n".join(plan(jobs, suite.states, measured)))
        if args.on is not None:
            left = [job for job in jobs if not suite.states[job].trained]
            lines = list(elsewhere(left, args.on, args.gpus, console))
            console.clear()
            print("\n".join(lines))
        return 0
    with show_warnings(console):
        code = suite.run()
    with reader_may_leave():
        for text in chain(summary(jobs, suite.states, suite.ledger), side_by_side(jobs, suite.states)):
            print(text)
    return code


def elsewhere(jobs: "Sequence[Job]", device: "Device", gpus: int | None, console: Console) -> "Iterator[str]":
    """Yield what each run of a system should take of GPUs, and all runs together.

    gpus: for each run; None = as its config says
    """
    from minitx.experiments.prediction.speed import EXPECTED_ERROR  # imports torch and Lightning: seconds
    from minitx.experiments.prediction.training import SENTENCE, estimate

    runs, configs = Counter(job.system for job in jobs), {job.system: job.cfg for job in jobs}
    progress, hours = Progress(console, float(len(configs))), 0.0
    rows = [("  system", "runs", "GPUs", "parameters", "update ms", "tokens/s", "busy", "updates", "hours", "ended by")]
    for system, cfg in configs.items():
        found = estimate(cfg, device, gpus or cfg.trainer.devices)
        ends = ("-", "-") if found.hours is None else (f"{found.updates:,.0f}", f"{found.hours:,.2f}")
        rows.append((f"  {system}", str(runs[system]), str(found.speed.gpus), f"{found.work.params:,}",
                     f"{1e3 * found.speed.seconds:,.1f}", f"{found.speed.tgt_tokens_per_s:,.0f}",
                     f"{found.speed.surely_busy_pct:.0f} to {found.speed.busy_pct:.0f} %", *ends, found.ended_by))
        hours += runs[system] * found.speed.gpus * (found.hours or 0.0)
        progress(f"predicting: {system}")
    yield (f"predicted for {device.name}, to within {100 * EXPECTED_ERROR:.0f} % (a standard deviation): sentences of "
           f"{SENTENCE} tokens, updates alone, hours of one run; minitx estimate tells in what range")
    yield from aligned(rows, "<>>>>>>>><")
    yield f"  {hours:,.1f} GPU-hours in all" + (", besides those of runs without an end" * ("-" in chain(*rows)))
