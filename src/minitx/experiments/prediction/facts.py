"""A predicted training for a person, section by section, and for programs."""

from collections.abc import Iterator

from minitx.data.tokenizer import DEFAULT_VOCAB
from minitx.experiments.costs.doctor import Fact
from minitx.experiments.prediction.speed import EXPECTED_ERROR
from minitx.experiments.prediction.training import Estimate
from minitx.profiling.limits import LIMITS
from minitx.utils.console import duration

ERROR_IS = "a standard deviation of predicted over published speeds: trainings on A100, constants of V100"
WORDS = LIMITS | {"others": "other GPUs: gradients, shares that take longer, and what each update loses"}
LEFT_OUT = "validation, tests and checkpoints are not included"


def sections(found: Estimate, price: float | None = None) -> Iterator[tuple[str, list[Fact]]]:
    """Yield each section's name and facts. price: of a GPU for an hour; None = nothing is said of cost"""
    for name, facts in (("gpu", _gpu(found)), ("model", _model(found)), ("update", _update(found)),
                        ("predicted", _predicted(found)), ("lost_ms", _limits(found)),
                        ("kernels_ms", _kernels(found)), ("training", _training(found, price))):
        yield name, list(facts)


def _gpu(found: Estimate) -> Iterator[Fact]:
    device, gpus, precision = found.device, found.speed.gpus, found.work.precision
    yield Fact("gpu", device.name, device.name)
    yield Fact("gpus", gpus, f"{gpus}" + ("" if gpus == 1 else ", which share each update"))
    half = "no units for bf16 or fp16" if device.half is None else f"{device.half:g} in half precision"
    yield Fact("sheet", {"half_tflops": device.half, "fp32_tflops": device.fp32, "gb_per_s": device.bandwidth_gb_s,
                         "memory_gb": device.memory_gb},
               f"{device.multiprocessors} multiprocessors; TFLOP/s: {half}, {device.fp32:g} in fp32; "
               f"{device.bandwidth_gb_s:,g} GB/s, {device.memory_gb:g} GB")
    yield Fact("source", device.source, device.source)
    asked = found.cfg.trainer.precision
    yield Fact("precision", precision, precision + (", by auto" if asked == "auto" else ", as asked") + (
        "" if device.has_bf16 or not precision.startswith("bf16") else "; in fp16, since it has no units for bf16"))


def _model(found: Estimate) -> Iterator[Fact]:
    choices, state_gb = found.cfg.choices, found.state_bytes / 1e9
    guess = "" if found.cfg.tokenizer.vocab_size else f", if the text gives a vocabulary of {DEFAULT_VOCAB:,}"
    yield Fact("params", found.work.params, f"{found.work.params:,}  {choices.model} {found.cfg.model.size}{guess}")
    fits = "" if state_gb < found.device.memory_gb else "; more than it has"
    yield Fact("state_gb", state_gb, f"{state_gb:.2f}  of {found.device.memory_gb:g}: weights, gradients and their "
                                     f"moments; activations come on top and are not predicted{fits}")


def _update(found: Estimate) -> Iterator[Fact]:
    tokens, gpus = found.sentences * found.length, found.speed.gpus
    yield Fact("tgt_tokens", tokens, f"{tokens:,}  {found.sentences:,} sentences of {found.length:,} tokens on either "
                                     "side")
    each = "" if gpus == 1 else f", {found.turns:,} a GPU"
    yield Fact("micro_batches", found.micro_batches,
               f"{found.micro_batches:,}{each}; data.max_tokens={found.cfg.data.max_tokens:,}")


def _predicted(found: Estimate) -> Iterator[Fact]:
    speed = found.speed
    yield Fact("expected_error_pct", 100 * EXPECTED_ERROR, f"{100 * EXPECTED_ERROR:.0f}  {ERROR_IS}")
    seconds = (found.fast.seconds, speed.seconds, found.slow.seconds)
    fast, usual, slow = (short(1e3 * each) for each in seconds)
    yield Fact("update_ms", dict(zip(("fast", "usual", "slow"), (1e3 * each for each in seconds), strict=True)),
               f"{usual}  ({fast} to {slow}: no published training tests how fast host and small kernels are)")
    yield Fact("tgt_tokens_per_s", speed.tgt_tokens_per_s, f"{speed.tgt_tokens_per_s:,.0f}")
    least, most = speed.surely_busy_pct, speed.busy_pct
    yield Fact("busy_pct", {"least": least, "most": most},
               f"{least:.0f} to {most:.0f}  of the time in which some kernel runs, as NVML counts it")
    yield Fact("occupied_pct", speed.occupied_pct, f"{speed.occupied_pct:.0f}  of the multiprocessors that have work, "
                                                   "on average")
    if speed.mfu_pct is not None:
        yield Fact("mfu_pct", speed.mfu_pct, f"{speed.mfu_pct:.1f}  of the sheet's speed, by operations on real tokens")
    lost = lost_s(found)
    limit = max(lost, key=lost.__getitem__)
    yield Fact("bound_by", limit, f"{limit}, {100 * lost[limit] / speed.seconds:.0f} %: {WORDS[limit]}")
    yield Fact("graphed_ms", 1e3 * speed.graphed_s, f"{short(1e3 * speed.graphed_s)}  if it were launched as a CUDA "
                                                    "graph, which waits for no host")


def lost_s(found: Estimate) -> dict[str, float]:
    """Return the seconds of an update by what they are lost to, as `LIMITS` names it, and to the other GPUs."""
    others = {"others": found.speed.seconds - found.speed.one.seconds} if found.speed.gpus > 1 else {}
    return found.speed.by_limit_s | others


def _limits(found: Estimate) -> Iterator[Fact]:
    for limit, seconds in lost_s(found).items():
        yield Fact(limit, 1e3 * seconds, f"{short(1e3 * seconds)}  {WORDS[limit]}")


def _kernels(found: Estimate) -> Iterator[Fact]:
    one = found.speed.one
    yield Fact("launches", one.launches, f"{one.launches:,} kernels")
    for kind, seconds in sorted(one.by_kind.items(), key=lambda item: -item[1]):
        yield Fact(kind, 1e3 * seconds, f"{short(1e3 * seconds)}")


def _training(found: Estimate, price: float | None) -> Iterator[Fact]:
    updates, hours = found.updates, found.hours
    if updates is None or hours is None:
        yield Fact("hours", None, "unknown: none of trainer.max_steps, max_minutes and max_pflop is set, or the family "
                                  "does not count operations")
        return
    by_time = found.ended_by.startswith("trainer.max_minutes")
    few, many = found.factors
    between = f" ({short(updates / many)} to {short(updates / few)})" if by_time else ""
    yield Fact("updates", updates, f"{short(updates)}{between}  {found.ended_by}")
    low, high = (hours, hours) if by_time else (few * hours, many * hours)
    between = "" if by_time else f" ({duration(3600 * low)} to {duration(3600 * high)})"
    yield Fact("hours", {"usual": hours, "low": low, "high": high},
               f"{short(hours)}  {duration(3600 * hours)}{between}; {LEFT_OUT}")
    if price is not None:
        cost = hours * price * found.speed.gpus
        yield Fact("cost", cost, f"{cost:,.2f}  {found.speed.gpus} at {price:g} an hour")


def short(value: float) -> str:
    """Write a number with three digits, or all of those before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
