"""`minitx doctor`: what this machine has, and what a config would cost on it."""

import argparse
import json
from typing import Any

from minitx.cli.arguments import add_json
from minitx.cli.prepare import prepare_process, section_text, training_config
from minitx.cli.streams import created
from minitx.utils.console import Console, show_warnings

HELP = "check this machine, and what a config would cost on it"
DESCRIPTION = ("Check, with the arguments of minitx train and before a training, versions, devices, storage and the "
               "text, and measure on a few real updates what the config would cost. Exit code 0 if nothing stands in "
               "the way.")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for minitx train")
    parser.add_argument("--distributed", action="store_true",
                        help="also start trainer.devices ranks, two at least, and measure their exchange")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Examine a config on this machine, in a process that is set up like a training. Returns the exit code."""
    cfg = training_config(args.overrides)
    prepare_process(cfg)
    from minitx.experiments.costs.doctor import Doctor  # imports torch and Lightning: seconds

    console = Console()
    doctor, findings = Doctor(cfg, console, args.distributed), dict[str, Any]()
    with created(None) as sink, show_warnings(console):
        for section, facts in doctor.sections():
            findings[section] = {fact.name: fact.value for fact in facts}
            if facts and not args.json:
                console.clear()
                sink.write(section_text(section, facts).encode())
                sink.flush()
        findings["warnings"] = doctor.warnings
        findings["problems"] = [str(problem) for problem in doctor.problems]
        if args.json:
            console.clear()
            sink.write(json.dumps(findings, indent=1).encode() + b"\n")
        else:
            warnings = [f"warning: {warning}\n" for warning in findings["warnings"]]
            problems = [f"problem: {problem}\n" for problem in findings["problems"]] or ["no problem found\n"]
            sink.write("".join(warnings + problems).encode())
    return doctor.code
