"""How busy a GPU is with each family, and how soon it reaches a BLEU: predicted, with the error of such predictions.

Nothing here is measured. Kernels of an update are recorded from the code itself on tensors without data
(`prediction/update.py`), timed by a model of a device whose constants were fitted on kernels of a V100
(`profiling/timeline.py`, `prediction/calibration.py`), and held against trainings that others published.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import product
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
from minitx.experiments.prediction.speed import Work, predict_speed, work
from minitx.experiments.prediction.validation import WITHOUT, Fitted, errors, fit_trainings, predict, refit
from minitx.experiments.reports.results import read_rows
from minitx.profiling.devices import Device, article, by_name
from minitx.profiling.fleet import Fleet
from minitx.profiling.timeline import FAST, SLOW, Constants, Pace
from minitx.training.launch import resolve
from minitx.utils.console import Console
from minitx.utils.errors import UserError
from minitx.utils.progress import Progress
from minitx.utils.tables import aligned

LOOP = "lstm_cell_loop"
SYSTEMS = {LOOP: ("model=lstm", "model.cell_loop=true"), "lstm": ("model=lstm",),
           "lstm_attention": ("model=lstm_attention",), "transformer_nope": ("model=transformer_nope",),
           "transformer": ("model=transformer",)}
TARGETS = 20.0, 30.0  # BLEU on the validation set of the captions: what all four systems reach, and the target
TOO_LONG = "big", LOOP  # to record: every operator of every cell
MOST_TESTED = 16  # GPUs, of the published trainings
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
         "full": Sizes(tuple(CASES), tuple(SYSTEMS), ("v100", "a100", "h100", "h200"),
                       (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024), (128, 256, 512, 1024, 2048),
                       (8, 16, 32, 64, 128), published=("gnmt", "gnmt_cell_loop", "transformer_big"))}


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
    shapes = len(sizes.widths) + len(sizes.lengths) + 1
    progress = Progress(console, float(len(sizes.systems) * (len(sizes.cases) * len(sizes.devices) + shapes)))
    speeds = list(predict_cases(sizes, constants, progress))
    found: dict[str, Any] = {
        "constants": asdict(constants), "fast": asdict(FAST), "slow": asdict(SLOW), "tests": tests,
        "kernels": kernel_errors(constants), "speeds": speeds,
        "shared": list(predict_shares(sizes, constants, progress)),
        "by_width": list(predict_widths(sizes, constants, progress)),
        "by_length": list(predict_lengths(sizes, constants, progress))}
    found["quality"] = list(times_to_quality(found, tests["v100 to a100"]))
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
    """Record an update."""
    return work(config(*words), by_name(device), sentences, length, mixed(by_name(device)))


def like(device: str) -> str:
    """Return a device on which our training launches the same: since Ampere all take packed sentences, in bf16."""
    return "a100" if by_name(device).has_bf16 else "v100"


def mixed(device: Device) -> str:
    """Return the mixed precision for which a device has units."""
    return "bf16-mixed" if device.has_bf16 else "16-mixed"


def predict_cases(sizes: Sizes, constants: Constants, progress: Progress) -> Iterator[dict[str, Any]]:
    """Predict each system's update in each case on each device, and with several GPUs that each do as much."""
    for name in sizes.cases:
        case = CASES[name]
        for system in sizes.systems:
            for device in sizes.devices if (name, system) != TOO_LONG else ():
                done = recorded((*case.words, *SYSTEMS[system]), case.sentences, case.length, like(device))
                for gpus in sizes.gpus if name == "small" else (1,):  # the only size with a time to quality
                    yield {"case": name, "system": system, "device": device} | as_values(
                        done, by_name(device), gpus, constants)
                progress(f"{system}, {name}, {device}")


def as_values(done: Work, device: Device, gpus: int, constants: Constants) -> dict[str, Any]:
    """Predict an update as expected, and with the fastest and the slowest host and small kernels, ready for JSON."""
    expected, slow = (predict_speed(done, device, gpus, each) for each in (constants, SLOW))
    fast = predict_speed(done, device, gpus, FAST, Fleet(device, parameter_s=0.0))
    return {"gpus": gpus, "precision": done.precision, "tgt_tokens": gpus * done.tgt_tokens,
            "update_ms": 1e3 * expected.seconds, "fast_ms": 1e3 * fast.seconds, "slow_ms": 1e3 * slow.seconds,
            "graphed_ms": 1e3 * expected.graphed.seconds,
            "busy_pct": [min(100 * each.one.surely_busy_s / each.seconds for each in (expected, fast, slow)),
                         max(100 * each.one.busy_s / each.seconds for each in (expected, fast))],
            "occupied_pct": expected.occupied_pct, "mfu_pct": expected.mfu_pct,
            "tgt_tokens_per_s": expected.tgt_tokens_per_s, "launches": expected.one.launches,
            "by_kind_ms": {kind: 1e3 * seconds for kind, seconds in expected.one.by_kind.items()},
            "by_limit_ms": {limit: 1e3 * seconds for limit, seconds in expected.by_limit_s.items()}}


def predict_widths(sizes: Sizes, constants: Constants, progress: Progress) -> Iterator[dict[str, Any]]:
    """Predict an update over d_model, all widths of a model in step with it."""
    device = by_name(sizes.shape_device)
    for width in sizes.widths:
        for system in sizes.systems:
            cfg = config(*CASES["small"].words, *SYSTEMS[system])
            cfg = replace(cfg, model=with_width(cfg.model, width))
            done = work(cfg, device, sizes.tokens // 32, 32, mixed(device))
            yield {"system": system, "d_model": width} | as_values(done, device, 1, constants)
            progress(f"{system}, d_model {width}")


def predict_lengths(sizes: Sizes, constants: Constants, progress: Progress) -> Iterator[dict[str, Any]]:
    """Predict an update of as many tokens over the length of its sentences."""
    device = by_name(sizes.shape_device)
    for length in sizes.lengths:
        for system in sizes.systems:
            done = recorded((*CASES["base"].words, *SYSTEMS[system]), sizes.tokens // length, length, like(device.name))
            yield {"system": system, "length": length} | as_values(done, device, 1, constants)
            progress(f"{system}, {length} tokens")


def predict_shares(sizes: Sizes, constants: Constants, progress: Progress) -> Iterator[dict[str, Any]]:
    """Predict the published runs' own update, its sentences shared by several GPUs."""
    case = CASES["small"]
    for system in sizes.systems:
        for gpus in (gpus for gpus in sizes.gpus if gpus <= MOST_TESTED):
            done = recorded((*case.words, *SYSTEMS[system]), case.sentences // gpus, case.length,
                            like(sizes.shape_device))
            yield {"system": system, "device": sizes.shape_device} | as_values(
                done, by_name(sizes.shape_device), gpus, constants)
        progress(f"{system}, shared")


def times_to_quality(found: Mapping[str, Any], tested: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield minutes to each of `TARGETS` at size small, by system, device and number of GPUs.

    shared: as many updates as one GPU needs, each shared by all. growing: each GPU brings as many tokens as one did,
    and in the best case so many fewer updates are needed, though never fewer than the warm-up has.
    """
    warm_up = config(*CASES["small"].words).optim.warmup_steps
    rows = [row for row in read_rows(PUBLISHED.parent) if row.result.experiment == "headline_small"]
    for kind, speeds in (("growing", [each for each in found["speeds"] if each["case"] == "small"]),
                         ("shared", found["shared"])):
        for speed, target in product(speeds, TARGETS):
            model = speed["system"].removesuffix("_cell_loop")
            updates = [updates_to(row.curve, target) for row in rows if row.result.model == model]
            needed = [None if n is None else max(n / speed["gpus"], min(n, warm_up)) if kind == "growing" else n
                      for n in updates]
            yield {"kind": kind, "system": speed["system"], "device": speed["device"], "gpus": speed["gpus"],
                   "bleu": target, "updates": needed, "minutes": ranged(needed, speed, tested)}


def ranged(updates: Sequence[float | None], speed: Mapping[str, Any], tested: Mapping[str, Any]) -> list[float] | None:
    """Return minutes as expected, and the ends of what seeds, errors of predictions and hosts leave open."""
    middle, low, high = (minutes_to(updates, speed[key] / 1e3, tested["spread"], tested["freedom"])
                         for key in ("update_ms", "fast_ms", "slow_ms"))
    if middle is None or low is None or high is None:
        return None
    return [middle.minutes, min(middle.low, low.low), max(middle.high, high.high)]


# --- claims


def claims(found: Mapping[str, Any]) -> Iterator[Claim]:
    """Judge the predictions, and what lectures say of GPUs."""
    for way, tested in found["tests"].items():
        one, _, other = way.partition(" to ")
        named = f"trainings on {other.upper()}, predicted from {one.upper()}"
        yield exactly(f"{named}, are off by a median of at most 15 %", 100 * tested["median"], 15)
        yield exactly(f"{named}, are off by 35 % at most", 100 * tested["worst"], 35)
    for speed in found["speeds"]:
        if speed["gpus"] == 1 and speed["case"] == "small" and speed["system"] in LECTURES:
            yield busy_claim(speed)


LECTURES = {LOOP: (1.0, 2.0), "lstm": (1.0, 2.0), "lstm_attention": (1.0, 5.0), "transformer": (85.0, 92.0)}  # busy, %


def exactly(claim: str, value: float, most: float) -> Claim:
    """Judge a value that has no error of its own."""
    return judge(claim, value, (value, value), (-inf, most))


def busy_claim(speed: Mapping[str, Any]) -> Claim:
    """Judge the share of the time in which a GPU is busy, as lectures give it."""
    asked, (low, high) = LECTURES[speed["system"]], speed["busy_pct"]
    return judge(f"{article(speed['device'].upper())} is busy with {speed['system']}, size small, for {asked[0]:g} to "
                 f"{asked[1]:g} % of the time", (low + high) / 2, (low, high), asked)


# --- for a person


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the errors of predictions, and the predictions of one GPU each."""
    for way, tested in found["tests"].items():
        yield f"{way}: median error {100 * tested['median']:.0f} %, worst {100 * tested['worst']:.0f} %"
    for name, kernel in found["kernels"].items():
        yield (f"{name}: {kernel['kernels']} kernels, predicted {kernel['median_ratio']:.2f} of measured, median error "
               f"{100 * kernel['median_error']:.0f} %")
    yield ""
    rows = [("predicted", "case", "GPU", "update ms", "range", "busy", "occupied", "MFU", "tokens/s", "as a graph, ms")]
    for speed in found["speeds"]:
        if speed["gpus"] == 1:
            mfu = "n/a" if speed["mfu_pct"] is None else f"{speed['mfu_pct']:.1f} %"
            low, high = speed["busy_pct"]
            rows.append((speed["system"], speed["case"], speed["device"], f"{speed['update_ms']:,.1f}",
                         f"{speed['fast_ms']:,.1f} to {speed['slow_ms']:,.1f}", f"{low:.0f} to {high:.0f} %",
                         f"{speed['occupied_pct']:.0f} %", mfu, f"{speed['tgt_tokens_per_s']:,.0f}",
                         f"{speed['graphed_ms']:,.1f}"))
    yield from aligned(rows, "<<<>>>>>>>")
