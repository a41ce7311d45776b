"""`minitx compare`: is one system better than another, or could it be chance?"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from minitx.cli.arguments import add_json
from minitx.utils.console import Console
from minitx.utils.errors import Exit, UserError
from minitx.utils.files import expand_home

AGAINST = "against"
HELP = "test whether two systems' BLEU differs by more than chance"
DESCRIPTION = ("Compare two systems on each test set that both were scored on: by paired bootstrap and by approximate "
               "randomisation, over sentences and, where there are several, seeds. A difference is significant if "
               "both p are below 0.05 and the 95 % interval leaves 0 out; a test is underpowered if it would miss "
               "half a BLEU more often than twice in ten. Where both systems are below 1 BLEU, neither has learned to "
               "translate, and a difference means nothing. Several runs of one system, which differ in the seed, are "
               "put on one side: minitx compare runs/a1 runs/a2 against runs/b1 runs/b2 (or -- for against), or as "
               "quoted patterns: minitx compare 'runs/a*' 'runs/b*'. Where both sides have the same seeds, these are "
               "paired.")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("systems", nargs="+", metavar="SYSTEM", type=expand_home,
                        help="two of: run directory, pattern of run directories, published system (all its seeds) or "
                             "row; or two groups of run directories, with `against` between them")
    parser.add_argument("--ledger", type=Path, default=Path("results"), metavar="FOLDER",
                        help="folder of published rows (default: results)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Compare and print."""
    from minitx.experiments.reports.comparison import as_text, compare_systems, find_group

    warn = Console().warn
    first, second = (find_group(names, args.ledger, warn) for names in sides(args.systems))
    comparisons = list(compare_systems(first, second))
    if args.json:
        sets = {test: asdict(result) | {"verdict": result.verdict} for test, result in comparisons}
        print(json.dumps({"systems": [first.name, second.name], "seeds": [first.seeds, second.seeds], "test": sets},
                         indent=1))
    else:
        print(as_text(first, second, comparisons))
    return Exit.OK


def sides(systems: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Part what is compared into two sides. Errors: `UserError` where it is not clear which these are."""
    if AGAINST in systems:
        place = systems.index(AGAINST)
        first, second = systems[:place], systems[place + 1:]
        if first and second and AGAINST not in second:
            return first, second
    elif len(systems) == 2:
        return systems[:1], systems[1:]
    raise UserError(f"{' '.join(systems)}: name two systems, or two groups of runs: "
                    f"minitx compare runs/a1 runs/a2 {AGAINST} runs/b1 runs/b2")
