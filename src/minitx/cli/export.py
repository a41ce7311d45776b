"""`minitx export`: a run for other engines."""

import argparse
from pathlib import Path

from minitx.cli.arguments import add_run_dir
from minitx.export.formats import FORMATS
from minitx.utils.console import Console
from minitx.utils.errors import Exit, UserError

HELP = "write a run in a format of other engines"
DESCRIPTION = ("Write a run's best weights, its vocabulary and where they are from into a new folder, for CTranslate2, "
               "Hugging Face's transformers, or ONNX Runtime.")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_run_dir(parser)
    parser.add_argument("--to", choices=[*FORMATS], required=True, help="the format")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", required=True, help="a new folder")
    parser.add_argument("--quantize", metavar="TYPE",
                        help="number format of the weights (default: fp32, as they were trained); " + "; ".join(
                            f"{name}: {', '.join(known.quantizations) or 'none'}" for name, known in FORMATS.items()))
    parser.add_argument("--push", metavar="REPO",
                        help="huggingface: also upload the folder to this repository of the hub, such as NAME/en-de")
    parser.add_argument("--private", action="store_true", help="with --push: a new repository is not public")


def run(args: argparse.Namespace) -> int:
    """Export, and say how to use it."""
    from minitx.export.writing import export_run

    if args.push and args.to != "huggingface":
        raise UserError(f"--push {args.push}: goes with --to huggingface")
    if args.private and not args.push:
        raise UserError("--private: goes with --push")
    console = Console()
    manifest = export_run(args.model, args.to, args.output, args.quantize, args.push)
    size = sum(record["bytes"] for record in manifest.files.values())
    hint = f"; try it: minitx translate {args.output}" if FORMATS[args.to].serves else ""
    console.line(f"{args.output}: {args.to}, {args.quantize or 'fp32'}, {size / 1e6:,.1f} MB{hint}")
    if args.push:
        from minitx.export.push import push  # half a second

        console.line(f"uploaded to {push(args.output, args.push, args.private)}")
    return Exit.OK
