"""The command: `python -m benchmarks setup|training|decoding|quality|table`."""

import argparse
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import measure, tables
from benchmarks.measure import Bench, Row, System
from benchmarks.text import prepare_text
from benchmarks.venvs import PEERS, NotInstalled, install, module, versions
from minitx.profiling.provenance import git_state, hardware
from minitx.utils.console import Console
from minitx.utils.errors import Exit, UserError
from minitx.utils.files import write_atomically

HERE = Path(__file__).parent
TRAINS, DECODES, LEARNS = (
    [f"{name}:{precision}" for name in ("minitx", *PEERS) for precision in getattr(module(name), which, ())]
    for which in ("PRECISIONS", "DECODES_IN", "LEARNS_IN"))


def main() -> int:
    """Run the command line. Returns an exit code; an error of the user is one line."""
    args, console = parser().parse_args(), Console()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(Exit.TERMINATED))  # so that no worker is left behind
    try:
        args.run(args, console)
    except (UserError, NotInstalled) as error:
        console.line(f"benchmarks: error: {error}")
        return Exit.USAGE
    except KeyboardInterrupt:
        console.line("benchmarks: interrupted; what was measured is kept")
        return Exit.INTERRUPTED
    return Exit.OK


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    shared = argparse.ArgumentParser(add_help=False, parents=[places()])
    shared.add_argument("--threads", type=int, default=2)
    shared.add_argument("--minitx", default="", metavar="OVERRIDES", help="further arguments for minitx")
    shared.add_argument("--keep", action="store_true", help="keep the rows of systems that are not measured this time")
    whole = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = whole.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[..., None], help: str, systems: Sequence[str] = ()) -> argparse.ArgumentParser:
        added = commands.add_parser(name, parents=[shared], help=help)
        added.set_defaults(run=run)
        if systems:
            added.add_argument("--systems", nargs="*", choices=systems, default=systems, metavar="NAME:PRECISION",
                               help=f"which (default: all): {', '.join(systems)}")
        return added

    command("setup", setup, "install the peers, each into its own environment").add_argument(
        "peer", nargs="*", metavar="PEER", help=f"which (default: all): {', '.join(PEERS)}")
    added = command("training", training, "target tokens a second", TRAINS)
    added.add_argument("--rounds", type=int, default=3)
    added.add_argument("--window", type=float, default=50, help="seconds, after warm-up")
    added.add_argument("--warm-up", type=float, default=15, help=f"seconds, and {measure.WARM_UP_UPDATES} updates")
    added = command("decoding", decoding, "sentences a second of search", DECODES)
    added.add_argument("--rounds", type=int, default=3)
    added.add_argument("--batch-sizes", nargs="+", type=int, default=[1, 16, 64, 256, 512])
    added.add_argument("--beam-sizes", nargs="+", type=int, default=[1, 5], help="1 = greedy")
    added = command("quality", quality, "BLEU by minutes of training", LEARNS)
    added.add_argument("--minutes", type=float, default=20)
    added.add_argument("--every", type=float, default=4, help="minutes between two scores")
    added.add_argument("--minitx-minutes", nargs="*", type=float, default=[7.0], help="a run of minitx for each")
    command("table", table, "rewrite the tables from the results")
    return whole


def places() -> argparse.ArgumentParser:
    """Return a parser of the options that name folders, which change nothing that is measured."""
    folders = argparse.ArgumentParser(add_help=False)
    folders.add_argument("--peers", type=Path, default=HERE / ".peers", help="folder of environments and runs")
    folders.add_argument("--results", type=Path, default=HERE / "results" / "peers.json")
    folders.add_argument("--data", type=Path, default=Path(os.environ.get("MINITX_DATA", "data"), "multi30k"),
                         help="folder of the text (default: $MINITX_DATA/multi30k)")
    return folders


def command_line(words: Sequence[str]) -> str:
    """Return the command that repeats a measurement on any machine."""
    return shlex.join(["python", "-m", "benchmarks", *places().parse_known_args(words)[1]])


def setup(args: argparse.Namespace, console: Console) -> None:
    """Install the peers that are missing; one that cannot be installed does not stop the others."""
    for name in args.peer or PEERS:
        if name not in PEERS:
            raise UserError(f"{name}: no such peer; there are {', '.join(PEERS)}")
        try:
            install(name, args.peers, console)
            console.line(f"{name}: installed")
        except NotInstalled as error:
            console.line(f"{name}: {error}")
    console.line(f"text: {prepare_text(args.data, args.peers)}")


def training(args: argparse.Namespace, console: Console) -> None:
    """Measure training."""
    about = f"Windows of {args.window:g} s after {args.warm_up:g} s and {measure.WARM_UP_UPDATES} updates; medians."
    _measured(args, console, "training", about, lambda bench: measure.training(
        bench, _systems(args), args.rounds, args.warm_up, args.window))


def decoding(args: argparse.Namespace, console: Console) -> None:
    """Measure search, greedy and with a beam."""
    _measured(args, console, "decoding", "test_2016_flickr, every hypothesis forced to 16 tokens; medians.",
              lambda bench: measure.decoding(bench, _systems(args), args.rounds, args.batch_sizes, args.beam_sizes))


def quality(args: argparse.Namespace, console: Console) -> None:
    """Measure BLEU over time."""
    about = ("sacreBLEU (cased, 13a) of greedy search on test_2016_flickr; evaluation is off the clock. In these runs "
             "minitx's validation set is that test set.")
    _measured(args, console, "quality", about, lambda bench: measure.quality(
        bench, _systems(args), args.minutes, args.every, args.minitx_minutes))


def table(args: argparse.Namespace, console: Console) -> None:
    """Write the tables beside the results."""
    if not args.results.exists():
        raise UserError(f"{args.results}: no results yet; python -m benchmarks training makes some")
    page = args.results.with_suffix(".md")
    write_atomically(page, tables.render(json.loads(args.results.read_text())).encode())
    console.line(f"tables: {page}")


def _measured(args: argparse.Namespace, console: Console, name: str, settings: str,
              run: Callable[[Bench], list[Row]]) -> None:
    commit, dirty = git_state()
    section = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": hardware(torch.device("cpu")), "settings": settings,
               "threads": args.threads, "commit": f"{(commit or 'unknown')[:8]}{'-dirty' * bool(dirty)}",
               "command": command_line(sys.argv[1:]),
               "versions": {peer: versions(peer, args.peers) for peer in PEERS}}
    if args.keep:
        _same_machine(args.results, name, section)
    bench = Bench(args.peers.resolve(), prepare_text(args.data, args.peers).resolve(), args.threads,
                  tuple(shlex.split(args.minitx)), console, partial(_save, args.results, name, section, args.keep))
    run(bench)
    table(args, console)


def _save(path: Path, name: str, section: dict[str, Any], keep: bool, rows: list[Row]) -> None:
    """Replace a section of the results file. keep: except for the rows of other systems"""
    path.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(path.read_text()) if path.exists() else {}
    measured = {(row["system"], row["precision"]) for row in rows}
    before = [row for row in results.get(name, {}).get("rows", []) if (row["system"], row["precision"]) not in measured]
    rows = before * keep + [row | {"date": section["date"], "commit": section["commit"]} for row in rows]
    write_atomically(path, (json.dumps(results | {name: section | {"rows": rows}}, indent=1) + "\n").encode())


def _same_machine(path: Path, name: str, section: dict[str, Any]) -> None:
    """Errors: `UserError` if the rows to be kept were measured elsewhere, or with another number of threads."""
    before = json.loads(path.read_text()).get(name) if path.exists() else None
    for key in ("machine", "threads"):
        if before is not None and before[key] != section[key]:
            raise UserError(f"--keep: {path} has rows of {key} {before[key]}, not {section[key]}; measure all systems")


def _systems(args: argparse.Namespace) -> list[System]:
    return [System(*name.split(":")) for name in args.systems]


if __name__ == "__main__":
    sys.exit(main())
