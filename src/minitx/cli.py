"""`minitx`: translate with a trained run, evaluate it, report on many. Heavy imports wait until they are needed."""

import argparse
import codecs
import json
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from math import inf, nan
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from minitx import __version__, load
from minitx.console import Console, duration
from minitx.errors import Exit, UserError

if TYPE_CHECKING:
    from minitx.decoding.translate import Progress, Translator, Warn

CHUNK_BYTES = 1 << 16  # about a thousand lines: enough to sort by length, few enough for output to begin soon
QUIET_S = 3.0  # shorter work needs no progress line


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line asks; return one of README's exit codes."""
    try:
        args = _parser().parse_args(argv)
        return int(args.run(args))
    except UserError as slip:
        print(f"minitx: error: {slip}", file=sys.stderr)
        return slip.code
    except BrokenPipeError:  # the reader, `head` for one, has what it wanted
        _drop_stdout()
        return Exit.OK
    except KeyboardInterrupt:
        return Exit.INTERRUPTED


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} ({self.prog} --help shows the usage)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="minitx", description="Use what `python train.py` has trained.")
    parser.add_argument("--version", action="version", version=f"minitx {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    translate = commands.add_parser(
        "translate", help="translate lines", description="Translate line by line: as many lines out as in, in order. "
        "Waits for no more input than has arrived, so it can be talked to.")
    translate.add_argument("-i", "--input", type=Path, metavar="FILE", help="UTF-8 text (default: standard input)")
    translate.add_argument("--n-best", type=_positive, metavar="N",
                           help="write up to N lines for each: line number, score, translation, tab-separated")
    translate.set_defaults(run=_translate)

    evaluate = commands.add_parser("evaluate", help="score translations of a file",
                                   description="Translate a file and score it with sacreBLEU: detokenised, cased, 13a.")
    evaluate.add_argument("--src", type=Path, metavar="FILE", required=True, help="source sentences, one a line")
    evaluate.add_argument("--ref", type=Path, metavar="FILE", required=True, help="their translations, one a line")
    evaluate.add_argument("--json", action="store_true", help="print JSON")
    evaluate.set_defaults(run=_evaluate)

    for command in (translate, evaluate):
        command.add_argument("model", metavar="RUN", type=Path, help="run directory that train.py wrote")
        command.add_argument("-o", "--output", type=Path, metavar="FILE", help="where translations go, all or nothing"
                             + (" (default: standard output)" if command is translate else ""))
        command.add_argument("--beam-size", type=_positive, metavar="K",
                             help="hypotheses a line, 1 = greedy (default: as the run)")
        command.add_argument("--length-penalty", type=_not_negative, metavar="A",
                             help="exponent of ((5 + length) / 6) ** A (default: as the run)")
        command.add_argument("--device", default="auto", help="cpu, cuda, or auto = a GPU if there is one (default)")

    report = commands.add_parser("report", help="publish runs, and write README's tables from the ledger")
    report.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="run directories to add to the ledger")
    report.add_argument("--ledger", type=Path, default=Path("results"), metavar="FOLDER", help="default: results")
    report.add_argument("--readme", type=Path, default=Path("README.md"), metavar="FILE", help="default: README.md")
    report.set_defaults(run=_report)
    return parser


def _translate(args: argparse.Namespace) -> int:
    console = Console()
    with _input(args.input) as source:
        translator = load(args.model, args.device)
        if args.n_best and args.n_best > (args.beam_size or translator.decode.beam_size):
            raise UserError(f"--n-best={args.n_best} is more than the beam holds: add --beam-size={args.n_best}")
        with _output(args.output, args.input) as sink:
            if source.isatty():
                console.line("one sentence a line; Ctrl-D ends")
            meter = _Meter(console, _size(source), quiet=sink.isatty())
            for first, block, n_bytes in _arriving(source):
                def warn(row: int, what: str, first: int = first) -> None:
                    console.line(f"minitx: warning: line {first + row}: {what}")

                meter.next_block(first - 1, n_bytes)
                lines = [_text(row, line, warn) for row, line in enumerate(block)]
                for text in _outputs(translator, lines, first, args, meter, warn):
                    sink.write(_line(text))
                sink.flush()
            meter.close()
    return Exit.OK


def _outputs(translator: "Translator", lines: list[str], first: int, args: argparse.Namespace, progress: "Progress",
             warn: "Warn") -> Iterator[str]:
    """Yield what is to be written for line `first` and on."""
    options: dict[str, Any] = {**_search_options(args), "progress": progress, "warn": warn}
    if args.n_best:
        for row, best in enumerate(translator.n_best(lines, args.n_best, **options)):
            yield from (f"{first + row}\t{found.score:.4f}\t{found.text}" for found in best)
    else:
        yield from translator.translate(lines, **options)


def _evaluate(args: argparse.Namespace) -> int:
    from minitx.data.files import read_lines

    sources, references = read_lines(args.src), read_lines(args.ref)
    if len(sources) != len(references):
        raise UserError(f"{args.src} has {len(sources):,} lines, {args.ref} has {len(references):,}: "
                        "they must pair line by line", Exit.DATA)
    if not sources:
        raise UserError(f"{args.src}: no lines to score", Exit.DATA)
    translator, console = load(args.model, args.device), Console()
    meter = _Meter(console)
    with _output(args.output, args.src, args.ref) if args.output else nullcontext() as sink:
        hypotheses = translator.translate(
            sources, **_search_options(args), progress=meter,
            warn=lambda row, what: console.line(f"minitx: warning: {args.src}: line {row + 1}: {what}"))
        meter.close()
        if sink:
            sink.writelines(map(_line, hypotheses))

    from minitx.metrics import score

    result = score(hypotheses, references)
    decode = {"beam_size": translator.decode.beam_size, "length_penalty": translator.decode.length_penalty}
    decode |= {name: value for name, value in _search_options(args).items() if value is not None}
    text = (f"BLEU {result.bleu:.2f}  {result.bleu_signature}\nchrF {result.chrf:.2f}  {result.chrf_signature}\n"
            f"{result.sentences:,} sentences, beam {decode['beam_size']}, length penalty {decode['length_penalty']}")
    with _output(None) as out:
        out.write((json.dumps({**asdict(result), **decode}, indent=2) if args.json else text).encode() + b"\n")
        out.flush()
    return Exit.OK


def _report(args: argparse.Namespace) -> int:
    from minitx.suites.report import main as report

    report(args.ledger, args.readme, args.runs)
    return Exit.OK


def _search_options(args: argparse.Namespace) -> dict[str, Any]:
    return {"beam_size": args.beam_size, "length_penalty": args.length_penalty}


@contextmanager
def _input(path: Path | None) -> Iterator[BinaryIO]:
    if path is None:
        yield sys.stdin.buffer
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    with file:
        yield file


@contextmanager
def _output(path: Path | None, *inputs: Path | None) -> Iterator[BinaryIO]:
    """Open what translations go to. A file gets its content at the end, at once; on any error it stays as it was."""
    if any(path and other and path.exists() and path.samefile(other) for other in inputs):
        raise UserError(f"--output={path} is the input: write to another file")
    place = path and path.resolve()  # through a link to the file behind it
    replaces = place and (place.is_file() or not place.exists())  # unlike /dev/null or a fifo
    beside = place.with_name(f".{place.name}.{os.getpid()}") if place and replaces else place
    try:
        if beside is None:
            yield sys.stdout.buffer
            return
        with beside.open("wb") as file:
            yield file
        if place and replaces:
            beside.replace(place)
    except BrokenPipeError:
        raise
    except OSError as error:
        if path is None:
            _drop_stdout()
        raise UserError(f"{path or 'standard output'}: cannot be written: {error.strerror}", Exit.STORAGE) from error
    finally:
        if beside and replaces:
            beside.unlink(missing_ok=True)


def _arriving(source: BinaryIO) -> Iterator[tuple[int, list[bytes], int]]:
    """Yield complete lines as soon as there are any: one from a person, hundreds from a file.

    --> number of the first (from 1), the lines (ended by b"\\n" alone, CRLF and a BOM tolerated), bytes read so far
    """
    first, n_bytes, rest = 1, 0, b""
    while block := source.read1(CHUNK_BYTES):  # type: ignore[attr-defined]
        block = block if n_bytes else block.removeprefix(codecs.BOM_UTF8)
        n_bytes += len(block)
        *lines, rest = (rest + block).split(b"\n")
        if lines:
            yield first, lines, n_bytes
            first += len(lines)
    if rest:
        yield first, [rest], n_bytes


def _text(row: int, line: bytes, warn: "Warn") -> str:
    """Decode one line; a broken one stays one line."""
    line = line.removesuffix(b"\r")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        warn(row, f"byte 0x{line[error.start]:02x} at offset {error.start} is not UTF-8; replaced by U+FFFD")
        return line.decode(errors="replace")


def _line(text: str) -> bytes:
    """Encode one output as one line, whatever the model wrote."""
    return text.replace("\n", " ").encode(errors="replace") + b"\n"


def _size(file: BinaryIO) -> int | None:
    """Return the bytes of a regular file; None for what has no end in sight."""
    status = os.fstat(file.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None


class _Meter:
    """Say how far a long translation is, on a terminal where nothing else is to be seen."""

    def __init__(self, console: Console, n_bytes: int | None = None, quiet: bool = False) -> None:
        self.console, self.n_bytes, self.shown = console, n_bytes, console.terminal and not quiet
        self.began, self.lines_before, self.lines, self.shares = monotonic(), 0, 0, (0.0, 1.0)

    def next_block(self, lines_before: int, bytes_read: int) -> None:
        """Begin a block of lines that ends at byte `bytes_read`."""
        self.lines_before = lines_before
        self.shares = (self.shares[1] if lines_before else 0.0, bytes_read / self.n_bytes if self.n_bytes else 0.0)

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of the block's `total` lines are done."""
        self.lines = self.lines_before + done
        elapsed = monotonic() - self.began
        if not self.shown or elapsed < QUIET_S:
            return
        share = self.shares[0] + (self.shares[1] - self.shares[0]) * done / total
        left = f"  {100 * share:.0f} %  eta {duration(elapsed * (1 - share) / share)}" if share else ""
        self.console.live(f"{self.lines:,} lines  {self.lines / elapsed:,.1f} lines/s{left}")

    def close(self) -> None:
        """Sum up, in the live line's place."""
        if self.shown and (elapsed := monotonic() - self.began) >= QUIET_S:
            self.console.line(f"{self.lines:,} lines in {duration(elapsed)}")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number, at least 1")
    return int(text)


def _not_negative(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = nan
    if not 0 <= value < inf:
        raise argparse.ArgumentTypeError(f"{text}: must be a number, at least 0")
    return value


def _drop_stdout() -> None:
    """Let what is still buffered go nowhere: Python's last flush would fail aloud."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
