"""Options that several commands share, and the types of their values."""

import argparse
from math import inf, nan
from pathlib import Path
from typing import Any

from minitx.config.fields import nearest
from minitx.config.schema import SEARCH_PRECISIONS
from minitx.profiling.devices import DEVICES, Device


def add_run_dir(parser: argparse.ArgumentParser) -> None:
    """Add the run to use."""
    parser.add_argument("model", metavar="RUN", type=Path, help="run directory of a training")


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the run to use, and the device to use it on."""
    add_run_dir(parser)
    add_device(parser)


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Add what translates, and the device to use it on."""
    parser.add_argument("models", metavar="RUN", type=Path, nargs="+",
                        help="run directory of a training, or a folder of minitx export to ctranslate2 or onnx; "
                             "several runs with one vocabulary translate together: their probabilities are averaged")
    add_device(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the device to use a run on."""
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps, or auto = CUDA where it is (default)")


def add_search(parser: argparse.ArgumentParser) -> None:
    """Add the settings of search that may differ from the run's own."""
    parser.add_argument("--beam-size", type=positive, metavar="K",
                        help="hypotheses per line, 1 = greedy (default: as the run)")
    parser.add_argument("--length-penalty", type=not_negative, metavar="A",
                        help="exponent of ((5 + length) / 6) ** A (default: as the run)")
    parser.add_argument("--precision", choices=SEARCH_PRECISIONS,
                        help="compute in bf16: faster where the processor has units for it (default: as the run)")


def search_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the values of `add_search`, as `Translator` takes them."""
    return {"beam_size": args.beam_size, "length_penalty": args.length_penalty}


def add_pairs(parser: argparse.ArgumentParser) -> None:
    """Add two files that pair line by line."""
    parser.add_argument("--src", type=Path, metavar="FILE", required=True, help="source sentences, one per line")
    parser.add_argument("--ref", type=Path, metavar="FILE", required=True, help="their translations, one per line")


def add_output(parser: argparse.ArgumentParser, what: str) -> None:
    """Add a file for what would otherwise go to standard output, or nowhere."""
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=f"where {what}, all or nothing")


def add_gpu(parser: argparse.ArgumentParser, required: bool = False, when: str = "") -> None:
    """Add the kind of GPU that is predicted, and how many of them. when: before what it does, in its help"""
    parser.add_argument("--on", type=gpu, metavar="GPU", required=required,
                        help=f"{when}predict for this GPU, such as h100; an unknown name lists all that are known")
    parser.add_argument("--gpus", type=positive, metavar="N",
                        help="of them, which share each update (default: trainer.devices)")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the choice of JSON."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def whole(text: str) -> int:
    """Parse a whole number, at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number, at least 0")
    return int(text)


def positive(text: str) -> int:
    """Parse a whole number, at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number, at least 1")
    return int(text)


def positive_number(text: str) -> float:
    """Parse a number above 0."""
    value = not_negative(text)
    if not value:
        raise argparse.ArgumentTypeError(f"{text}: must be above 0")
    return value


def gpu(text: str) -> Device:
    """Return the GPU of a name."""
    known = {device.name: device for device in DEVICES}
    if text.lower() not in known:
        raise argparse.ArgumentTypeError(f"{text}: no such GPU{nearest(text.lower(), known)} ({', '.join(known)})")
    return known[text.lower()]


def not_negative(text: str) -> float:
    """Parse a finite number, at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = nan
    if not 0 <= value < inf:
        raise argparse.ArgumentTypeError(f"{text}: must be a number, at least 0")
    return value
