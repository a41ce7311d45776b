"""`minitx bench`: where an update's time goes (step), how it grows (cost), and what more ranks add (scaling)."""

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
from minitx.runs.result import disturbance
from minitx.utils.console import Console, counted, show_warnings
from minitx.utils.errors import Exit, UserError
from minitx.utils.tables import aligned

HELP = "measure training on this machine: an update by its parts, families by length and width, numbers of ranks"
STEP = ("Train some updates with the arguments of minitx train, and show seconds by phase and by kind of kernel, "
        "tokens a second, MFU, and how close that is to this machine's roofline. Nothing is saved.")
COST = ("Time one micro-batch, forward and backward, of each of several families, with the arguments of minitx train "
        "and model=A,B: over sentence length and over d_model, with fitted exponents. Takes minutes.")
SCALING = ("Train some updates with the arguments of minitx train on 1, 2, 4 ... ranks, up to the number of GPUs; on "
           "a CPU, on ranks of one thread, and on one rank of as many threads. Shows speed, efficiency, and the time "
           "spent in the exchange of gradients.")
DESCRIPTION = "Measure training on this machine. Nothing is saved unless a file is named."


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the three measurements and their options."""
    measurements = parser.add_subparsers(required=True, metavar="WHAT")
    step = measurements.add_parser("step", help="where the time of one update goes", description=STEP)
    step.add_argument("--profile", type=Path, metavar="FILE", help="also write a trace for chrome://tracing")
    add_json(step)
    cost = measurements.add_parser("cost", help="families over sentence length and width", description=COST)
    cost.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="also write all measurements")
    cost.add_argument("--plot", type=Path, metavar="FILE.svg", help="also draw it; needs the extra `report`")
    cost.add_argument("--quick", action="store_true", help="fewer points and repeats, to try it out")
    scaling = measurements.add_parser("scaling", help="speed over the number of ranks", description=SCALING)
    scaling.add_argument("--rounds", type=positive, default=3, help="measurements of each number of ranks (3)")
    scaling.add_argument("--weak", action="store_true", help="let updates grow with the ranks")
    add_json(scaling)
    for subparser, measure in ((step, run_step), (cost, run_cost), (scaling, run_scaling)):
        subparser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for minitx train")
        subparser.set_defaults(measure=measure)


def run(args: argparse.Namespace) -> int:
    """Run the measurement that was chosen. Errors: `UserError`"""
    return int(args.measure(args))


def run_step(args: argparse.Namespace) -> int:
    """Measure one update of a config."""
    if args.profile is not None and not args.profile.parent.is_dir():
        raise UserError(f"--profile {args.profile}: there is no folder {args.profile.parent}; make it")
    cfg = training_config(args.overrides)
    if cfg.trainer.devices > 1:
        raise UserError(f"trainer.devices={cfg.trainer.devices}: bench step measures one rank; leave it out, or "
                        "compare numbers of ranks with minitx bench scaling")
    prepare_process(cfg)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else torch's profiler logs its start and end
    from minitx.experiments.costs.step import StepBenchmark  # imports torch and Lightning: seconds

    console = Console()
    with created(None) as sink, show_warnings(console):
        sections = dict(StepBenchmark(cfg, console, args.profile).sections())
        console.clear()
        if args.json:
            values = {section: {fact.name: fact.value for fact in facts} for section, facts in sections.items()}
            sink.write(json.dumps(values, indent=1).encode() + b"\n")
        else:
            sink.write("".join(section_text(section, facts) for section, facts in sections.items()).encode())
    return Exit.OK


def run_cost(args: argparse.Namespace) -> int:
    """Compose a config for each family, measure them side by side, and show, store and draw the results."""
    from minitx.experiments.reports.plots import cost_curves

    check_plot(args.plot)
    families = compose_families(args.overrides)
    prepare_process(next(iter(families.values())))
    from minitx.experiments.costs.complexity import FULL, QUICK, FamilyBenchmark  # imports torch and Lightning: seconds

    console = Console()
    with ExitStack() as stack:
        stack.enter_context(show_warnings(console))
        sink = stack.enter_context(created(None))
        output, plot = (path and stack.enter_context(created(path)) for path in (args.output, args.plot))
        results = FamilyBenchmark(families, QUICK if args.quick else FULL, console).measure()
        console.clear()
        if output:
            output.write(json.dumps(results, indent=1).encode() + b"\n")
        if plot:
            plot.write(cost_curves(results))
        sink.write("".join(f"{line}\n" for line in cost_table(results)).encode())
    return Exit.OK


def run_scaling(args: argparse.Namespace) -> int:
    """Compare numbers of ranks."""
    cfg = training_config(args.overrides)
    if cfg.trainer.strategy != "ddp":
        raise UserError(f"trainer.strategy={cfg.trainer.strategy}: its exchange is not measured yet; leave it out")
    if cfg.trainer.devices > 1:
        raise UserError(f"trainer.devices={cfg.trainer.devices}: bench scaling compares 1, 2, 4 and more ranks, as "
                        "many as this machine has room for; leave it out")
    prepare_process(cfg)
    from minitx.experiments.costs.scaling import compare, table  # imports torch and Lightning: seconds

    console = Console()
    with created(None) as sink, show_warnings(console):
        points = compare(cfg, args.rounds, args.weak, console)
        console.clear()
        text = json.dumps([asdict(point) for point in points], indent=1) + "\n" if args.json else "".join(
            f"{line}\n" for line in table(points))
        sink.write(text.encode())
    return Exit.OK


def cost_table(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of all points and exponents. results: as `FamilyBenchmark.measure` returns them"""
    conditions = results["conditions"]
    peak_tflops = conditions["peak_tflops"]
    yield (f"{conditions['tokens']:,} target tokens a micro-batch, forward and backward, median of "
           f"{conditions['repeats']}; {conditions['device']}, {counted(conditions['threads'], 'thread')}, "
           f"{conditions['precision']}, vocabulary {conditions['vocab_size'][1]:,}")
    yield f"peak {'n/a' if peak_tflops is None else f'{peak_tflops:.3g} TFLOP/s'} ({conditions['peak_source']})"
    if (others := disturbance(conditions["other_cpu_pct"])) is not None:
        yield f"disturbed: {others}; measure again on a quiet machine"
    for key in ("by_length", "by_width"):
        rows = [(key.replace("_", " "), "L", "d_model", "sentences", "ms", "ms/sentence", "us/token", "TFLOP/s", "MFU")]
        exponents = list[tuple[str, str]]()
        for name, curve in results[key].items():
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
