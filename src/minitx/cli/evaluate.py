"""`minitx evaluate`: BLEU and chrF of a run on any file."""

import argparse
import json
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minitx import load
from minitx.cli.arguments import add_json, add_output, add_pairs, add_runs, add_search, search_options
from minitx.cli.progress import Meter
from minitx.cli.streams import created, encode_line, read_pairs
from minitx.config.schema import BLEU_TOKENIZERS
from minitx.runs.result import SEARCH, searched
from minitx.serving.origin import read_origin
from minitx.training.process import uncollected
from minitx.utils.console import Console
from minitx.utils.errors import Exit, UserError

HELP = "score translations of a file"
DESCRIPTION = ("Translate a file and score it with sacreBLEU: detokenised, cased, with the tokenizer that the run was "
               "scored with.")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_pairs(parser)
    add_json(parser)
    add_runs(parser)
    add_output(parser, "translations go")
    parser.add_argument("--tokenize", choices=BLEU_TOKENIZERS, help="tokenizer of BLEU (default: as the run)")
    parser.add_argument("--moses", action="store_true",
                        help="also score lower-cased, Moses-tokenised text, as older papers do")
    add_search(parser)


def run(args: argparse.Namespace) -> int:
    """Translate the source, score the translations and print the scores."""
    sources, references = read_pairs(args.src, args.ref)
    console = Console()
    with created(args.output, args.src, args.ref) if args.output else nullcontext() as sink:
        from minitx.evaluation.metrics import bleu_tokenizer, score

        data = read_origin(args.models[0])
        tokenizer = bleu_tokenizer(data.tgt, args.tokenize or data.bleu_tokenizer)
        if args.moses:
            check_moses(data.tgt, args.models[0])
        with uncollected():
            translator = load(args.models, args.device, args.precision)
        meter = Meter(console)
        hypotheses = translator.translate(
            sources, **search_options(args), split="never", progress=meter,
            warn=lambda row, what: console.line(f"minitx: warning: {args.src}: line {row + 1}: {what}"))
        meter.close()
        if sink:
            sink.writelines(map(encode_line, hypotheses))

    result, moses = score(hypotheses, references, tokenizer), None
    if args.moses:
        from minitx.evaluation.moses import moses_score

        moses = moses_score(hypotheses, references, data.tgt)
    decode: dict[str, Any] = {name: getattr(translator.decode, name) for name in SEARCH}
    decode |= {name: value for name, value in search_options(args).items() if value is not None}
    text = (f"BLEU {result.bleu:.2f}  {result.bleu_signature}\nchrF {result.chrf:.2f}  {result.chrf_signature}\n"
            + ("" if moses is None else f"BLEU {moses.moses_bleu:.2f}  {moses.moses_signature}, "
               f"{moses.moses_reference_tokens:,} reference tokens\n")
            + f"{result.sentences:,} sentences, {searched(decode)}")
    with created(None) as out:
        known = asdict(result) | ({} if moses is None else asdict(moses)) | decode
        out.write((json.dumps(known, indent=2) if args.json else text).encode() + b"\n")
    return Exit.OK


def check_moses(lang: str, run_dir: Path) -> None:
    """Errors: `UserError` if Moses has no rules for the language that a run translates into."""
    from minitx.evaluation.moses import languages

    if lang not in languages():
        raise UserError(f"--moses: has no rules for {lang}, which {run_dir} translates into; it has them for "
                        f"{', '.join(sorted(languages()))}")
