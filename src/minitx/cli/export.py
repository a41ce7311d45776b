"""`minitx export`: a run for other engines."""

import argparse
from pathlib import Path

from minitx.cli.arguments import add_run_dir
from minitx.export.formats import FORMATS
from minitx.utils.console import Console
from minitx.utils.errors import Exit

HELP = "write a run in a format of other engines"
DESCRIPTION = ("Write a run's best weights, its vocabulary and where they are from into a new folder, for CTranslate2, "
               "Hugging Face's transformers, or ONNX Runtime.")
QUANTIZATIONS = sorted({kind for known in FORMATS.values() for kind in known.quantizations})


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_run_dir(parser)
    parser.add_argument("--to", choices=[*FORMATS], required=True, help="the format")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", required=True, help="a new folder")
    parser.add_argument("--quantize", choices=QUANTIZATIONS, metavar="TYPE",
                        help="number format of the weights, such as int8 (default: fp32, as they were trained)")


def run(args: argparse.Namespace) -> int:
    """Export, and say how to use it."""
    from minitx.export.writing import export_run

    console = Console()
    manifest = export_run(args.model, args.to, args.output, args.quantize)
    size = sum(record["bytes"] for record in manifest.files.values())
    console.line(f"{args.output}: {args.to}, {args.quantize or 'fp32'}, {size / 1e6:,.1f} MB")
    return Exit.OK
