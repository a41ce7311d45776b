"""What this machine has, and what a config would cost on it: cheap checks before an expensive run."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from minitx.config.schema import Config
from minitx.data.corpus import load_corpus
from minitx.data.datamodule import TranslationData
from minitx.data.encoded import default_cache_dir
from minitx.data.tokenizer import TokenizerPair
from minitx.distributed.bandwidth import FOUND
from minitx.distributed.elastic import run_ranks
from minitx.experiments.costs.dry_run import DryRun, dry_run
from minitx.profiling.peak import matmul_gflops, peak
from minitx.profiling.provenance import hardware, versions
from minitx.runs.directory import RUNS, check_run_dir
from minitx.training.build import build_task, build_tokenizers, choose_device, choose_precision
from minitx.training.enough import warnings_of
from minitx.training.process import ALLOCATOR
from minitx.training.state import RunState
from minitx.utils.checkout import CONSTRAINTS, own_version
from minitx.utils.console import Console, duration
from minitx.utils.errors import Exit, UserError

GIB, MIB = 2**30, 2**20
VOLTA = 7, 0  # the first with units for fp16


class Fact(NamedTuple):
    """One finding."""

    name: str
    value: Any  # for programs, ready for JSON
    text: str  # for a person


class Doctor:
    """Examine a resolved config on this machine, section by section; later sections need the results of earlier ones.

    Only the cache is written.
    """

    def __init__(self, cfg: Config, console: Console, distributed: bool = False) -> None:
        """distributed: also start ranks, and measure what they exchange"""
        self.cfg, self.console, self.distributed = cfg, console, distributed
        self.run_dir = Path(cfg.run_dir) if cfg.run_dir is not None else RUNS / "NAME"
        self.device: torch.device | None = None
        self.tokenizers: TokenizerPair | None = None
        self.data: TranslationData | None = None
        self.problems: list[UserError] = []
        self.warnings: list[str] = []  # that the run would give, too

    @property
    def code(self) -> Exit:
        """The exit code of the gravest problem: a wrong config, then unreadable text, then storage."""
        return min((problem.code for problem in self.problems), default=Exit.OK)

    def sections(self) -> Iterator[tuple[str, list[Fact]]]:
        """Yield each section's name and facts. A problem ends its section, and is added to `problems`."""
        checks: tuple[Callable[[], Iterator[Fact]], ...] = (
            self.versions, self.devices, self.precision, *([self.ranks] if self.distributed else []), self.storage,
            self.text, self.cost)
        for check in checks:
            self.console.live(f"examining {check.__name__} ...")
            facts: list[Fact] = []
            try:
                for fact in check():
                    facts.append(fact)  # noqa: PERF402 - facts found before a problem are shown
            except UserError as problem:
                self.problems.append(problem)
            yield check.__name__, facts

    def versions(self) -> Iterator[Fact]:
        """Compare installed packages with constraints.txt."""
        pinned = read_constraints(CONSTRAINTS)
        for name, installed in {"minitx": own_version(), **versions()}.items():
            wanted = pinned.get(name)
            differs = wanted is not None and wanted != installed.partition("+")[0]  # 2.13.0+cpu is 2.13.0
            yield Fact(name, {"installed": installed, "pinned": wanted},
                       installed + (f"  differs: constraints.txt says {wanted}" if differs else ""))

    def devices(self) -> Iterator[Fact]:
        """List processor and GPUs, and choose one. Errors: `UserError` if the config asks for one that is missing"""
        cpu = hardware(torch.device("cpu"))
        yield Fact("cpu", cpu, f"{cpu['cpu']}, {cpu['cores']} cores, {cpu['memory_gib'] or 'n/a'} GiB, "
                               f"{cpu['bf16_units'] or 'no units'} for bf16 products")
        for index in range(torch.cuda.device_count()):
            name = torch.cuda.get_device_name(index)
            free, total = (size / GIB for size in torch.cuda.mem_get_info(index))
            yield Fact(f"cuda:{index}", {"gpu": name, "memory_gib": total, "free_gib": free},
                       f"{name}, {total:.1f} GiB, {free:.1f} free")
        load, cores = os.getloadavg()[0], cpu["cores"]
        allocator = os.environ.get(ALLOCATOR, "as the system has it")
        yield Fact("allocator", allocator, allocator)
        yield Fact("load", load, f"{load:.1f} of {cores} cores" +
                   (": other programs were busy, so times measured now may be too long" if load > cores / 2 else ""))
        self.device = choose_device(self.cfg.trainer)
        yield Fact("chosen", str(self.device), f"{self.device}, {torch.get_num_threads()} CPU threads")

    def precision(self) -> Iterator[Fact]:
        """Measure the speed of number formats, on a product of the config's usual size."""
        d_model = self.cfg.model.d_model
        assert d_model is not None
        shape = (self.cfg.data.max_tokens, d_model, 4 * d_model)
        yield Fact("product", shape, "[{:,}, {:,}] @ [{:,}, {:,}]".format(*shape[:2], *shape[1:]))
        gpus = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        devices = [torch.device("cpu"), *(torch.device(name, 0) for name, is_there in gpus.items() if is_there)]
        for device in devices:
            fp32, bf16 = (matmul_gflops(device, dtype, *shape) for dtype in (torch.float32, torch.bfloat16))
            ratio = f"{bf16 / fp32:.{1 if bf16 > fp32 / 10 else 3}f} times"
            yield Fact(device.type, {"fp32_gflops": fp32, "bf16_gflops": bf16},
                       f"fp32 {gflops_text(fp32)}, bf16 {gflops_text(bf16)} ({ratio})")
        if self.device is not None:
            chosen = choose_precision(self.cfg.trainer, self.device)
            where = "the CPU" if self.device.type == "cpu" else "the GPU"
            why = (f"{where} has units for bf16 products" if chosen == "bf16-mixed" else
                   "bf16 was not tried on this kind of GPU" if self.device.type == "mps" else
                   f"{where} has no units for bf16 products" +
                   (" (trainer.precision=16-mixed would use those for fp16)" if has_fp16_units(self.device) else ""))
            asked = self.cfg.trainer.precision
            yield Fact("chosen", chosen, f"{chosen}, " + (f"by auto: {why}" if asked == "auto" else "as asked"))
            most = peak(self.device, chosen)
            yield Fact("peak", {"tflops": most.tflops, "source": most.source}, f"{most}  what MFU is a share of")

    def ranks(self) -> Iterator[Fact]:
        """Start the ranks that the config asks for, two at least. Errors: `UserError` if they cannot work together"""
        cfg = replace(self.cfg, trainer=replace(self.cfg.trainer, devices=max(2, self.cfg.trainer.devices)))
        gpus = torch.cuda.device_count()
        if self.device is not None and self.device.type == "cuda" and cfg.trainer.devices > gpus:
            raise UserError(f"--distributed: {cfg.trainer.devices} ranks take a GPU each, and torch sees {gpus} here; "
                            "trainer.accelerator=cpu lets them meet on the CPU")
        with TemporaryDirectory() as folder:
            code = run_ranks(cfg, Path(folder), "minitx.distributed.bandwidth")
            if code != Exit.OK:
                raise UserError(f"trainer.devices={cfg.trainer.devices}: ranks could not work together; see their "
                                "output above")
            found = json.loads((Path(folder) / FOUND).read_text())
        yield Fact("ranks", found["ranks"], f"{found['ranks']} on {len(set(found['hosts']))} host, {found['backend']}")
        yield Fact("meet_s", found["meet_s"],
                   f"{found['meet_s']:.2f}  from a rank's start to the end of the first exchange")
        yield Fact("small_us", found["small_us"], f"{found['small_us']:,.0f}  a sum of 16 bytes")
        yield Fact("gib_per_s", found["gib_per_s"], ", ".join(
            f"{speed:.2f} at {mib} MiB" for mib, speed in found["gib_per_s"].items()) + "  through each rank's link")

    def storage(self) -> Iterator[Fact]:
        """Check the folders of runs and cache. Errors: `UserError` if no run could start there, or resume"""
        for name, path in (("runs", self.run_dir), ("cache", default_cache_dir())):
            place = nearest_existing(path)
            free, writable = shutil.disk_usage(place).free / GIB, os.access(place, os.W_OK)
            yield Fact(name, {"folder": str(place), "free_gib": free, "writable": writable},
                       f"{place}: {free:,.1f} GiB free" + ("" if writable else ", not writable"))
        place = nearest_existing(self.run_dir)
        if not place.is_dir() or not os.access(place, os.W_OK):
            raise UserError(f"run_dir={self.run_dir}: cannot be made, {place} is "
                            f"{'not writable' if place.is_dir() else 'a file'}; name another", Exit.STORAGE)
        check_run_dir(self.cfg)

    def text(self) -> Iterator[Fact]:
        """Read the text as a run would. Errors: `UserError` for text that cannot be trained on"""
        cfg = self.cfg
        corpus = load_corpus(cfg.data)
        yield Fact("origin", corpus.origin, f"{corpus.origin}, {cfg.data.src}-{cfg.data.tgt}")
        for name in ("valid", *corpus.test_sets):
            pairs = len(corpus.pairs(name))
            yield Fact(name, pairs, f"{pairs:,} pairs")
        with TemporaryDirectory() as folder:
            resumes = cfg.resume == "auto" and TokenizerPair.saved_in(self.run_dir)
            self.tokenizers = tokenizers = build_tokenizers(cfg, corpus, self.run_dir if resumes else Path(folder))
        self.data = TranslationData(cfg, corpus, tokenizers, world_size=cfg.trainer.devices, progress=self.console.live)
        cleaning = self.data.cleaning
        left_out = f" (left out: {cleaning.describe_dropped()})" if cleaning.describe_dropped() else ""
        yield Fact("train", {"pairs": cleaning.pairs, "kept": cleaning.kept}, f"{cleaning.kept:,} pairs{left_out}")
        if corpus.shards:
            yield Fact("windows", [window.pairs for window in self.data.text.windows],
                       f"{len(corpus.shards)} shards; in memory: {self.data.text.describe()}")
        if overlap := cleaning.describe_overlap():
            yield Fact("overlap", cleaning.counts()["overlap"], f"also in the training text: {overlap}")
        yield Fact("vocabulary", [tokenizers.src.vocab_size, tokenizers.tgt.vocab_size], vocabulary_text(tokenizers))

    def cost(self) -> Iterator[Fact]:
        """Build the model and train a few updates. Errors: `UserError` if memory or storage would not suffice"""
        if self.device is None or self.data is None or self.tokenizers is None:
            return
        cfg, data = self.cfg, self.data
        state = RunState(precision=choose_precision(cfg.trainer, self.device), horizon_steps=cfg.trainer.max_steps)
        begun = cfg.resume == "auto" and any((self.run_dir / "checkpoints").glob("step-*.safetensors"))
        task = build_task(replace(cfg, init_from=None) if begun else cfg, self.tokenizers, state)
        params = sum(p.numel() for p in task.model.parameters())
        yield Fact("params", params, f"{params:,}  {cfg.choices.model} {cfg.model.size}")
        plan = data.window(0).plan
        tokens = sum(update.n_tokens for update in plan) / len(plan)
        micro = sum(len(update.micro_batches) for update in plan) / len(plan)
        yield Fact("updates_per_epoch", data.updates_per_epoch, f"{data.updates_per_epoch:,}")
        yield Fact("tokens_per_update", tokens, f"{tokens:,.0f} target tokens in {micro:.1f} micro-batches, on average")
        yield Fact("padding_efficiency_pct", 100 * data.padding_efficiency, f"{100 * data.padding_efficiency:.1f}")
        measured = dry_run(task, data, self.device, self.console)
        yield from self.time_facts(measured, data.updates_per_epoch)
        yield from self.size_facts(measured)

    def time_facts(self, measured: DryRun, updates_per_epoch: int) -> Iterator[Fact]:
        """Estimate the duration of an epoch and of the run from the median update."""
        low, middle, high = measured.quartiles_s
        speed = measured.tgt_tokens / sum(measured.update_s)
        yield Fact("update_s", {"median": middle, "low": low, "high": high, "measured": len(measured.update_s)},
                   f"{middle:.3g}  (half of {len(measured.update_s)} between {low:.3g} and {high:.3g})")
        yield Fact("tgt_tokens_per_s", speed, f"{speed:,.0f}")
        yield Fact("epoch_s", middle * updates_per_epoch, duration(middle * updates_per_epoch))
        trainer = self.cfg.trainer
        a_second = measured.flop and measured.flop / len(measured.update_s) / middle
        ends = [end for end in (trainer.max_steps and trainer.max_steps * middle,
                                trainer.max_minutes and trainer.max_minutes * 60,
                                trainer.max_pflop and a_second and 1e15 * trainer.max_pflop / a_second) if end]
        run_s = min(ends) if ends else None
        if run_s:
            self.warnings += warnings_of(self.cfg, run_s / middle, updates_per_epoch, middle)
        steps = f"{run_s / middle:,.0f} steps, {run_s / middle / updates_per_epoch:.1f} epochs" if run_s else ""
        yield Fact("run_s", run_s, f"{duration(run_s)}  {steps}; validation and tests not included" if run_s else
                   "unknown: none of trainer.max_steps, max_minutes and max_pflop is set")
        yield Fact("elsewhere", "minitx estimate", "minitx estimate, with the same words and --on h100, predicts it "
                                                   "for a GPU that is not here")

    def size_facts(self, measured: DryRun) -> Iterator[Fact]:
        """Report memory, and the storage that a run needs. Errors: `UserError` if the disk has less"""
        assert self.device is not None
        whose = "of the updates" if self.device.type == "cuda" else "of this process so far, text included"
        yield Fact("peak_memory_gib", measured.peak_memory_gib, f"{measured.peak_memory_gib:.2f}  {whose}")
        keep, place = self.cfg.checkpoint.keep, nearest_existing(self.run_dir)
        needed = ((keep + 1) * (measured.checkpoint_bytes + measured.model_bytes)  # each file is replaced by a new one,
                  + 2 * measured.model_bytes)  # so for a moment there is one more
        free = shutil.disk_usage(place).free
        one, needed_mib = measured.checkpoint_bytes / MIB, needed / MIB
        yield Fact("checkpoint_mib", one, f"{one:,.1f}")
        yield Fact("storage_mib", needed_mib, f"{needed_mib:,.1f}  for checkpoint.keep={keep} with the best weights of "
                                              "each, model.safetensors, and one more of each while it is written")
        if needed > free:
            raise UserError(f"{place}: has {free / MIB:,.1f} MiB free, the run needs {needed_mib:,.1f}; make room, "
                            "name run_dir elsewhere, or lower checkpoint.keep", Exit.STORAGE)


def read_constraints(path: Path) -> dict[str, str]:
    """Return the pinned versions by package; empty if there is no such file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return dict(line.split("==", 1) for line in lines if "==" in line and not line.startswith("#"))


def nearest_existing(path: Path) -> Path:
    """Return a path or, if nothing is there, the nearest of its parents that exists."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if os.path.exists(place))


def has_fp16_units(device: torch.device) -> bool:
    """Return whether a GPU has units for fp16 products: since Volta."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= VOLTA


def gflops_text(speed: float) -> str:
    """Write a speed; one below 10 GFLOP/s, as of a format that a processor has no units for, with two digits."""
    return f"{speed:,.0f} GFLOP/s" if speed >= 10 else f"{speed:.2g} GFLOP/s"


def vocabulary_text(tokenizers: TokenizerPair) -> str:
    """Return the number of entries, of both sides if they differ."""
    src, tgt = tokenizers.src.vocab_size, tokenizers.tgt.vocab_size
    return f"{src:,} joint" if tokenizers.joint else f"{src:,} + {tgt:,}"
