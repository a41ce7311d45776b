"""`minitx sample`: what a text looks like, to a person and to a model."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from minitx.cli.arguments import positive
from minitx.cli.streams import reader_may_leave
from minitx.utils.console import Console, show_warnings
from minitx.utils.errors import Exit, UserError
from minitx.utils.tables import aligned

if TYPE_CHECKING:
    from minitx.config.schema import Config
    from minitx.data.corpus import Corpus
    from minitx.data.tokenizer import Tokenizer, TokenizerPair

HELP = "show pairs of any text, and the tokens that they become"
DESCRIPTION = ("Show some pairs of a text, spread evenly over one of its sets, and how long its sentences are, in "
               "words and in tokens. A token that continues a word begins with a hyphen. Takes the arguments of "
               "minitx train, and learns the vocabulary as a training would; with --run it is that of a run. Nothing "
               "is written.")
MEASURED = 10_000  # pairs, spread evenly over the set, of which the lengths are told


class Side(NamedTuple):
    """One language of a text: its place in a pair, and how it is encoded."""

    place: int
    language: str
    tokenizer: "Tokenizer"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for minitx train, such as data=multi30k")
    parser.add_argument("--run", dest="run_dir", type=Path, metavar="RUN",
                        help="take the vocabulary of this run, and its text unless KEY=VALUE names another")
    parser.add_argument("--set", dest="split", default="train", metavar="NAME", help="train (default), valid, test ...")
    parser.add_argument("-n", type=positive, default=5, metavar="N", help="how many pairs (5)")


def run(args: argparse.Namespace) -> int:
    """Read the text, learn or load its vocabulary, and print its lengths and some pairs."""
    from minitx.data.corpus import check_text, load_corpus

    cfg, console = find_config(args.overrides, args.run_dir), Console()
    check_text(cfg.data)
    with show_warnings(console):
        console.live(f"reading {cfg.choices.data} ...")
        corpus = load_corpus(cfg.data)
        if args.split not in corpus.splits:
            raise UserError(f"--set {args.split}: this text has {', '.join(corpus.splits)}")
        if not (pairs := corpus.sample() if args.split == "train" else corpus.pairs(args.split)):
            raise UserError(f"--set {args.split}: holds no pair", Exit.DATA)
        console.live("learning a vocabulary from the training text ...")
        tokenizers = find_tokenizers(cfg, corpus, args.run_dir)
    sides = [Side(0, corpus.src, tokenizers.src), Side(1, corpus.tgt, tokenizers.tgt)]
    first = ", the first of each shard" if corpus.shards and args.split == "train" else ""
    sizes = [f"{side.tokenizer.vocab_size:,}" for side in (sides[:1] if tokenizers.joint else sides)]
    whose = "learned from the training text" if args.run_dir is None else f"of {args.run_dir}"
    head = [("text", f"{corpus.origin} {corpus.src}-{corpus.tgt}"),
            ("set", f"{args.split}, {len(pairs):,} pairs{first}"),
            ("vocabulary", f"{' + '.join(sizes)}{' joint' if tokenizers.joint else ''}, {whose}")]
    console.clear()
    with reader_may_leave():
        print("\n".join([*aligned(head, "<"), "", *lengths(pairs, sides), "", *examples(pairs, sides, args.n)]))
    return Exit.OK


def find_config(overrides: Sequence[str], run_dir: Path | None) -> "Config":
    """Return what these words compose to or, without any, the settings of a run. Errors: `UserError`"""
    from minitx.config.compose import compose  # Hydra
    from minitx.config.saved import read_config

    if run_dir is not None and overrides and not any(word.startswith("data=") for word in overrides):
        raise UserError(f"{' '.join(overrides)}: --run shows the text of that run as it is; name another with data=...")
    return compose(overrides) if overrides or run_dir is None else read_config(run_dir)


def find_tokenizers(cfg: "Config", corpus: "Corpus", run_dir: Path | None) -> "TokenizerPair":
    """Load the vocabulary of a run or, without one, learn it from the training text. Errors: `UserError`"""
    from minitx.data.tokenizer import TokenizerPair

    if run_dir is not None:
        return TokenizerPair.load(run_dir)
    return TokenizerPair.train(corpus.sample(), cfg.tokenizer.vocab_size, cfg.tokenizer.joint)


def lengths(pairs: Sequence[tuple[str, str]], sides: Sequence[Side]) -> list[str]:
    """Return a table of how long sentences are, and how many tokens a word becomes."""
    from minitx.data.corpus import spread

    rows = [("", "words a sentence", "at most", "tokens a sentence", "at most", "tokens a word")]
    chosen = [pairs[place] for place in spread(len(pairs), MEASURED)]
    for side in sides:
        texts = [pair[side.place] for pair in chosen]
        words, tokens = [len(text.split()) for text in texts], list(map(len, side.tokenizer.encode_batch(texts)))
        rows.append((side.language, f"{fmean(words):.1f}", f"{max(words):,}", f"{fmean(tokens):.1f}",
                     f"{max(tokens):,}", f"{sum(tokens) / max(1, sum(words)):.2f}"))
    of = "" if len(chosen) == len(pairs) else f"of {len(chosen):,} pairs; "
    return [*aligned(rows), f"({of}words are what spaces part; the token that ends a sentence is not counted)"]


def examples(pairs: Sequence[tuple[str, str]], sides: Sequence[Side], n: int) -> Iterator[str]:
    """Yield some pairs with their numbers, lengths and tokens."""
    from minitx.data.corpus import spread
    from minitx.evaluation.attention_maps import shown  # numpy

    rows = list[tuple[str, ...]]()
    for place in spread(len(pairs), n):
        for side in sides:
            text = pairs[place][side.place]
            ids = side.tokenizer.encode(text)
            rows += [(f"{place + 1:,}" * (side is sides[0]), side.language, f"{len(text.split()):,} words", text),
                     ("", "", f"{len(ids):,} tokens", " ".join(shown(side.tokenizer.pieces(ids))))]
    yield from aligned(rows, "><><")
