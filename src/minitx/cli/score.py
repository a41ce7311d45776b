"""`minitx score`: how likely a model finds given translations."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from minitx import load
from minitx.cli.arguments import add_json, add_output, add_pairs, add_runs
from minitx.cli.progress import Meter
from minitx.cli.streams import created, read_pairs
from minitx.training.process import uncollected
from minitx.utils.console import Console
from minitx.utils.errors import Exit

if TYPE_CHECKING:
    from minitx.decoding.scoring import PairScore

HELP = "log-probability and perplexity of given translations"
DESCRIPTION = ("Score pairs of lines by forced decoding. One line a pair, in order, no header: the translation's "
               "log-probability (nats, end of sentence included), its tokens (likewise), perplexity; tab-separated.")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_pairs(parser)
    add_json(parser)
    add_runs(parser)
    add_output(parser, "scores go (default: standard output)")


def run(args: argparse.Namespace) -> int:
    """Score the pairs, print a line each and a summary."""
    sources, references = read_pairs(args.src, args.ref)
    console = Console()
    with created(args.output, args.src, args.ref) as sink:
        with uncollected():
            translator = load(args.models, args.device)
        meter = Meter(console)

        from minitx.decoding.scoring import score_pairs, total  # torch, which is there by now

        scores = score_pairs(
            translator, sources, references, progress=meter,
            warn=lambda row, what: console.line(f"minitx: warning: {args.src}: line {row + 1}: {what}"))
        meter.close()
        whole = total(scores)
        if args.json:
            sink.write(json.dumps({**_as_dict(whole), "pairs": [_as_dict(score) for score in scores]}).encode() + b"\n")
        else:
            sink.writelines(f"{s.log_prob:.6f}\t{s.n_tokens}\t{s.perplexity:.6g}\n".encode() for s in scores)
    console.line(f"{-whole.log_prob / whole.n_tokens:.4f} nats a token, perplexity {whole.perplexity:.6g}; "
                 f"{len(scores):,} pairs, {whole.n_tokens:,} target tokens")
    return Exit.OK


def _as_dict(score: "PairScore") -> dict[str, Any]:
    return {"log_prob": score.log_prob, "tokens": score.n_tokens, "perplexity": score.perplexity}
