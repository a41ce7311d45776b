"""`minitx translate`: lines in, lines out, as they arrive."""

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minitx import load
from minitx.cli.arguments import add_output, add_runs, add_search, positive, positive_number, search_options, whole
from minitx.cli.progress import Meter
from minitx.cli.streams import created, encode_line, size_bytes
from minitx.data.lines import arriving_lines, decode_line, open_text, read_lines
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
    parser.add_argument("--prefix-file", type=Path, metavar="FILE",
                        help="what each translation begins with: a line for each of the input, blank = anything")
    parser.add_argument("--no-repeat-ngram", type=positive, metavar="N",
                        help="write no sequence of N tokens twice in a line (default: it may be)")
    parser.add_argument("--sample", action="store_true",
                        help="draw each token from the model's probabilities, instead of searching for the likeliest")
    parser.add_argument("--temperature", type=positive_number, metavar="T",
                        help="of --sample: below 1 sharpens the probabilities, above 1 flattens them (default: 1)")
    parser.add_argument("--top-k", type=positive, metavar="K",
                        help="of --sample: draw from the K likeliest tokens alone (default: from all)")
    parser.add_argument("--seed", type=whole, metavar="N",
                        help="of --sample: the same draws for the same line number again (default: 0)")
    parser.add_argument("--split", choices=("long", "always", "never"), default="long",
                        help="which lines are split into sentences that are translated one by one: those longer than "
                             "the model reads (default), all, or none, and what is too long is cut")
    parser.add_argument("--align", action="store_true",
                        help="add a tab and which words of the line and of its translation belong together, from 0: "
                             "0-0 1-2; needs a run whose decoder attends to the source")
    add_runs(parser)
    add_output(parser, "translations go (default: standard output)")
    add_search(parser)


def run(args: argparse.Namespace) -> int:
    """Translate until the input ends."""
    _check(args)
    console = Console()
    name = "standard input" if args.input is None else str(args.input)
    with open_text(args.input) as source, created(args.output, args.input, args.prefix_file) as sink:
        with uncollected():
            translator = load(args.models, args.device, args.precision)
        from minitx.data.source_text import SourceText  # imports tokenizers, as loading a run does

        if args.align:
            from minitx.decoding.alignment import cross_heads

            cross_heads(translator)  # or a refusal, before anything is translated

        source_text = SourceText.read(args.models[0])
        if args.n_best and args.n_best > (args.beam_size or translator.decode.beam_size):
            raise UserError(f"--n-best={args.n_best} is more than the beam holds: add --beam-size={args.n_best}")
        if source.isatty():
            console.line("one sentence a line; Ctrl-D ends")
        prefixes = None if args.prefix_file is None else read_lines(args.prefix_file)
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
            begins = None if prefixes is None else _prefixes(prefixes, args.prefix_file, first, len(lines))
            for text in _outputs(translator, lines, begins, first, args, meter, warn):
                sink.write(encode_line(text))
            sink.flush()
            first += len(block)
        meter.close()
        if prefixes is not None and len(prefixes) >= first:
            raise UserError(f"{args.prefix_file}: has {len(prefixes):,} lines, {name} has {first - 1:,}; it needs one "
                            "for each", Exit.DATA)
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


def _check(args: argparse.Namespace) -> None:
    """Refuse options that contradict each other, before anything is loaded. Errors: `UserError`"""
    for name in ("temperature", "top_k", "seed"):
        if getattr(args, name) is not None and not args.sample:
            raise UserError(f"--{name.replace('_', '-')}: says how tokens are drawn; add --sample")
    for name in ("n_best", "beam_size", "length_penalty"):
        if args.sample and getattr(args, name) is not None:
            raise UserError(f"--sample: draws one translation a line; leave --{name.replace('_', '-')} out")
    if args.align and args.n_best:
        raise UserError("--align: aligns one translation a line; leave --n-best out")


def _prefixes(prefixes: list[str], path: Path, first: int, count: int) -> list[str]:
    """Return the prefixes of `count` lines from number `first` on. Errors: `UserError` if there are fewer"""
    if len(prefixes) < first + count - 1:
        raise UserError(f"{path}: has {len(prefixes):,} lines, and line {len(prefixes) + 1:,} of the input has no "
                        "prefix; a blank line means none", Exit.DATA)
    return prefixes[first - 1:first + count - 1]


def _outputs(translator: "Translator", lines: list[str], prefixes: list[str] | None, first: int,
             args: argparse.Namespace, progress: "Progress", warn: "Warn") -> Iterator[str]:
    """Yield the output lines for `lines`, of which the first has the number `first`."""
    options: dict[str, Any] = {"split": args.split, "progress": progress, "warn": warn}
    if prefixes is not None:
        options["prefixes"] = prefixes
    if args.no_repeat_ngram:
        options["no_repeat_ngram"] = args.no_repeat_ngram
    if args.n_best:
        for row, best in enumerate(translator.n_best(lines, args.n_best, **search_options(args), **options)):
            yield from (f"{first + row}\t{found.score:.4f}\t{found.text}" for found in best)
        return
    if args.sample:
        texts = translator.sample(lines, temperature=args.temperature or 1.0, top_k=args.top_k or 0,
                                  seed=args.seed or 0, first_line=first - 1, **options)
    else:
        texts = translator.translate(lines, **search_options(args), **options)
    if not args.align:
        yield from texts
        return
    from minitx.decoding.alignment import align, pharaoh  # torch, which is there by now

    for text, links in zip(texts, align(translator, lines, texts, warn=warn), strict=True):
        yield f"{text}\t{pharaoh(links)}"
