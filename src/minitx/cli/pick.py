"""`minitx pick`: which architecture suits a problem."""

import argparse
import json
from pathlib import Path

from minitx.cli.arguments import add_json, not_negative, positive, positive_number
from minitx.cli.prepare import prepare_process
from minitx.cli.streams import created
from minitx.experiments.selection.demands import HERE, Demands
from minitx.utils.console import Console, show_warnings
from minitx.utils.errors import Exit

HELP = "choose an architecture for a problem: lengths, text, latency, memory, hardware"
DESCRIPTION = ("Choose among the families, with size and number format, what suits a problem. Each candidate gets its "
               "figures: training time, memory and the time of a token, recorded from the code and predicted for a "
               "GPU, measured for this processor; quality from published learning curves. Candidates that fail a "
               "demand are excluded, with the reason; the others are ordered by quality, then cost. Told are what "
               "each figure stands on, and at which values of which demands the answer would change.")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("--length", type=positive, required=True, metavar="TOKENS",
        help="of a typical sentence on either side, its end included")
    add("--longest", type=positive, metavar="TOKENS", help="of the longest sentence (default: as --length)")
    add("--tokens", type=positive_number, metavar="N",
        help="target tokens that training reads, every pass counted, such as 2.5e9 (default: as the budget allows)")
    add("--budget-minutes", type=positive_number, metavar="M", help="of training at most")
    add("--hardware", default=HERE, metavar="NAME",
        help="here (default) = this processor, measured; or a GPU, such as h100, predicted; an unknown name lists all")
    add("--gpus", type=positive, default=1, metavar="N", help="of them, which share each update (1)")
    add("--latency-ms", type=positive_number, metavar="MS",
        help="of a token at most, one sentence at a time, at the end of a typical one")
    add("--memory-gib", type=positive_number, metavar="GIB",
        help="of a device at most, in training (default: what it has)")
    add("--serve-gib", type=positive_number, metavar="GIB",
        help="for weights and the state of one sentence at most, in decoding")
    add("--streaming", action="store_true", help="decode in constant memory: the state may not grow with the tokens")
    add("--attention", action="store_true", help="each target token must be able to look at each source token")
    add("--target-bleu", type=positive_number, metavar="BLEU",
        help="to reach on the text that was measured: captions, or verses if sentences are nearer to those in length")
    add("--price", type=not_negative, metavar="DOLLARS", help="of a device for an hour")
    add("--answer-only", action="store_true", help="do not look for what would change it, which takes longest")
    add("--ledger", type=Path, default=Path("results"), metavar="FOLDER",
        help="folder of published rows (default: results)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Decide and print. Without an answer, the exit code is that of a usage that cannot be met."""
    demands = demands_of(args)
    demands.check()
    from minitx.config.compose import compose  # Hydra
    from minitx.experiments.reports.results import read_rows
    from minitx.experiments.selection.quality import gather
    from minitx.experiments.selection.text import as_json, lines

    texts, console = gather(read_rows(args.ledger)), Console()
    if demands.hardware == HERE:
        prepare_process(compose(["logger=none", "trainer.accelerator=cpu"]))
    from minitx.experiments.selection.chooser import Chooser  # imports torch and Lightning: seconds

    with created(None) as sink, show_warnings(console):
        chooser = Chooser(texts, console)
        decision = chooser.decide(demands)
        found = [] if args.answer_only else chooser.changes(decision)
        console.clear()
        text = (json.dumps(as_json(decision, found, texts), indent=1) + "\n" if args.json else
                "".join(f"{line}\n" for line in lines(decision, found, texts)))
        sink.write(text.encode())
    return Exit.OK if decision.answer else Exit.USAGE


def demands_of(args: argparse.Namespace) -> Demands:
    """Return what the options ask for."""
    return Demands(args.length, args.longest or args.length, args.hardware.lower(), args.gpus, args.tokens,
                   args.budget_minutes, args.latency_ms, args.memory_gib, args.serve_gib, args.streaming,
                   args.attention, args.target_bleu, args.price)
