"""`minitx suite`: several systems, several seeds, one table."""

import argparse
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from minitx.cli.arguments import add_json, positive_number, share
from minitx.cli.streams import reader_may_leave
from minitx.utils.console import Console, show_warnings
from minitx.utils.errors import UserError
from minitx.utils.tables import aligned

if TYPE_CHECKING:
    from minitx.experiments.suites.suite import Job

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
    parser.add_argument("--on", type=positive_number, metavar="TFLOPS",
                        help="with --dry-run: what it would take of a device with this peak (an H100: 989 in bf16)")
    parser.add_argument("--mfu", type=share, default=30.0, metavar="PCT",
                        help="the share of that peak that does useful work (30)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Train, or list what would be trained."""
    from minitx.experiments.reports.results import require_ledger
    from minitx.experiments.suites.measured import measure_updates
    from minitx.experiments.suites.suite import Suite, as_json, expected_s, load, plan
    from minitx.experiments.suites.summary import side_by_side, summary

    if args.json and args.on is not None:
        raise UserError("--on: is not part of the JSON; leave --json out")
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
            print("\n".join(elsewhere([job for job in jobs if not suite.states[job].trained], args.on, args.mfu)))
        return 0
    with show_warnings(console):
        code = suite.run()
    with reader_may_leave():
        for text in chain(summary(jobs, suite.states, suite.ledger), side_by_side(jobs, suite.states)):
            print(text)
    return code


def elsewhere(jobs: "Sequence[Job]", tflops: float, mfu_pct: float) -> "Iterator[str]":
    """Yield what each run would take of a device of that peak, and all of them together."""
    from minitx.experiments.costs.estimate import SENTENCE, estimate  # imports torch: seconds

    rows, total = list[tuple[str, ...]](), 0.0
    yield f"by arithmetic, on a device of {tflops:g} TFLOP/s of which {mfu_pct:g} % do useful work:"
    for job in jobs:
        found = estimate(job.cfg)
        hours = found.hours(tflops, mfu_pct)
        total += hours or 0.0
        work = "limited by time" if hours is None else f"{found.flop:.2g} operations, {hours:,.1f} hours"
        rows.append((f"  {job.system}", str(job.cfg.seed), f"{found.params:,} parameters", work))
    yield from aligned(rows, "<>><")
    if total:
        yield f"  {total:,.0f} device-hours in all; sentences of {SENTENCE} tokens, updates alone"
