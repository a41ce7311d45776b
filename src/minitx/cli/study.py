"""`minitx study`: common claims about recurrence, attention and size, tested by measurements that may refute them."""

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
from minitx.runs.result import disturbance
from minitx.utils.console import Console, counted, show_warnings
from minitx.utils.errors import Exit
from minitx.utils.tables import aligned

if TYPE_CHECKING:
    from minitx.experiments.studies.common import Study

HELP = "test common claims about recurrence, attention and size by measurement"
DESCRIPTION = ("Measure one question on this machine, on the embedded text or on random sentences, and decide which "
               "common claims hold. Takes minutes at size smoke, longer at size full. Only the files named here and "
               "the cache are written. docs/studies.md has the formulas, and how to read each figure.")


class Question(NamedTuple):
    """What a study asks, and the arguments of train.py for its configs."""

    asks: str
    overrides: tuple[str, ...]


STUDIES = {
    "lengths": Question("what a sentence costs as it grows: time, memory, operators that wait for one another",
                        ("model=transformer,transformer_window,linear_rnn_attention,linear_rnn,lstm_attention,lstm",)),
    "memory": Question("what a training step holds, by length, by layers, and by how attention is computed: all of it "
                       "stored, in blocks, within a window, recomputed",
                       ("model=transformer,lstm,linear_rnn", "trainer.accelerator=cpu", "trainer.precision=32-true")),
    "decoding": Question("what the next token costs, the longer the translation is already: time, and bytes carried",
                         ("model=transformer,transformer_window,linear_rnn_attention,linear_rnn,lstm_attention,lstm",)),
    "gradients": Question("how much of a gradient comes back to a token far behind",
                          ("model=lstm,linear_rnn_attention,transformer", "trainer.precision=32-true")),
    "retention": Question("how much of the first token a final state still holds",
                          ("model=lstm,linear_rnn_attention,transformer", "trainer.precision=32-true")),
    "scaling-law": Question("how the loss falls with size and with text",
                            ("experiment=synthetic", "model=transformer")),
    "scan": Question("what waiting for one another costs, and what a scan and attention cost instead",
                     ("model=transformer", "trainer.precision=32-true")),
    "gpu": Question("how busy a GPU is with each family, and how soon it reaches a BLEU: predicted, and the "
                    "predictions tested on what others published", ("model=transformer", "trainer.accelerator=cpu")),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    asks = "; ".join(f"{name}: {question.asks}" for name, question in STUDIES.items())
    parser.add_argument("name", metavar="NAME", type=study_name, help=asks)
    parser.add_argument("--size", choices=("smoke", "full"), default="smoke", help="how much is measured (smoke)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="the first of its seeds (1)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="also write all measurements")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="also draw it; needs the extra `report`")
    add_json(parser)


def study_name(text: str) -> str:
    """Return the name of a study. Errors: `argparse.ArgumentTypeError` if there is none"""
    if text not in STUDIES:
        raise argparse.ArgumentTypeError(f"{text}: no such study{nearest(text, STUDIES)} ({', '.join(STUDIES)})")
    return text


def run(args: argparse.Namespace) -> int:
    """Measure one study, and show, store and draw the results."""
    from minitx.experiments.reports.study_plots import FIGURES

    check_plot(args.plot)
    families = compose_families([*STUDIES[args.name].overrides, f"seed={args.seed}"])
    prepare_process(next(iter(families.values())))
    from minitx.experiments.studies.common import run_study  # imports torch and Lightning: seconds

    study = cast("Study", import_module(f"minitx.experiments.studies.{args.name.replace('-', '_')}"))
    console = Console()
    plotted, stored = (created(path) if path else nullcontext() for path in (args.plot, args.output))
    with show_warnings(console), created(None) as sink, plotted as plot:
        with stored as output:  # complete and closed before anything else can fail
            results = {"study": args.name, **run_study(study, families, args.size, console)}
            text = json.dumps(results, indent=1).encode() + b"\n"
            if output:
                output.write(text)
        console.clear()
        lines = [*header(results), "", *study.table(results), "", *verdicts(results["claims"])]
        if plot:
            plot.write(FIGURES[args.name](results))
        sink.write(text if args.json else "".join(f"{line}\n" for line in lines).encode())
    return Exit.OK


def header(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the main conditions, and whether other programs disturbed the measurement."""
    conditions = results["conditions"]
    yield (f"{results['study']}, size {results['size']}: {conditions['device']}, "
           f"{counted(conditions['threads'], 'thread')}, {conditions['precision']}, "
           f"seed {conditions['seed']}, {conditions['took_s']:.0f} s")
    if (others := disturbance(conditions["other_cpu_pct"])) is not None:
        yield f"disturbed: {others}; measure times again on a quiet machine"


def verdicts(claims: list[dict[str, Any]]) -> list[str]:
    """Return two lines a claim: whether it holds; what was asked, what was measured, and why that decides it."""
    from minitx.experiments.fits import VERDICTS

    rows = list[tuple[str, str]]()
    for claim in claims:
        rows.append((VERDICTS[claim["holds"]], claim["claim"]))
        predicted = f"predicted {claim['predicted']}; " if claim.get("predicted") else ""
        rows.append(("", f"asked {claim['expected']}; {predicted}measured {claim['measured']}; {claim['why']}"))
    return aligned(rows, "<")
