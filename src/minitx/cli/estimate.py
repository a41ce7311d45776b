"""`minitx estimate`: what a config would take on a GPU that is not here."""

import argparse
import json

from minitx.cli.arguments import add_gpu, add_json, not_negative, positive
from minitx.cli.prepare import section_text
from minitx.cli.streams import created
from minitx.utils.console import Console, show_warnings
from minitx.utils.errors import Exit

HELP = "predict speed, hours and price of a config on GPUs that are not here"
DESCRIPTION = ("Predict, with the arguments of minitx train, how fast a config would train on a GPU that is not here, "
               "what would bound it there, and how long it would take. The kernels of an update are recorded from the "
               "code itself, on tensors without data, and timed by a model of the GPU; how far such predictions are "
               "off is told with them. No text is read, nothing is saved.")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for minitx train")
    add_gpu(parser, required=True)
    parser.add_argument("--length", type=positive, metavar="TOKENS",
                        help="of a sentence on either side, its end included (30, about the mean of news text)")
    parser.add_argument("--price", type=not_negative, metavar="DOLLARS",
                        help="of a GPU for an hour (default: trainer.price_per_hour)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Predict and print."""
    from minitx.config.compose import compose  # Hydra
    from minitx.training.launch import resolve

    cfg, console = resolve(compose(args.overrides)), Console()
    from minitx.experiments.prediction.facts import sections  # imports torch and Lightning: seconds
    from minitx.experiments.prediction.training import SENTENCE, estimate

    with created(None) as sink, show_warnings(console):
        console.live(f"recording the kernels of an update of {cfg.choices.model} {cfg.model.size} ...")
        found = estimate(cfg, args.on, args.gpus or cfg.trainer.devices, args.length or SENTENCE)
        facts = dict(sections(found, cfg.trainer.price_per_hour if args.price is None else args.price))
        console.clear()
        if args.json:
            values = {section: {fact.name: fact.value for fact in found} for section, found in facts.items()}
            sink.write(json.dumps(values, indent=1).encode() + b"\n")
        else:
            sink.write("".join(section_text(section, found) for section, found in facts.items()).encode())
    return Exit.OK
