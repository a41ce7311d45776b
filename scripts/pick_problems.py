"""What `minitx pick` says to the problems of docs/pick.json, beside what an expert said before: results/selection.

`python scripts/pick_problems.py [NUMBER ...]`: all problems, or these, counted from 1. It takes two cores some twenty
minutes; what is asked of "here" is measured, so that the machine should be idle.
"""

import argparse
import json
import shlex
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from minitx.cli import pick
from minitx.experiments.reports.results import read_rows
from minitx.experiments.selection.changes import changes
from minitx.experiments.selection.chooser import knowledge
from minitx.experiments.selection.decision import Knowledge, Row, choose, decide
from minitx.experiments.selection.demands import HERE, Demands
from minitx.experiments.selection.quality import gather
from minitx.experiments.selection.text import as_json
from minitx.profiling.provenance import git_state, hardware, versions
from minitx.utils.console import Console
from minitx.utils.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
PROBLEMS, FOUND = ROOT / "docs" / "pick.json", ROOT / "results" / "selection" / "problems.json"


def main() -> None:
    """Decide the problems that are named, keep the answers of the others, and write all of them."""
    problems = json.loads(PROBLEMS.read_text(encoding="utf-8"))
    found = json.loads(FOUND.read_text(encoding="utf-8")) if FOUND.is_file() else {}
    texts, console = gather(read_rows(ROOT / "results")), Console()
    known = knowledge(texts, console)
    for number, problem in enumerate(problems, 1):
        if len(sys.argv) == 1 or str(number) in sys.argv[1:]:
            found[problem["words"]] = decided(demands_of(problem["words"]), known, texts)
            FOUND.parent.mkdir(exist_ok=True)
            kept = {each["words"]: found[each["words"]] for each in problems if each["words"] in found}
            write_atomically(FOUND, (json.dumps(kept, indent=1) + "\n").encode())
            console.line(f"{number}: {found[problem['words']]['answer']}")


def decided(demands: Demands, known: Knowledge, texts: Any) -> dict[str, Any]:
    """Return a decision, the figures of each candidate that was looked at, and on which code and machine they stand."""
    decision = decide(demands, known)
    told = list(changes(decision, partial(choose, known=known)))
    looked_at = [row for row in (*decision.rows, *decision.tried) if isinstance(row, Row)]
    git_sha, git_dirty = git_state()
    return as_json(decision, told, texts) | {
        "figures": {str(row.candidate): asdict(row.figures) for row in looked_at},
        "conditions": {"git_sha": git_sha, "git_dirty": git_dirty, "versions": versions(),
                       "measured_on": hardware(torch.device("cpu")) if demands.hardware == HERE else None}}


def demands_of(words: str) -> Demands:
    """Return the demands of a command line."""
    parser = argparse.ArgumentParser()
    pick.configure(parser)
    demands = pick.demands_of(parser.parse_args(shlex.split(words)))
    demands.check()
    return demands


if __name__ == "__main__":
    main()
