"""`minitx translate`: lines in, lines out, as they come."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minitx import load
from minitx.cli.arguments import add_output, add_run, add_search, positive, search_options
from minitx.cli.progress import Meter
from minitx.cli.streams import arriving, created, decoded, encoded, opened, size
from minitx.utils.console import Console
from minitx.utils.errors import Exit, UserError

if TYPE_CHECKING:
    from minitx.decoding.translator import Progress, Translator, Warn

HELP = "translate lines"
DESCRIPTION = ("Translate line by line: as many lines out as in, in order. Waits for no more input than has arrived, "
               "so it can be talked to.")


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("-i", "--input", type=Path, metavar="FILE", help="UTF-8 text (default: standard input)")
    parser.add_argument("--n-best", type=positive, metavar="N",
                        help="write up to N lines for each: line number, score, translation, tab-separated")
    add_run(parser)
    add_output(parser, "translations go (default: standard output)")
    add_search(parser)


def run(args: argparse.Namespace) -> int:
    """Translate until the input ends."""
    console = Console()
    with opened(args.input) as source, created(args.output, args.input) as sink:
        translator = load(args.model, args.device, args.precision)
        if args.n_best and args.n_best > (args.beam_size or translator.decode.beam_size):
            raise UserError(f"--n-best={args.n_best} is more than the beam holds: add --beam-size={args.n_best}")
        if source.isatty():
            console.line("one sentence a line; Ctrl-D ends")
        meter = Meter(console, size(source), quiet=sink.isatty())
        for first, block, n_bytes in arriving(source):
            def warn(row: int, what: str, first: int = first) -> None:
                console.line(f"minitx: warning: line {first + row}: {what}")

            meter.next_block(first - 1, n_bytes)
            lines = [decoded(row, line, warn) for row, line in enumerate(block)]
            for text in _outputs(translator, lines, first, args, meter, warn):
                sink.write(encoded(text))
            sink.flush()
        meter.close()
    return Exit.OK


def _outputs(translator: "Translator", lines: list[str], first: int, args: argparse.Namespace, progress: "Progress",
             warn: "Warn") -> Iterator[str]:
    """Yield what is to be written for line `first` and on."""
    options: dict[str, Any] = {**search_options(args), "progress": progress, "warn": warn}
    if args.n_best:
        for row, best in enumerate(translator.n_best(lines, args.n_best, **options)):
            yield from (f"{first + row}\t{found.score:.4f}\t{found.text}" for found in best)
    else:
        yield from translator.translate(lines, **options)
