"""Options that several commands share, and the kinds of value that options take."""

import argparse
from math import inf, nan
from pathlib import Path
from typing import Any

from minitx.config.schema import SEARCH_PRECISIONS


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the run that serves, and where it computes."""
    parser.add_argument("model", metavar="RUN", type=Path, help="run directory that train.py wrote")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto = a GPU if there is one (default)")


def add_search(parser: argparse.ArgumentParser) -> None:
    """Add what may differ from the run's own search."""
    parser.add_argument("--beam-size", type=positive, metavar="K",
                        help="hypotheses a line, 1 = greedy (default: as the run)")
    parser.add_argument("--length-penalty", type=not_negative, metavar="A",
                        help="exponent of ((5 + length) / 6) ** A (default: as the run)")
    parser.add_argument("--precision", choices=SEARCH_PRECISIONS,
                        help="compute in bf16: faster where the processor has units for it (default: as the run)")


def search_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return what `add_search` was given, as `Translator` takes it."""
    return {"beam_size": args.beam_size, "length_penalty": args.length_penalty}


def add_pairs(parser: argparse.ArgumentParser) -> None:
    """Add two files that pair line by line."""
    parser.add_argument("--src", type=Path, metavar="FILE", required=True, help="source sentences, one a line")
    parser.add_argument("--ref", type=Path, metavar="FILE", required=True, help="their translations, one a line")


def add_output(parser: argparse.ArgumentParser, what: str) -> None:
    """Add a file for what would go to standard output, or nowhere."""
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=f"where {what}, all or nothing")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the form that programs read."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number, at least 1")
    return int(text)


def positive_number(text: str) -> float:
    value = not_negative(text)
    if not value:
        raise argparse.ArgumentTypeError(f"{text}: must be above 0")
    return value


def share(text: str) -> float:
    value = positive_number(text)
    if value > 100:
        raise argparse.ArgumentTypeError(f"{text}: must be a share in %, at most 100")
    return value


def not_negative(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = nan
    if not 0 <= value < inf:
        raise argparse.ArgumentTypeError(f"{text}: must be a number, at least 0")
    return value
