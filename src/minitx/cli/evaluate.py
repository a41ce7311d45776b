"""`minitx evaluate`: BLEU and chrF of a run on any file."""

import argparse
import json
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minitx import load
from minitx.cli.arguments import add_json, add_output, add_pairs, add_run, add_search, search_options
from minitx.cli.progress import Meter
from minitx.cli.streams import created, encode_line, read_pairs
from minitx.config.saved import read_config
from minitx.runs.result import SEARCH, searched
from minitx.utils.console import Console
from minitx.utils.errors import Exit, UserError

HELP = "score translations of a file"
DESCRIPTION = "Translate a file and score it with sacreBLEU: detokenised, cased, 13a."


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_pairs(parser)
    add_json(parser)
    add_run(parser)
    add_output(parser, "translations go")
    parser.add_argument("--moses", action="store_true",
                        help="score lower-cased, Moses-tokenised text, too, as older papers do")
    add_search(parser)


def run(args: argparse.Namespace) -> int:
    """Translate, score, print."""
    sources, references = read_pairs(args.src, args.ref)
    console = Console()
    language = moses_language(args.model) if args.moses else None
    with created(args.output, args.src, args.ref) if args.output else nullcontext() as sink:
        translator, meter = load(args.model, args.device, args.precision), Meter(console)
        hypotheses = translator.translate(
            sources, **search_options(args), progress=meter,
            warn=lambda row, what: console.line(f"minitx: warning: {args.src}: line {row + 1}: {what}"))
        meter.close()
        if sink:
            sink.writelines(map(encode_line, hypotheses))

    from minitx.evaluation.metrics import score

    result, moses = score(hypotheses, references), None
    if language is not None:
        from minitx.evaluation.moses import moses_score

        moses = moses_score(hypotheses, references, language)
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


def moses_language(run_dir: Path) -> str:
    """Return the language a run translates into. Errors: `UserError` where Moses has no rules for it."""
    from minitx.evaluation.moses import languages

    lang = read_config(run_dir).data.tgt
    if lang not in languages():
        raise UserError(f"--moses: has no rules for {lang}, which {run_dir} translates into; it has them for "
                        f"{', '.join(sorted(languages()))}")
    return lang
