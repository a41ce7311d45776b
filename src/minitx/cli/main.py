"""`minitx`: the parser of its command line, and the command that is called, each a module of `minitx.cli`.

None of them imports anything slow before it runs, so help and errors appear at once. `minitx train` has the command
line of `train.py`, which Hydra parses: its words are passed on as they are.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

from minitx import __version__
from minitx.cli import (
    attention,
    average,
    bench,
    compare,
    doctor,
    estimate,
    evaluate,
    export,
    pick,
    plot,
    report,
    runs,
    sample,
    score,
    study,
    suite,
    translate,
)
from minitx.cli.streams import exit_of, reader_may_leave
from minitx.config.fields import nearest
from minitx.training.process import limit_spinning
from minitx.utils.console import escape_unencodable, ignore_write_errors
from minitx.utils.errors import Exit, UserError
from minitx.utils.files import expand_home

INVALID_CHOICE = re.compile(r"invalid choice: '(.*)' \(choose from (.*)\)")  # as argparse says it


class Command(Protocol):
    """What every command in `minitx.cli` defines."""

    HELP: str  # in the list of commands
    DESCRIPTION: str  # above its own options

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Run the command and return an exit code."""


COMMANDS: dict[str, Command] = {"translate": translate, "evaluate": evaluate, "score": score, "average": average,
                                "export": export, "attention": attention, "sample": sample, "runs": runs,
                                "plot": plot, "compare": compare, "suite": suite, "report": report, "study": study,
                                "doctor": doctor, "estimate": estimate, "pick": pick, "bench": bench}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, None = that of this process; return one of the codes of `Exit`."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ["train"]:
        from minitx.cli import train  # brings Hydra

        return train.run(words[1:])
    if argv is None:
        ignore_write_errors("stderr")
        escape_unencodable()
        limit_spinning()
    code = int(Exit.OK)
    try:
        args = _parse(words)
        with reader_may_leave():
            code = int(args.run(args))
    except UserError as error:
        print(f"minitx: error: {error}", file=sys.stderr)
        return error.code
    except OSError as error:
        if error.filename is None:
            raise
        print(f"minitx: error: {error.filename}: {error.strerror}", file=sys.stderr)
        return exit_of(error)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    return code


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line. Words like KEY=VALUE may follow options too, where argparse no longer expects them."""
    parser, words = _parser(), list(argv)
    if words[:1] == ["compare"]:  # argparse drops the `--` that parts two groups
        words = [compare.AGAINST if word == "--" else word for word in words]
    args, rest = parser.parse_known_args(words)
    takes_folders = args.run is runs.run
    if unknown := [word for word in rest if word.startswith("-") or "overrides" not in args
                   or ("=" not in word and not takes_folders)]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if rest:
        args.overrides = [*args.overrides, *rest]
    return args


def _misplaced(args: argparse.Namespace) -> NoReturn:
    raise UserError("train: must be the first word after minitx")


class _Parser(argparse.ArgumentParser):
    """A parser that raises `UserError`, suggests the nearest of several choices, and expands ~ in paths.

    (A shell leaves it in words like --output=~/x.)
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register("type", Path, lambda text: Path(expand_home(text)))

    def error(self, message: str) -> NoReturn:
        if choice := INVALID_CHOICE.search(message):
            message += nearest(choice[1], [name.strip("'") for name in choice[2].split(", ")])
        raise UserError(f"{message} ({self.prog} --help shows the usage)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="minitx",
                     description="Train translators, use them, and see what each part of them is worth.")
    parser.add_argument("--version", action="version", version=f"minitx {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("train", help="train a translator; minitx train --help says what can be chosen").set_defaults(
        run=_misplaced)
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(name, help=command.HELP, description=command.DESCRIPTION)
        command.configure(subparser)
        subparser.set_defaults(run=command.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
