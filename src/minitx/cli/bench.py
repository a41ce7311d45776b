"""`minitx bench`: where an update's time goes (step), what makes it dearer (cost), what more ranks add (scaling)."""

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minitx.cli.arguments import add_json, positive
from minitx.cli.prepare import check_plot, compose_families, prepare_process, section_text, training_config
from minitx.cli.streams import created
from minitx.runs.result import DISTURBED_PCT
from minitx.utils.console import Console, warnings_told
from minitx.utils.errors import Exit, UserError
from minitx.utils.tables import aligned

HELP = "take a config's update apart: where its time goes, and what bounds it; or what families' cost grows with"
STEP = ("Take the same words as train.py, train some updates, keep nothing: seconds by phase and by kind of "
        "kernel, tokens a second, MFU, and where that is under this machine's roofline.")
COST = ("Take the same words as train.py, model=A,B for several families, and time one micro-batch of each, forwards "
        "and backwards: against the length of sentences and against d_model, with fitted exponents. Takes minutes.")
SCALING = ("Take the same words as train.py, and train some updates on 1, 2, 4 ... ranks, as many as there are GPUs; "
           "on a CPU, ranks of one thread, and one rank of as many threads. Speed, efficiency, and time in the "
           "exchange of gradients.")
DESCRIPTION = "Measure training on this machine; nothing is kept."


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what the commands take."""
    whats = parser.add_subparsers(required=True, metavar="WHAT")
    step = whats.add_parser("step", help="one update of training, taken apart", description=STEP)
    step.add_argument("--profile", type=Path, metavar="FILE", help="also write a trace that chrome://tracing shows")
    add_json(step)
    cost = whats.add_parser("cost", help="families' cost against length and width", description=COST)
    cost.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="also write all that was measured")
    cost.add_argument("--plot", type=Path, metavar="FILE.svg", help="also draw it; needs the extra `report`")
    cost.add_argument("--quick", action="store_true", help="fewer points and repeats: to see whether it works")
    scaling = whats.add_parser("scaling", help="speed against the number of ranks", description=SCALING)
    scaling.add_argument("--rounds", type=positive, default=3, help="measurements of each, in turn (3)")
    scaling.add_argument("--weak", action="store_true", help="let updates grow with the ranks")
    add_json(scaling)
    for what, measure in ((step, run_step), (cost, run_cost), (scaling, run_scaling)):
        what.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as after train.py")
        what.set_defaults(measure=measure)


def run(args: argparse.Namespace) -> int:
    """Hand over to what was asked for."""
    return int(args.measure(args))


def run_step(args: argparse.Namespace) -> int:
    """Compose the config as train.py does, bring the process into the same state, and measure."""
    if args.profile is not None and not args.profile.parent.is_dir():
        raise UserError(f"--profile {args.profile}: there is no folder {args.profile.parent}; make it", Exit.USAGE)
    cfg = training_config(args.overrides)
    if cfg.trainer.devices > 1:
        raise UserError(f"trainer.devices={cfg.trainer.devices}: this takes one rank's update apart; leave it out, or "
                        "compare ranks with minitx bench scaling")
    prepare_process(cfg, args.owns_process)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else torch's profiler tells that it begins and ends
    from minitx.experiments.costs.step import StepBenchmark  # imports torch and Lightning: seconds

    console = Console()
    with created(None) as sink, warnings_told(console):
        found = dict(StepBenchmark(cfg, console, args.profile).sections())
        console.clear()
        if args.json:
            values = {section: {fact.name: fact.value for fact in facts} for section, facts in found.items()}
            sink.write(json.dumps(values, indent=1).encode() + b"\n")
        else:
            sink.write("".join(section_text(section, facts) for section, facts in found.items()).encode())
    return Exit.OK


def run_cost(args: argparse.Namespace) -> int:
    """Compose a config a family, measure them side by side, and show, store and draw what was found."""
    from minitx.experiments.reports.plots import cost_curves

    check_plot(args.plot)
    families = compose_families(args.overrides)
    prepare_process(next(iter(families.values())), args.owns_process)
    from minitx.experiments.costs.complexity import FULL, QUICK, FamilyBenchmark  # imports torch and Lightning: seconds

    console = Console()
    with ExitStack() as stack:
        stack.enter_context(warnings_told(console))
        sink = stack.enter_context(created(None))
        output, plot = (path and stack.enter_context(created(path)) for path in (args.output, args.plot))
        found = FamilyBenchmark(families, QUICK if args.quick else FULL, console).measure()
        console.clear()
        sink.write("".join(f"{line}\n" for line in cost_table(found)).encode())
        if output:
            output.write(json.dumps(found, indent=1).encode() + b"\n")
        if plot:
            plot.write(cost_curves(found))
    return Exit.OK


def run_scaling(args: argparse.Namespace) -> int:
    """Compose the config as train.py does, and compare numbers of ranks."""
    cfg = training_config(args.overrides)
    if cfg.trainer.strategy != "ddp":
        raise UserError(f"trainer.strategy={cfg.trainer.strategy}: its exchange is not measured yet; leave it out")
    prepare_process(cfg, args.owns_process)
    from minitx.experiments.costs.scaling import compare, table  # imports torch and Lightning: seconds

    console = Console()
    with created(None) as sink, warnings_told(console):
        found = compare(cfg, args.rounds, args.weak, console)
        console.clear()
        text = json.dumps([asdict(one) for one in found], indent=1) + "\n" if args.json else "".join(
            f"{line}\n" for line in table(found))
        sink.write(text.encode())
    return Exit.OK


def cost_table(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that show a person what `FamilyBenchmark` has measured."""
    conditions = found["conditions"]
    most, other = conditions["peak_tflops"], conditions["other_cpu_pct"]
    yield (f"{conditions['tokens']:,} target tokens a micro-batch, forwards and backwards, median of "
           f"{conditions['repeats']}; {conditions['device']}, {conditions['threads']} threads, "
           f"{conditions['precision']}, vocabulary {conditions['vocab_size'][1]:,}")
    yield f"peak {'n/a' if most is None else f'{most:.3g} TFLOP/s'} ({conditions['peak_source']})"
    if other is not None and other > DISTURBED_PCT:
        yield f"disturbed: other processes took {other:.0f} % of the cores; measure anew on a quiet machine"
    for key in ("by_length", "by_width"):
        rows = [(key.replace("_", " "), "L", "d_model", "sentences", "ms", "ms/sentence", "us/token", "TFLOP/s", "MFU")]
        exponents = list[tuple[str, str]]()
        for name, curve in found[key].items():
            for point in curve["points"]:
                tflops, mfu = point["tflops"], point["mfu_pct"]
                rows.append((name, f"{point['length']:,}", f"{point['d_model']:,}", f"{point['sentences']:,}",
                             f"{1e3 * point['seconds']:,.1f}", f"{1e3 * point['sentence_s']:,.3f}",
                             f"{1e6 * point['token_s']:,.1f}", "n/a" if tflops is None else f"{tflops:.3f}",
                             "n/a" if mfu is None else f"{mfu:.1f} %"))
            error, (before, last) = curve["standard_error"], (point[curve["x"]] for point in curve["points"][-2:])
            exponents.append((name, f"grows as {curve['x']}^{curve['exponent']:.2f}"
                                    + (f" +- {error:.2f}" if error else "")
                                    + f", from {before:,} to {last:,} as {curve['x']}^{curve['last_exponent']:.2f}"))
        yield from ["", *aligned(rows), *aligned(exponents, "<")]
