"""Measure what an operator of torch costs this CPU as the host of a GPU: the constant that no data sheet gives.

    .venv/bin/python scripts/host_model.py --size full -o host_model.json

Takes two minutes on a quiet machine, on one thread, as Python issues operators.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from minitx.training.process import MALLOC


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
    os.environ["OMP_NUM_THREADS"] = "1"
    from minitx.experiments.prediction.host import SIZES, measure_host, table  # imports torch: seconds
    from minitx.utils.console import Console

    console = Console()
    found = measure_host(SIZES[args.size], console)
    console.clear()
    if args.output is not None:
        args.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
