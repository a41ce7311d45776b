"""`minitx doctor`: what this machine has, and what a config would cost on it."""

import argparse
import json
from typing import Any

from minitx.cli.arguments import add_json
from minitx.cli.prepare import prepare_process, section_text, training_config
from minitx.cli.streams import created
from minitx.utils.console import Console, warnings_told

HELP = "look at this machine, and at what a config would cost on it"
DESCRIPTION = ("Take the same words as train.py, and train nothing: versions, devices, storage, the text, and what the "
               "config would cost, measured on a few real updates. Exit code 0 if nothing stands in the way.")


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as after train.py")
    parser.add_argument("--distributed", action="store_true",
                        help="have ranks meet (trainer.devices, two at least), and measure what they tell each other")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Compose the config as train.py does, bring the process into the same state, and examine."""
    cfg = training_config(args.overrides)
    prepare_process(cfg, args.owns_process)
    from minitx.experiments.costs.doctor import Doctor  # imports torch and Lightning: seconds

    console = Console()
    doctor, found = Doctor(cfg, console, args.distributed), dict[str, Any]()
    with created(None) as sink, warnings_told(console):
        for section, facts in doctor.sections():
            found[section] = {fact.name: fact.value for fact in facts}
            if facts and not args.json:
                console.clear()
                sink.write(section_text(section, facts).encode())
                sink.flush()
        found["problems"] = [str(problem) for problem in doctor.problems]
        if args.json:
            console.clear()
            sink.write(json.dumps(found, indent=1).encode() + b"\n")
        else:
            problems = [f"problem: {problem}\n" for problem in found["problems"]] or ["no problem found\n"]
            sink.write("".join(problems).encode())
    return doctor.code
