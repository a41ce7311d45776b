"""Predict updates on this CPU from its single operators, and time them: how far the model of a device can be trusted.

    .venv/bin/python scripts/cpu_model.py --size full -o cpu_model.json

Takes some minutes on a quiet machine. Memory is allocated as in a training of `minitx train`.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from minitx.profiling.process import cores
from minitx.training.process import MALLOC, limit_spinning


def main() -> None:
    """Measure, print, and store if a file is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("smoke", "full"), default="smoke", help="how much is measured (smoke)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="also write all measurements")
    args = parser.parse_args()
    if args.output is not None and not args.output.parent.is_dir():
        parser.error(f"-o {args.output}: there is no folder {args.output.parent}; make it")
    if not MALLOC.keys() & os.environ.keys():  # read when a process begins
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | MALLOC)
    limit_spinning()
    os.environ.setdefault("OMP_NUM_THREADS", str(cores()))
    from minitx.experiments.prediction.cpu import SIZES, measure_cpu, table  # imports torch: seconds
    from minitx.utils.console import Console

    console = Console()
    found = measure_cpu(SIZES[args.size], console)
    console.clear()
    if args.output is not None:
        args.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
