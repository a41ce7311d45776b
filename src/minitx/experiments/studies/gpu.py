"""How busy a GPU is with each family, and how soon it reaches a BLEU: predicted, with the error of such predictions.

Nothing here is measured. Kernels of an update are recorded from the code itself on tensors without data
(`prediction/update.py`), timed by a model of a device whose constants were fitted on kernels of a V100
(`profiling/timeline.py`, `prediction/calibration.py`), and held against trainings that others published.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from math import inf, log, sqrt
from pathlib import Path
from statistics import fmean, median
from typing import Any

from minitx.config.compose import compose
from minitx.config.schema import Config
from minitx.experiments.costs.complexity import with_width
from minitx.experiments.fits import Claim, judge
from minitx.experiments.prediction.calibration import calibrate, layer_us, product_us
from minitx.experiments.prediction.published import Training, kernels, trainings
from minitx.experiments.prediction.quality import minutes_to, updates_to
from minitx.experiments.prediction.speed import Speed, Work, precision_on, predict_speed, work
from minitx.experiments.prediction.validation import WITHOUT, Fitted, errors, fit_trainings, predict, refit
from minitx.experiments.reports.results import read_rows
from minitx.profiling.devices import by_name
from minitx.profiling.timeline import Constants, Pace
from minitx.training.launch import resolve
from minitx.utils.console import Console
from minitx.utils.errors import UserError
from minitx.utils.progress import Progress
from minitx.utils.tables import aligned

LOOP = "lstm_cell_loop"
SYSTEMS = {LOOP: ("model=lstm", "model.cell_loop=true"), "lstm": ("model=lstm",),
           "lstm_attention": ("model=lstm_attention",), "transformer_nope": ("model=transformer_nope",),
           "transformer": ("model=transformer",)}
TARGET = 30.0  # BLEU on the validation set of the captions
PUBLISHED = Path("results", "published")


@dataclass(frozen=True)
class Case:
    """An update that is predicted: words of a config, and the shape of one GPU's batch."""

    words: tuple[str, ...]
    sentences: int
    length: int  # tokens of a sentence on either side, EOS included


CASES = {
    "small": Case(("experiment=headline_small",), 128, 16),  # as the published runs: 2,048 target tokens
    "base": Case(("experiment=headline_base",), 256, 32),
    "big": Case(("experiment=headline_big",), 256, 32),
}


@dataclass(frozen=True)
class Sizes:
    """What is predicted, and on which published trainings it is tested."""

    cases: tuple[str, ...] = ("small",)
    systems: tuple[str, ...] = ("lstm", "transformer")
    devices: tuple[str, ...] = ("v100", "h100")
    gpus: tuple[int, ...] = (1, 8)
    widths: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()
    shape_device: str = "h100"  # of widths and lengths
    tokens: int = 8192  # of a batch there
    published: tuple[str, ...] = ("transformer_big",)


SIZES = {"smoke": Sizes(),
         "full": Sizes(tuple(CASES), tuple(SYSTEMS), ("v100", "a100", "h100", "h200", "l4", "t4", "rtx4090"),
                       (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024), (128, 256, 512, 1024, 2048),
                       (16, 32, 64, 128, 256), published=("gnmt", "gnmt_cell_loop", "transformer_big"))}


def measure(families: Mapping[str, Config], sizes: Sizes, console: Console) -> dict[str, Any]:
    """Predict, and hold the same predictions against what was published. families: are not used

    Errors: `UserError` outside a checkout, which has the published figures
    """
    if not PUBLISHED.is_dir():
        raise UserError(f"{PUBLISHED}: no such folder; this study reads published figures, so run it in a checkout of "
                        "minitx")
    console.live("fitting the constants on kernels of a V100 ...")
    constants = calibrate(*kernels(PUBLISHED, "v100"), by_name("v100"))
    tests = validate([t for t in trainings(PUBLISHED) if t.system in sizes.published], constants, console)
    shapes = len(sizes.widths) + len(sizes.lengths)
    progress = Progress(console, float(len(sizes.systems) * (len(sizes.cases) * len(sizes.devices) + shapes)))
    speeds = list(predict_cases(sizes, constants, progress))
    found = {"constants": asdict(constants), "tests": tests, "kernels": kernel_errors(constants), "speeds": speeds,
             "quality": list(times_to_quality(speeds, tests["v100 to a100"]["spread"])),
             "by_width": list(predict_widths(sizes, constants, progress)),
             "by_length": list(predict_lengths(sizes, constants, progress))}
    return found | {"claims": [asdict(claim) for claim in claims(found)]}


# --- tests of the predictions


def validate(published: Sequence[Training], constants: Constants, console: Console) -> dict[str, Any]:
    """Fit on one kind of GPU, predict the other, both ways; and leave out each part of the model in turn."""
    kinds = {kind: [t for t in published if t.device.startswith(kind)] for kind in ("v100", "a100")}
    console.live("recording the updates of published trainings: a minute or several ...")
    fitted = {"v100": fit_trainings(kinds["v100"], constants), "a100": refit(kinds["a100"])}
    return {f"{one} to {other}": test(fitted[one], kinds[other]) for one, other in (("v100", "a100"), ("a100", "v100"))}


def test(fitted: Fitted, unseen: Sequence[Training]) -> dict[str, Any]:
    """Predict trainings that no constant was fitted on."""
    predictions = list(predict(unseen, fitted))
    rows = [{"system": p.training.system, "device": p.training.device, "gpus": p.training.gpus,
             "precision": p.training.precision, "published": p.training.tokens_per_s, "predicted": p.tokens_per_s,
             "error": p.error, "source": p.training.source} for p in predictions]
    alone = [log(1 + p.error) for p in predictions if p.training.gpus == 1]  # the others repeat their errors
    middle, worst = errors(predictions)
    return {"constants": asdict(fitted.kernels), "gap_us": fitted.loop.gap_us, "fleet": dict(fitted.fleet),
            "rows": rows, "median": middle, "worst": worst,
            "without": {part: errors(list(predict(unseen, fitted, model))) for part, model in WITHOUT.items()},
            "spread": sqrt(fmean(error**2 for error in alone)), "freedom": len(alone)}


def kernel_errors(constants: Constants) -> dict[str, Any]:
    """Compare single kernels with what was measured: on the V100 that they were fitted on, and on a T4, unseen."""
    found = dict[str, Any]()
    for name in ("v100", "t4"):
        products, layers = kernels(PUBLISHED, name)
        pace = Pace(by_name(name), constants)
        for dtype in ("half", "float"):
            ratios = [product_us(p, pace) / p.us for p in products if p.dtype == dtype]
            found[f"{name}, products, {dtype}"] = share_of(ratios)
        for place, what in enumerate(("forward", "backward")):
            ratios = [layer_us(layer, pace)[place] / (layer.forward_us, layer.backward_us)[place] for layer in layers]
            if ratios:
                found[f"{name}, LSTM layers, {what}"] = share_of(ratios)
    return found


def share_of(ratios: Sequence[float]) -> dict[str, Any]:
    """Summarise predicted over measured times."""
    return {"kernels": len(ratios), "median_ratio": median(ratios),
            "median_error": median(abs(ratio - 1) for ratio in ratios)}


# --- what our systems should do


@cache
def config(*words: str) -> Config:
    """Compose and resolve a config that no data are read for."""
    return resolve(compose(["logger=none", "trainer.accelerator=cpu", "data.max_tokens=100000", *words]))


@cache
def recorded(words: tuple[str, ...], sentences: int, length: int, device: str) -> Work:
    """Record an update; GPUs of one generation launch the same."""
    cfg = config(*words)
    return work(cfg, by_name(device), sentences, length, precision_on(cfg, by_name(device)))


def predict_cases(sizes: Sizes, constants: Constants, progress: Progress) -> Iterator[dict[str, Any]]:
    """Predict each system's update in each case on each device, for each number of GPUs."""
    for name in sizes.cases:
        case = CASES[name]
        for system in sizes.systems:
            for device in sizes.devices:
                done = recorded((*case.words, *SYSTEMS[system]), case.sentences, case.length, device)
                for gpus in sizes.gpus:
                    yield {"case": name, "system": system, "device": device} | as_values(
                        predict_speed(done, by_name(device), gpus, constants), done)
                progress(f"{system}, {name}, {device}")


def as_values(speed: Speed, done: Work) -> dict[str, Any]:
    """Return a prediction, ready for JSON."""
    return {"gpus": speed.gpus, "precision": done.precision, "update_ms": 1e3 * speed.seconds,
            "graphed_ms": 1e3 * speed.graphed.seconds, "busy_pct": speed.busy_pct, "occupied_pct": speed.occupied_pct,
            "mfu_pct": speed.mfu_pct, "tgt_tokens_per_s": speed.tgt_tokens_per_s, "launches": speed.one.launches,
            "by_kind_ms": {kind: 1e3 * seconds for kind, seconds in speed.one.by_kind.items()}}


def predict_widths(sizes: Sizes, constants: Constants, progress: Progress) -> Iterator[dict[str, Any]]:
    """Predict an update over d_model, all widths of a model in step with it."""
    device = by_name(sizes.shape_device)
    for width in sizes.widths:
        for system in sizes.systems:
            cfg = config(*CASES["small"].words, *SYSTEMS[system])
            cfg = replace(cfg, model=with_width(cfg.model, width))
            done = work(cfg, device, sizes.tokens // 32, 32, precision_on(cfg, device))
            yield {"system": system, "d_model": width} | as_values(predict_speed(done, device, 1, constants), done)
            progress(f"{system}, d_model {width}")


def predict_lengths(sizes: Sizes, constants: Constants, progress: Progress) -> Iterator[dict[str, Any]]:
    """Predict an update of as many tokens over the length of its sentences."""
    for length in sizes.lengths:
        for system in sizes.systems:
            done = recorded((*CASES["base"].words, *SYSTEMS[system]), sizes.tokens // length, length,
                            sizes.shape_device)
            speed = predict_speed(done, by_name(sizes.shape_device), 1, constants)
            yield {"system": system, "length": length} | as_values(speed, done)
            progress(f"{system}, {length} tokens")


def times_to_quality(speeds: Sequence[Mapping[str, Any]], spread: float) -> Iterator[dict[str, Any]]:
    """Yield minutes to `TARGET` at size small: at worst as many updates as one GPU needs, at best the same tokens."""
    rows = read_rows(PUBLISHED.parent)
    for speed in speeds:
        if speed["case"] != "small":
            continue
        system = speed["system"].removesuffix("_cell_loop")
        seeds = [row.curve for row in rows
                 if row.result.experiment == "headline_small" and row.result.model == system]
        updates = [updates_to(curve, TARGET) for curve in seeds]
        at_worst = minutes_to(seeds, TARGET, speed["update_ms"] / 1e3, spread)
        yield {"system": speed["system"], "device": speed["device"], "gpus": speed["gpus"], "bleu": TARGET,
               "updates": updates, "minutes": None if at_worst is None else asdict(at_worst),
               "best_minutes": None if at_worst is None else at_worst.minutes / speed["gpus"]}


# --- claims


def claims(found: Mapping[str, Any]) -> Iterator[Claim]:
    """Judge the predictions, and what is said of GPUs."""
    for way, tested in found["tests"].items():
        one, _, other = way.partition(" to ")
        named = f"trainings on {other.upper()}, predicted from {one.upper()}"
        yield exactly(f"{named}, are off by a median of at most 15 %", 100 * tested["median"], 15)
        yield exactly(f"{named}, are off by 35 % at most", 100 * tested["worst"], 35)
    spread = found["tests"]["v100 to a100"]["spread"]
    for speed in found["speeds"]:
        if speed["case"] == "small" and speed["gpus"] == 1 and speed["device"] == "h100":
            yield from busy_claims(speed, spread)


def exactly(claim: str, value: float, most: float) -> Claim:
    """Judge a value that has no error of its own."""
    return judge(claim, value, (value, value), (-inf, most))


def busy_claims(speed: Mapping[str, Any], spread: float) -> Iterator[Claim]:
    """Judge the shares of lectures: a GPU is 1 to 2 % busy with an RNN, 85 to 92 % with a Transformer."""
    asked = {"lstm": (1.0, 2.0), "lstm_attention": (1.0, 5.0), "transformer": (85.0, 92.0)}.get(speed["system"])
    if asked is None:
        return
    busy = speed["busy_pct"]
    low, high = busy * (1 - 2 * spread), min(100.0, busy * (1 + 2 * spread))
    yield judge(f"an H100 is busy with {speed['system']} for {asked[0]:g} to {asked[1]:g} % of the time", busy,
                (low, high), asked)


# --- for a person


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the errors of predictions, and the predictions, of one GPU each."""
    for way, tested in found["tests"].items():
        yield f"{way}: median error {100 * tested['median']:.0f} %, worst {100 * tested['worst']:.0f} %"
    yield ""
    rows = [("predicted", "case", "GPU", "update ms", "busy", "occupied", "MFU", "tokens/s", "as a graph, ms")]
    for speed in found["speeds"]:
        if speed["gpus"] == 1:
            mfu = "n/a" if speed["mfu_pct"] is None else f"{speed['mfu_pct']:.1f} %"
            rows.append((speed["system"], speed["case"], speed["device"], f"{speed['update_ms']:,.1f}",
                         f"{speed['busy_pct']:.0f} %", f"{speed['occupied_pct']:.0f} %", mfu,
                         f"{speed['tgt_tokens_per_s']:,.0f}", f"{speed['graphed_ms']:,.1f}"))
    yield from aligned(rows, "<<<>>>>>>")
