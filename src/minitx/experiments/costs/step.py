"""Where the time of one update goes: by phase, by kind of kernel, and against the machine's roofline."""

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from typing_extensions import override

from minitx.config.schema import Config
from minitx.experiments.costs.doctor import Doctor, Fact
from minitx.experiments.costs.dry_run import DryRun, dry_run, fit_until_stopped
from minitx.profiling.operators import bytes_of
from minitx.profiling.peak import copy_gb_per_s, peak
from minitx.training.build import build_task, build_trainer, choose_precision
from minitx.training.callbacks import training_flop
from minitx.training.state import RunState
from minitx.training.task import TranslationTask
from minitx.utils.console import Console

PROFILED = 3  # updates, after one of warm-up and one whose bytes are counted
# Kinds of kernel by operator: the first pattern that matches. All that a fused kernel does counts as matmul; products
# and softmax of the loss count as any others.
KINDS = {
    "loss": r"log_softmax|logsumexp|CrossEntropy|cross_entropy|nll_loss",
    "optimizer": r"adam|Optimizer|_foreach|vector_norm",
    "recurrence": r"rnn|lstm|gru",
    "attention": r"attention|attn|softmax|aten::(baddbmm|bmm)",
    "matmul": r"aten::(_?addmm|mm|addmv|mv|linear|matmul|dot)|mkldnn_linear|_linear_pointwise|_scaled_mm",
    "normalisation": r"norm",
    "dropout": r"dropout|random|bernoulli|uniform",
    "copies": r"aten::(to|_to_copy|copy|clone|contiguous|cat|stack|index|gather|scatter|take|put|embedding|fill|zero"
              r"|repeat|masked_select|nonzero|arange|item|_local_scalar)|Memcpy|Memset",
    "elementwise": r"aten::",
    "other": r"",
}  # fmt: skip
LOSS = "_LinearCrossEntropy"  # as the profiler names it: `training.loss` in one
GIB = 2**30


class StepBenchmark:
    """Measure one update of a resolved config on this machine. Only the cache and the trace are written."""

    def __init__(self, cfg: Config, console: Console, trace: Path | None = None) -> None:
        """trace: file for a Chrome trace of the profiled updates"""
        self.cfg, self.console, self.trace = cfg, console, trace

    def sections(self) -> Iterator[tuple[str, list[Fact]]]:
        """Yield each section's name and facts. Errors: `UserError` for a config that cannot be trained."""
        doctor = Doctor(self.cfg, self.console)
        self.console.live("examining devices ...")
        yield "devices", list(doctor.devices())
        self.console.live("reading the text ...")
        for _ in doctor.text():
            pass
        assert doctor.device is not None
        assert doctor.data is not None
        assert doctor.tokenizers is not None
        device, data = doctor.device, doctor.data
        state = RunState(precision=choose_precision(self.cfg.trainer, device), horizon_steps=self.cfg.trainer.max_steps)
        task = build_task(self.cfg, doctor.tokenizers, state)
        measured = dry_run(task, data, device, self.console)
        profiler = KernelProfiler(self.console, self.trace)
        fit_until_stopped(build_trainer(device, [profiler]), task, data)
        yield "update", list(update_facts(measured, profiler.loss_pct()))
        yield "kernels", list(profiler.facts())
        self.console.live("measuring products and copies ...")
        yield "roofline", list(roofline_facts(measured, profiler, device, task.precision))


def update_facts(measured: DryRun, loss_pct: float) -> Iterator[Fact]:
    """Yield the median update, split by each phase's share of all measured updates, and its rates.

    loss_pct: the share of the loss in the time in kernels, its gradients included, for forward takes both
    """
    low, middle, high = measured.quartiles_s
    total = sum(measured.update_s)
    yield Fact("update_ms", {"median": 1000 * middle, "low": 1000 * low, "high": 1000 * high},
               f"{1000 * middle:,.1f}  (half of {len(measured.update_s)} between {1000 * low:,.1f} and "
               f"{1000 * high:,.1f})")
    parts = measured.split_s | {"other": max(0.0, total - sum(measured.split_s.values()))}
    for name, seconds in parts.items():
        share = seconds / total
        value, text = {"share_pct": 100 * share, "ms": 1000 * share * middle}, share_text(share, share * middle)
        if name == "forward":
            value["loss_pct_of_kernels"] = loss_pct
            text += ("  the loss takes its gradients here too, while it has the logits: together "
                     f"{loss_pct:.0f} % of the time in kernels")
        yield Fact(name, value, text)
    tokens = measured.tgt_tokens / len(measured.update_s)
    yield Fact("tgt_tokens", tokens, f"{tokens:,.0f} an update")
    yield Fact("tgt_tokens_per_s", measured.tgt_tokens / total, f"{measured.tgt_tokens / total:,.0f}")
    yield Fact("peak_memory_gib", measured.peak_memory_gib, f"{measured.peak_memory_gib:.2f}")


def roofline_facts(measured: DryRun, profiler: "KernelProfiler", device: torch.device,
                   precision: str) -> Iterator[Fact]:
    """Compare the update with the machine's peak and bandwidth. Source: Williams, Waterman & Patterson 2009."""
    reference, bandwidth, seconds = peak(device, precision), copy_gb_per_s(device), sum(measured.update_s)
    yield Fact("peak_tflops", {"tflops": reference.tflops, "source": reference.source}, str(reference))
    yield Fact("memory_gb_per_s", bandwidth, f"{bandwidth:,.1f} (measured: a copy, read and written)")
    mfu_pct = reference.mfu_pct(measured.flop, seconds)
    if measured.flop is None or profiler.flop is None or reference.tflops is None or mfu_pct is None:
        why = (reference.source if reference.tflops is None else
               "the model's operations are not counted, or are more than the peak allows")
        yield Fact("mfu_pct", None, f"n/a ({why})")
        return
    gflops, intensity = 1e-9 * measured.flop / seconds, profiler.flop / profiler.counter.nbytes
    yield Fact("flop_per_update", measured.flop / len(measured.update_s),
               f"{1e-9 * measured.flop / len(measured.update_s):,.1f} G, of real tokens alone")
    yield Fact("gflops", gflops, f"{gflops:,.0f} GFLOP/s")
    yield Fact("mfu_pct", mfu_pct, f"{mfu_pct:.1f} % of {reference}")
    yield Fact("bytes_per_update", profiler.counter.nbytes,
               f"{profiler.counter.nbytes / GIB:,.2f} GiB, if each operator reads and writes its tensors once")
    yield Fact("intensity", intensity, f"{intensity:,.1f} FLOP a byte; from "
                                       f"{1000 * reference.tflops / bandwidth:,.0f} on, products are the bound")
    roof = min(1000 * reference.tflops, intensity * bandwidth)
    bound = "products" if roof == 1000 * reference.tflops else "memory"
    yield Fact("roof", {"gflops": roof, "bound": bound, "reached_pct": 100 * gflops / roof},
               f"{roof:,.0f} GFLOP/s, bound by {bound}; the update reaches {100 * gflops / roof:.0f} % of it")


def share_text(share: float, seconds: float) -> str:
    """Return a share and its milliseconds as two columns."""
    return f"{100 * share:5.1f} %  {1000 * seconds:9.2f} ms"


class KernelProfiler(pl.Callback):
    """Count the bytes of one update, profile the next ones, then stop the trainer."""

    def __init__(self, console: Console, trace: Path | None) -> None:
        """trace: as in `StepBenchmark`"""
        self.console, self.trace = console, trace
        self.counter = ByteCounter()
        self.flop: float | None = None  # of the update whose bytes are counted
        self.updates, self.on_gpu = 0, False
        self.profiler: profile | None = None
        self.active = ExitStack()  # the counter or the profiler, while it runs

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any,
                             batch_idx: int) -> None:
        self.console.live(f"profiling: update {self.updates + 1}/{2 + PROFILED}")
        if self.updates == 1:
            self.active.enter_context(self.counter)
        elif self.updates == 2:
            self.on_gpu = pl_module.device.type == "cuda"
            gpu = [ProfilerActivity.CUDA] if self.on_gpu else []
            self.profiler = profile(activities=[ProfilerActivity.CPU, *gpu], with_flops=True, record_shapes=True)
            self.active.enter_context(self.profiler)

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any,
                           batch_idx: int) -> None:
        assert isinstance(pl_module, TranslationTask)
        if self.updates == 1:
            self.active.close()
            self.flop = training_flop(pl_module.model, batch)
        self.updates += 1
        pl_module.state.step += 1
        trainer.should_stop = self.updates == 2 + PROFILED

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert self.profiler is not None
        self.active.close()
        if self.trace is not None:
            self.profiler.export_chrome_trace(str(self.trace))

    def facts(self) -> Iterator[Fact]:
        """Yield for each kind: its share of the time in kernels, its milliseconds an update, its slowest operator."""
        by_kind: defaultdict[str, list[tuple[float, float, str]]] = defaultdict(list)  # seconds, FLOP, operator
        for event in self._operators():
            seconds = 1e-6 * (event.self_device_time_total if self.on_gpu else event.self_cpu_time_total)
            by_kind[kind_of(event.key)].append((seconds / PROFILED, event.flops / PROFILED, event.key))
        total = sum(seconds for rows in by_kind.values() for seconds, _, _ in rows)
        for kind, rows in sorted(by_kind.items(), key=lambda item: -sum(row[0] for row in item[1])):
            seconds, flop = sum(row[0] for row in rows), sum(row[1] for row in rows)
            slowest = max(rows)
            gflops = 1e-9 * flop / seconds if kind == "matmul" and seconds else None
            yield Fact(kind, {"share_pct": 100 * seconds / total, "ms": 1000 * seconds, "gflops": gflops},
                       share_text(seconds / total, seconds) + (f"  {gflops:,.0f} GFLOP/s" if gflops else "")
                       + f"  most: {slowest[2]} {1000 * slowest[0]:,.2f} ms")

    def loss_pct(self) -> float:
        """Return the share of the time in kernels that goes to the loss and its gradients."""
        events = self._operators()
        own, whole = (("self_device_time_total", "device_time_total") if self.on_gpu else
                      ("self_cpu_time_total", "cpu_time_total"))
        loss = sum(getattr(event, whole) for event in events if event.key == LOSS)
        return float(100 * loss / sum(getattr(event, own) for event in events))

    def _operators(self) -> list[Any]:
        """Return the profile of each operator that was called."""
        assert self.profiler is not None
        return [event for event in self.profiler.key_averages()
                if event.device_type.name == "CPU" and not event.is_user_annotation]


def kind_of(operator: str) -> str:
    """Return the first of `KINDS` whose pattern matches an operator's name."""
    return next(kind for kind, pattern in KINDS.items() if re.search(pattern, operator, re.IGNORECASE))


class ByteCounter(TorchDispatchMode):
    """Add up the bytes that operators read and write, views left out: the memory traffic without any cache."""

    def __init__(self) -> None:
        """Start at 0."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.nbytes += bytes_of(func, args, kwargs or {}, result)
        return result
