"""`minitx attention`: what a model attends to while it translates a sentence."""

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from minitx import load
from minitx.cli.arguments import add_output, add_run
from minitx.cli.streams import created
from minitx.training.process import uncollected
from minitx.utils.console import Console, show_warnings
from minitx.utils.errors import Exit, UserError
from minitx.utils.tables import aligned

if TYPE_CHECKING:
    from minitx.evaluation.attention_maps import AttentionMaps

HELP = "show what a model attends to while it translates a sentence"
DESCRIPTION = ("Read a sentence and its translation as in training, and show the attention of every head. Without -o "
               "and --plot, print one line per token of the translation: the token of the sentence that it attends to "
               "most, and the weight (0 to 1, a mean over layers and heads).")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_run(parser)
    parser.add_argument("sentence", metavar="SENTENCE", help="a sentence of the run's source language")
    parser.add_argument("--target", metavar="SENTENCE", help="its translation (default: the model's own)")
    add_output(parser, "all weights go as JSON (as in results/attention)")
    parser.add_argument("--plot", type=Path, metavar="FILE",
                        help="draw every head, as .svg or .png; needs the extra `report`")


def run(args: argparse.Namespace) -> int:
    """Translate the sentence unless a translation is given, and write its attention as a file, a plot or a table."""
    if args.plot is not None:
        from minitx.experiments.reports.plots import FORMS, require_matplotlib

        if args.plot.suffix.removeprefix(".") not in FORMS:
            raise UserError(f"--plot {args.plot}: draws SVG and PNG; name a file that ends in .svg or .png")
        require_matplotlib()
    console = Console()
    with ExitStack() as stack:
        stack.enter_context(show_warnings(console))
        output, plot = (path and stack.enter_context(created(path)) for path in (args.output, args.plot))
        maps = _attention(args, console)
        if output:
            output.write(maps.json().encode())
        if plot:
            from minitx.experiments.reports.figures import attention_map

            plot.write(attention_map(maps, form=args.plot.suffix.removeprefix(".")))
        if not output and not plot:
            stack.enter_context(created(None)).write("".join(f"{line}\n" for line in _table(maps)).encode())
    return Exit.OK


def _attention(args: argparse.Namespace, console: Console) -> "AttentionMaps":
    """Return the attention maps of a run. Errors: `UserError` if its model has no attention."""
    with uncollected():
        translator = load(args.model, args.device)

    from minitx.config.saved import read_config
    from minitx.evaluation.attention import attention_maps  # torch, imported by now

    cfg = read_config(args.model)
    maps = attention_maps(translator, cfg, args.sentence, args.target,
                          warn=lambda _, what: console.warn(f"the sentence has {what}"))
    if maps is None:
        raise UserError(f"{args.model}: model={cfg.choices.model} has no attention, so there are no weights to show")
    return maps


def _table(maps: "AttentionMaps") -> list[str]:
    """Return the alignment as lines. Errors: `UserError` for a model whose decoder does not attend to the source."""
    if "cross" not in maps.weights:
        raise UserError("this model's decoder does not attend to the sentence; see all of its attention with -o FILE")
    return aligned([(token, source, f"{weight:.2f}") for token, source, weight in maps.alignment()], "<<>")
