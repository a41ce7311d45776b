"""What `minitx pick` says to the problems of docs/pick.json, beside what an expert said before: results/selection.

`python scripts/pick_problems.py [--answers-only] [--again] [NUMBER ...]`: all problems, or these, counted from 1. All
of them take half an hour, most of it for what would change the answers and for the sequence of a million tokens; what
is asked of "here" is measured, so that the machine should be idle.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from minitx.cli import pick
from minitx.experiments.reports.results import read_rows
from minitx.experiments.selection.chooser import Chooser
from minitx.experiments.selection.decision import decide
from minitx.experiments.selection.demands import HERE, Demands
from minitx.experiments.selection.quality import Text, gather
from minitx.experiments.selection.recorded import knowledge_in, record
from minitx.profiling.process import cores
from minitx.profiling.provenance import git_state, hardware, versions
from minitx.training.process import MALLOC, limit_spinning
from minitx.utils.console import Console
from minitx.utils.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
PROBLEMS, FOUND = ROOT / "docs" / "pick.json", ROOT / "results" / "selection" / "problems.json"


def main() -> None:
    """Decide the problems that are named, keep the answers of the others, and write all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("numbers", nargs="*", type=int, metavar="NUMBER", help="of a problem, counted from 1 (all)")
    parser.add_argument("--answers-only", action="store_true", help="do not look for what would change them")
    parser.add_argument("--again", action="store_true",
                        help="from the figures in the file: for after new rows of the ledger; what would change the "
                             "answers is then kept as it was")
    args = parser.parse_args()
    problems = json.loads(PROBLEMS.read_text(encoding="utf-8"))
    found = json.loads(FOUND.read_text(encoding="utf-8")) if FOUND.is_file() else {}
    numbers = args.numbers or range(1, len(problems) + 1)
    for number in numbers:
        if not 1 <= number <= len(problems):
            parser.error(f"{number}: there are problems 1 to {len(problems)}")
        if args.again and problems[number - 1]["words"] not in found:
            parser.error(f"--again: problem {number} was not decided before; decide it without --again")
    if not MALLOC.keys() & os.environ.keys():  # what is measured here is measured as it would be trained
        limit_spinning()
        threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(cores()))}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | MALLOC | threads)
    texts, console = gather(read_rows(ROOT / "results")), Console()
    chooser = Chooser(texts, console)
    for number in numbers:
        words = problems[number - 1]["words"]
        found[words] = (decided_again(found[words], texts) if args.again else
                        decided(demands_of(words), chooser, texts, args.answers_only))
        FOUND.parent.mkdir(exist_ok=True)
        kept = {each["words"]: found[each["words"]] for each in problems if each["words"] in found}
        write_atomically(FOUND, (json.dumps(kept, indent=1) + "\n").encode())
        console.line(f"{number}: {found[words]['answer']}")


def decided(demands: Demands, chooser: Chooser, texts: Mapping[str, Text], answer_only: bool) -> dict[str, Any]:
    """Return a decision, and on which code and machine its figures stand."""
    decision = chooser.decide(demands)
    told = [] if answer_only else chooser.changes(decision)
    git_sha, git_dirty = git_state()
    return record(decision, told, chooser.known, texts) | {"conditions": {
        "git_sha": git_sha, "git_dirty": git_dirty, "versions": versions(), "threads": torch.get_num_threads(),
        "measured_on": hardware(torch.device("cpu")) if demands.hardware == HERE else None}}


def decided_again(found: Mapping[str, Any], texts: Mapping[str, Text]) -> dict[str, Any]:
    """Return what is decided now from figures that were recorded before."""
    known = knowledge_in(found, texts)
    return record(decide(Demands(**found["demands"]), known), [], known, texts) | {
        "conditions": found["conditions"], "changes": found["changes"]}


def demands_of(words: str) -> Demands:
    """Return the demands of a command line."""
    parser = argparse.ArgumentParser()
    pick.configure(parser)
    demands = pick.demands_of(parser.parse_args(shlex.split(words)))
    demands.check()
    return demands


if __name__ == "__main__":
    main()
