"""`minitx average`: a run whose weights are the mean of another run's newest checkpoints."""

import argparse
from pathlib import Path

from minitx.cli.arguments import add_run_dir, positive
from minitx.utils.console import Console
from minitx.utils.errors import Exit

HELP = "average the newest checkpoints into a new run"
DESCRIPTION = "Average the weights of RUN's newest checkpoints into a new run directory, to be used like any other."


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_run_dir(parser)
    parser.add_argument("--last", type=positive, metavar="N", required=True, help="how many of the newest checkpoints")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", required=True, help="a new or empty folder")


def run(args: argparse.Namespace) -> int:
    """Average, and say how to use it."""
    from minitx.runs.averaging import average_checkpoints

    console = Console()
    steps = average_checkpoints(args.model, args.last, args.output,
                                lambda done, total: console.live(f"read {done} of {total} checkpoints"), console.warn)
    console.line(f"{args.output}: the mean of steps {', '.join(f'{step:,}' for step in steps)}; "
                 f"try it: minitx translate {args.output}")
    return Exit.OK
