"""`minitx runs`: a table of one's own runs."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from minitx.cli.arguments import add_json
from minitx.cli.streams import reader_may_leave
from minitx.runs.directory import RUNS
from minitx.runs.listing import about, chosen, differences, ordered, table
from minitx.runs.overview import RunOverview, find_runs
from minitx.utils.console import Console
from minitx.utils.errors import Exit
from minitx.utils.files import expand_home

HELP = "list runs: in what they differ, how far they are, what they scored"
DESCRIPTION = ("List the runs in folders, and in folders in these: BLEU, the settings in which they differ, seed, "
               "steps, minutes, and whether a run is finished, running, interrupted (resume=auto goes on with it), "
               "diverged, or failed before it had saved anything.")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("overrides", nargs="*", metavar="FOLDER | KEY=VALUE",
                        help="where to look (default: runs); only runs with this setting, or status=, test= ...; a "
                             "value may hold *")
    parser.add_argument("--sort", default="run", metavar="KEY",
                        help="run (default), seed, steps, valid, test (BLEU, the best first), minutes, status or any "
                             "setting")
    parser.add_argument("--reverse", action="store_true", help="the other way round")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Read the runs, and print the table or JSON."""
    console = Console()
    words = [expand_home(word) for word in args.overrides]
    folders = [Path(word) for word in words if "=" not in word or Path(word).is_dir()]
    conditions = [word for word in words if Path(word) not in folders]
    runs, notes = find_runs(folders or [RUNS], console)
    shown = ordered(chosen(runs, conditions), args.sort, args.reverse)
    with reader_may_leave():
        if args.json:
            print(json.dumps(as_json(shown), indent=1))
        elif shown:
            print("\n".join([*table(shown), "", about(shown)]))
    for note in notes:
        console.warn(note)
    if not shown:
        console.line(f"none of {len(runs):,} runs matches")
    return Exit.OK


def as_json(runs: Sequence[RunOverview]) -> list[dict[str, object]]:
    """Return what is known of each run, for programs."""
    return [{**asdict(run), "path": str(run.path), "minutes": run.minutes, "seed": run.seed, "differs_in": told}
            for run, told in zip(runs, differences(runs), strict=True)]
