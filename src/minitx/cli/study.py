"""`minitx study`: what is said of recurrence, attention and size, measured so that it may turn out not to hold."""

import argparse
import json
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from minitx.cli.arguments import add_json
from minitx.cli.prepare import check_plot, compose_families, prepare_process
from minitx.cli.streams import created
from minitx.config.fields import nearest
from minitx.runs.result import DISTURBED_PCT
from minitx.utils.console import Console, warnings_told
from minitx.utils.errors import Exit
from minitx.utils.tables import aligned

if TYPE_CHECKING:
    from minitx.experiments.studies.common import Study

HELP = "measure what is said of recurrence, attention and size, and say whether it holds"
DESCRIPTION = ("Measure one question on this machine, on the embedded text or on sentences that are made up, and hold "
               "what is said of it against the figures. Minutes at size smoke, longer at size full; nothing is kept "
               "but what is asked for, and encoded text in the cache. docs/studies.md has formulas, and how to read "
               "each figure.")


class Question(NamedTuple):
    """Say what a study asks, and the words of train.py that its configs are composed of."""

    asks: str
    words: tuple[str, ...]


STUDIES = {
    "lengths": Question("what a sentence costs as it grows: time, memory, operators that wait for one another",
                        ("model=transformer,lstm_attention,lstm",)),
    "gradients": Question("how much of a gradient comes back to a token far behind",
                          ("model=lstm,transformer", "trainer.precision=32-true")),
    "retention": Question("how much of the first token a final state still holds",
                          ("model=lstm,transformer", "trainer.precision=32-true")),
    "scaling-law": Question("how the loss falls with size and with text", ("model=transformer",)),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    asks = "; ".join(f"{name}: {question.asks}" for name, question in STUDIES.items())
    parser.add_argument("name", metavar="NAME", type=known, help=asks)
    parser.add_argument("--size", choices=("smoke", "full"), default="smoke", help="how much is measured (smoke)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="the first of its seeds (1)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="also write all that was measured")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="also draw it; needs the extra `report`")
    add_json(parser)


def known(text: str) -> str:
    """Return the name of a study."""
    if text not in STUDIES:
        raise argparse.ArgumentTypeError(f"{text}: no such study{nearest(text, STUDIES)} ({', '.join(STUDIES)})")
    return text


def run(args: argparse.Namespace) -> int:
    """Compose what is compared, measure, and show, store and draw what was found."""
    from minitx.experiments.reports.study_plots import FIGURES

    check_plot(args.plot)
    families = compose_families([*STUDIES[args.name].words, f"seed={args.seed}"])
    prepare_process(next(iter(families.values())), args.owns_process)
    from minitx.experiments.studies.common import run_study  # imports torch and Lightning: seconds

    study = cast("Study", import_module(f"minitx.experiments.studies.{args.name.replace('-', '_')}"))
    console = Console()
    plotted, stored = (created(path) if path else nullcontext() for path in (args.plot, args.output))
    with warnings_told(console), created(None) as sink, plotted as plot:
        with stored as output:  # complete and closed before anything else can fail
            found = {"study": args.name, **run_study(study, families, args.size, console)}
            text = json.dumps(found, indent=1).encode() + b"\n"
            if output:
                output.write(text)
        console.clear()
        lines = [*header(found), "", *study.table(found), "", *verdicts(found["claims"])]
        sink.write(text if args.json else "".join(f"{line}\n" for line in lines).encode())
        if plot:
            plot.write(FIGURES[args.name](found))
    return Exit.OK


def header(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the conditions that a person asks for first."""
    conditions, other = found["conditions"], found["conditions"]["other_cpu_pct"]
    yield (f"{found['study']}, size {found['size']}: {conditions['device']}, {conditions['threads']} threads, "
           f"{conditions['precision']}, seed {conditions['seed']}, {conditions['took_s']:.0f} s")
    if other is not None and other > DISTURBED_PCT:
        yield f"disturbed: other processes took {other:.0f} % of the cores; measure times anew on a quiet machine"


def verdicts(claims: list[dict[str, Any]]) -> list[str]:
    """Return two lines a claim: whether it holds; what was asked, what was measured, and why that decides it."""
    from minitx.experiments.fits import VERDICTS

    rows = list[tuple[str, str]]()
    for claim in claims:
        rows.append((VERDICTS[claim["holds"]], claim["claim"]))
        rows.append(("", f"asked {claim['expected']}; measured {claim['measured']}; {claim['why']}"))
    return aligned(rows, "<")
