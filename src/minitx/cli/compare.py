"""`minitx compare`: is one system better than another, or could it be chance?"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from minitx.cli.arguments import add_json
from minitx.utils.errors import Exit
from minitx.utils.files import expand_home

HELP = "test whether two systems' BLEU differs by more than chance"
DESCRIPTION = ("Compare two systems on each test set that both were scored on: by paired bootstrap and by approximate "
               "randomisation, over sentences and, where there are several, seeds. A difference is significant if "
               "both p are below 0.05 and the 95 % interval leaves 0 out; a test is underpowered if it would miss "
               "half a BLEU more often than twice in ten.")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    for name in ("first", "second"):
        parser.add_argument(name, metavar=name.upper(), type=expand_home,
                            help="run directory, system (all its seeds) or row")
    parser.add_argument("--ledger", type=Path, default=Path("results"), metavar="FOLDER",
                        help="folder of published rows (default: results)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Compare and print."""
    from minitx.experiments.reports.comparison import as_text, compare_systems, find_system

    first, second = (find_system(name, args.ledger) for name in (args.first, args.second))
    comparisons = list(compare_systems(first, second))
    if args.json:
        sets = {test: asdict(result) | {"verdict": result.verdict} for test, result in comparisons}
        print(json.dumps({"systems": [first.name, second.name], "test": sets}, indent=1))
    else:
        print(as_text(first, second, comparisons))
    return Exit.OK
