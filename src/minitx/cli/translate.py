"""`minitx translate`: lines in, lines out, as they arrive."""

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minitx import load
from minitx.cli.arguments import add_output, add_runs, add_search, positive, search_options
from minitx.cli.progress import Meter
from minitx.cli.streams import created, encode_line, size_bytes
from minitx.data.lines import arriving_lines, decode_line, open_text
from minitx.training.process import uncollected
from minitx.utils.console import Console
from minitx.utils.errors import Exit, UserError

if TYPE_CHECKING:
    from minitx.data.source_text import SourceText
    from minitx.decoding.translator import Progress, Translator, Warn

SHOWN = 3  # words of a line in a hint
HELP = "translate lines"
DESCRIPTION = ("Translate line by line: as many lines out as in, in order. A line is translated as soon as it arrives, "
               "so another program can send one and wait for the answer.")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("-i", "--input", type=Path, metavar="FILE",
                        help="UTF-8 text, which may be gzipped (default: standard input)")
    parser.add_argument("--n-best", type=positive, metavar="N",
                        help="write up to N lines for each: line number, score, translation, tab-separated")
    add_runs(parser)
    add_output(parser, "translations go (default: standard output)")
    add_search(parser)


def run(args: argparse.Namespace) -> int:
    """Translate until the input ends."""
    console = Console()
    name = "standard input" if args.input is None else str(args.input)
    with open_text(args.input) as source, created(args.output, args.input) as sink:
        with uncollected():
            translator = load(args.models, args.device, args.precision)
        from minitx.data.source_text import SourceText  # imports tokenizers, as loading a run does

        source_text = SourceText.read(args.models[0])
        if args.n_best and args.n_best > (args.beam_size or translator.decode.beam_size):
            raise UserError(f"--n-best={args.n_best} is more than the beam holds: add --beam-size={args.n_best}")
        if source.isatty():
            console.line("one sentence a line; Ctrl-D ends")
        first, n_bytes = 1, size_bytes(source)
        meter = Meter(console, n_bytes, quiet=sink.isatty())
        for block in arriving_lines(source, name):
            def warn(row: int, what: str, first: int = first) -> None:
                console.line(f"minitx: warning: line {first + row}: {what}")

            meter.next_block(first - 1, source.tell() if n_bytes else 0)
            lines = [decode_line(line, partial(warn, row)) for row, line in enumerate(block)]
            if source_text is not None and (hint := _strange_line(source_text, translator, lines, first)):
                console.line(hint)
                source_text = None  # said once
            for text in _outputs(translator, lines, first, args, meter, warn):
                sink.write(encode_line(text))
            sink.flush()
            first += len(block)
        meter.close()
    return Exit.OK


def _strange_line(source_text: "SourceText", translator: "Translator", lines: list[str], first: int) -> str | None:
    """Return a hint at the first line that is unlike the run's text, if any is. first: the first line's number"""
    tokenizer = translator.tokenizers.src
    for number, ids in enumerate(tokenizer.encode_batch(lines), first):
        if words := source_text.strange_words(ids, tokenizer):
            more = ", ..." if len(words) > SHOWN else ""
            return (f"minitx: hint: line {number}: its words are unlike those of the text that this run learned from "
                    f"({', '.join(words[:SHOWN])}{more}), so its translation may be nonsense; said once")
    return None


def _outputs(translator: "Translator", lines: list[str], first: int, args: argparse.Namespace, progress: "Progress",
             warn: "Warn") -> Iterator[str]:
    """Yield the output lines for `lines`, of which the first has the number `first`."""
    options: dict[str, Any] = {**search_options(args), "progress": progress, "warn": warn}
    if args.n_best:
        for row, best in enumerate(translator.n_best(lines, args.n_best, **options)):
            yield from (f"{first + row}\t{found.score:.4f}\t{found.text}" for found in best)
    else:
        yield from translator.translate(lines, **options)
