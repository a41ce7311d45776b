"""`minitx report`: publish runs in the ledger; write from it the tables of README and docs/, a page and figures."""

import argparse
from pathlib import Path

from minitx.utils.console import Console
from minitx.utils.errors import Exit, UserError

HELP = "publish runs, and write tables, figures and a page from the ledger"
DESCRIPTION = ("Copy finished runs into the ledger, then write the tables of README and docs/ from it. Or make a page: "
               "of all that the ledger holds, or of the runs that are named, which need not be published.")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN",
                        help="run directories to add to the ledger or, with --page or --figures, to show there")
    parser.add_argument("--ledger", type=Path, default=Path("results"), metavar="FOLDER",
                        help="folder of published rows (default: results)")
    parser.add_argument("--repeat", metavar="ROW",
                        help="only print the command that repeats this row: on such a CPU to the bit")
    parser.add_argument("--page", type=Path, metavar="FILE.html",
                        help="only write a page with tables and figures, of the runs that are named or else of the "
                             "ledger; needs the extra `report`")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="only write the figures of that page, as PNG")
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
        from minitx.experiments.reports.own_page import write_own_page
        from minitx.experiments.reports.page import write_page
        from minitx.experiments.reports.plots import require_matplotlib

        require_matplotlib()
        if args.runs:
            write_own_page(args.runs, args.page, args.figures, Console())
        else:
            write_page(args.ledger, args.page, args.figures, Console())
        return Exit.OK
    report(args.ledger, args.readme, args.runs)
    return Exit.OK
