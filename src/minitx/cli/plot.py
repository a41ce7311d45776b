"""`minitx plot`: how runs learned."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minitx.cli.streams import created
from minitx.runs.overview import find_runs
from minitx.utils.console import Console
from minitx.utils.errors import Exit, UserError

if TYPE_CHECKING:
    from minitx.experiments.reports.curves import Curve

HELP = "draw how runs learned: BLEU and loss against time and steps"
DESCRIPTION = ("Draw the BLEU and the loss of every validation against minutes of training and against updates. Runs "
               "that differ in nothing but the seed share a colour: a thin line each, and a thick one for their mean. "
               "Needs the extra `report`.")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directory, or a folder of runs")
    parser.add_argument("-o", "--output", type=Path, default=Path("curves.png"), metavar="FILE",
                        help="the picture, as .png or .svg (default: curves.png)")


def run(args: argparse.Namespace) -> int:
    """Read the runs, and draw their curves."""
    from minitx.experiments.reports.plots import FORMS, require_matplotlib

    form = args.output.suffix.removeprefix(".")
    if form not in FORMS:
        raise UserError(f"--output={args.output}: draws SVG and PNG; name a file that ends in .svg or .png")
    require_matplotlib()
    from minitx.experiments.reports.curves import learning_curves

    console = Console()
    systems = find_systems(args.runs, console)
    with created(args.output) as picture:
        console.live("drawing ...")
        picture.write(learning_curves(systems, form=form))
    console.clear()
    print(f"{args.output}: written, of {', '.join(systems)}")
    return Exit.OK


def find_systems(folders: Sequence[Path], console: Console) -> "dict[str, list[Curve]]":
    """Return the curves of the runs in these folders by system, and say which run has none yet.

    Errors: `UserError` if none of them was validated.
    """
    from minitx.experiments.reports.curves import curves_by_system

    runs, notes = find_runs(folders, console)
    systems, without = curves_by_system(runs)
    notes += [f"{run.path}: was not validated yet, so there is nothing to draw of it" for run in without]
    for note in notes:
        console.warn(note)
    if not systems:
        raise UserError(f"{', '.join(map(str, folders))}: no run was validated yet; trainer.valid_every_n_steps says "
                        "when that happens")
    return systems
