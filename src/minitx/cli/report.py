"""`minitx report`: publish runs in the ledger; write from it the tables of README and docs/, a page and figures."""

import argparse
from pathlib import Path

from minitx.utils.errors import Exit, UserError

HELP = "publish runs, and write tables, figures and a page from the ledger"
DESCRIPTION = ("Copy finished runs into the ledger, then write the tables of README and docs/ from it; or a page of "
               "all that it holds.")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="run directories to add to the ledger")
    parser.add_argument("--ledger", type=Path, default=Path("results"), metavar="FOLDER",
                        help="folder of published rows (default: results)")
    parser.add_argument("--repeat", metavar="ROW",
                        help="only print the command that repeats this row: on such a CPU to the bit")
    parser.add_argument("--page", type=Path, metavar="FILE.html",
                        help="only write one page with all tables and figures; needs the extra `report`")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="only write those figures, as PNG")
    parser.add_argument("--readme", type=Path, default=Path("README.md"), metavar="FILE", help="default: README.md")


def run(args: argparse.Namespace) -> int:
    """Print a command, write a page or figures, or publish runs and write tables."""
    from minitx.experiments.reports.command_line import exact_command
    from minitx.experiments.reports.markdown import report
    from minitx.experiments.reports.results import find_row

    if args.repeat is not None:
        if args.runs or args.page or args.figures:
            raise UserError("--repeat: only prints a command; leave out run directories, --page and --figures")
        row = find_row(args.repeat, args.ledger)
        print(exact_command(row.command, row.result))
        return Exit.OK
    if args.page is not None or args.figures is not None:
        from minitx.experiments.reports.page import write_page

        if args.runs:
            raise UserError(f"{args.runs[0]}: publish it first, without --page and --figures, which show what is in "
                            f"{args.ledger}")
        write_page(args.ledger, args.page, args.figures)
        return Exit.OK
    report(args.ledger, args.readme, args.runs)
    return Exit.OK
