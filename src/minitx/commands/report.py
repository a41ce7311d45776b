"""`minitx report`: runs into the ledger, and README's tables from it."""

import argparse
from pathlib import Path

from minitx.errors import Exit

HELP = "publish runs, and write README's tables from the ledger"
DESCRIPTION = "Copy finished runs into the ledger, then write README's tables from it."


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="run directories to add to the ledger")
    parser.add_argument("--ledger", type=Path, default=Path("results"), metavar="FOLDER", help="default: results")
    parser.add_argument("--readme", type=Path, default=Path("README.md"), metavar="FILE", help="default: README.md")


def run(args: argparse.Namespace) -> int:
    """Hand over to the suite."""
    from minitx.suites.report import main as report

    report(args.ledger, args.readme, args.runs)
    return Exit.OK
