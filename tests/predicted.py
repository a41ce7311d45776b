"""A study `gpu` as its file holds it, small and made up: two sizes, four systems, three GPUs."""

from collections.abc import Iterator
from typing import Any

SYSTEMS = {"lstm_cell_loop": 4.0, "lstm": 2.0, "lstm_attention": 3.0, "transformer": 1.0}  # how slow each is
DEVICES = {"v100": 4.0, "a100": 2.0, "h100": 1.0}
CASES = {"small": (2048, 5.0), "big": (8192, 40.0)}  # target tokens, milliseconds
GPUS = 1, 8, 16, 32
LEARNED = {"lstm": [1800.0, None], "lstm_attention": [400.0, 1000.0], "transformer": [400.0, 1000.0]}  # updates
SOURCE = "someone, somewhere"


def speed(ms: float, tokens: int, gpus: int = 1) -> dict[str, Any]:
    """Return an update as the study predicts it."""
    return {"gpus": gpus, "precision": "bf16-mixed", "tgt_tokens": gpus * tokens, "update_ms": ms, "fast_ms": ms / 2,
            "slow_ms": 2 * ms, "graphed_ms": 0.9 * ms, "busy_pct": [100 / ms, 99.0], "occupied_pct": 200 / ms,
            "mfu_pct": 10 / ms, "tgt_tokens_per_s": 1e3 * gpus * tokens / ms, "launches": 700,
            "by_kind_ms": {"product": 0.5 * ms, "elementwise": 0.3 * ms},
            "by_limit_ms": {"host": 0.2 * ms, "recurrence": 0.0, "starts": 0.1 * ms, "products": 0.4 * ms,
                            "memory": 0.3 * ms}}


def qualities() -> Iterator[dict[str, Any]]:
    """Yield minutes to two BLEUs; an LSTM alone gets to the lower one only."""
    for system, slow in SYSTEMS.items():
        for device, times in DEVICES.items():
            for gpus in GPUS:
                for kind in ("growing", "shared") if device == "h100" else ("growing",):
                    if kind == "shared" and gpus > 16:
                        continue
                    for place, bleu in enumerate((20.0, 30.0)):
                        needed = LEARNED[system.removesuffix("_cell_loop")][place]
                        each = None if needed is None else needed / (gpus if kind == "growing" else 1)
                        minutes = None if each is None else 5.0 * slow * times * each / 60e3
                        yield {"kind": kind, "system": system, "device": device, "gpus": gpus, "bleu": bleu,
                               "updates": [each] * 3, "minutes": minutes and [minutes, minutes / 3, 3 * minutes]}


def tested(device: str, error: float) -> dict[str, Any]:
    """Return trainings that were predicted with this error on one GPU, and twice of it on eight."""
    rows = [{"system": system, "device": device, "gpus": gpus, "precision": precision, "published": speed,
             "predicted": speed * (1 + gpus ** (1 / 3) * error), "error": gpus ** (1 / 3) * error, "source": SOURCE}
            for system, alone in (("gnmt", 100_000.0), ("transformer_big", 80_000.0))
            for precision in ("half", "tf32" if device == "a100" else "fp32")
            for gpus, speed in ((1, alone), (8, 6.4 * alone))]
    return {"rows": rows, "median": 1.5 * abs(error), "worst": 2 * abs(error), "spread": abs(error), "freedom": 4,
            "fleet": {"exposed": 0.5, "uneven": 0.07, "parameter_s": 2e-11}, "gap_us": 5.0, "constants": {},
            "without": {part: [2 * abs(error), 4 * abs(error)] for part in (
                "tiles and waves", "bytes", "the cache", "floors of kernels", "the host")}}


def gpu_study() -> dict[str, Any]:
    """Return the whole study, with claims and conditions."""
    speeds = [{"case": case, "system": system, "device": device} | speed(ms * slow * times, tokens, gpus)
              for case, (tokens, ms) in CASES.items() for system, slow in SYSTEMS.items()
              for device, times in DEVICES.items() for gpus in GPUS if (case, system) != ("big", "lstm_cell_loop")]
    by_width, by_length = ([{"system": system, key: value} | speed(n * slow, 8192) for n, value in enumerate(values, 1)
                            for system, slow in SYSTEMS.items()]
                           for key, values in (("d_model", (256, 512)), ("length", (16, 32, 64))))
    return {
        "study": "gpu", "size": "full", "sizes": {"cases": list(CASES), "devices": list(DEVICES), "gpus": list(GPUS),
                                                  "shape_device": "h100", "tokens": 8192},
        "tests": {"v100 to a100": tested("a100", 0.08), "a100 to v100": tested("v100", -0.05)},
        "kernels": {"v100, products, half": {"kernels": 160, "median_ratio": 1.03, "median_error": 0.08}},
        "speeds": speeds, "by_width": by_width, "by_length": by_length, "quality": list(qualities()), "shared": [],
        "claims": [{"claim": "it is near", "expected": "at most 15", "measured": "9", "holds": True, "why": "9 to 9"}],
        "conditions": {"hardware": {"cpu": "a processor"}, "threads": 2, "precision": "32-true", "seed": 1,
                       "took_s": 61.0, "versions": {"torch": "2.13.0"}, "other_cpu_pct": 0.5, "git_dirty": False}}
