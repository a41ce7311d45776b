"""How training scales with the number of ranks on this machine, and what the exchange of gradients takes of it.

`python -m minitx.experiments.costs.scaling` is one rank of a measurement: some updates as in training, then some
without the exchange.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, NoReturn

import lightning.pytorch as pl
import torch
from typing_extensions import override

from minitx.config.schema import Config
from minitx.data.corpus import load_corpus
from minitx.data.datamodule import TranslationData
from minitx.distributed.bandwidth import FOUND, sum_s
from minitx.distributed.elastic import run_ranks
from minitx.distributed.ranks import Ranks
from minitx.distributed.worker import serve
from minitx.profiling.process import cores
from minitx.training.build import (
    build_strategy,
    build_task,
    build_tokenizers,
    build_trainer,
    choose_device,
    choose_precision,
)
from minitx.training.process import set_threads
from minitx.training.state import RunState
from minitx.training.task import TranslationTask
from minitx.utils.console import Console
from minitx.utils.errors import Exit, UserError
from minitx.utils.tables import aligned

WARM_UP = 5  # updates before those that are timed
MEASURED = 25  # updates with the exchange, and as many without it
MEDIANS = ("tgt_tokens_per_s", "update_s", "apart_s", "sum_s")  # over rounds


@dataclass(frozen=True)
class ScalingPoint:
    """One measurement: means over `MEASURED` updates."""

    ranks: int
    threads: int  # of each rank
    tgt_tokens_per_s: float
    update_s: float
    apart_s: float  # of an update without the exchange of gradients
    sum_s: float  # of one exchange by itself
    gradient_mib: float


def cases(cfg: Config) -> list[tuple[int, int]]:
    """Return what to compare, (ranks, threads): 1, 2, 4 ... GPUs; or cores, as ranks and as threads of one rank.

    Errors: `UserError` if threads are given for cores, of which each number is tried
    """
    device = choose_device(cfg.trainer)
    most = torch.cuda.device_count() if device.type == "cuda" else cores()
    counts = [2**i for i in range(most.bit_length()) if 2**i <= most]
    if device.type == "cuda":
        return [(n, cfg.trainer.threads or max(1, cores() // most)) for n in counts]
    if cfg.trainer.threads is not None:
        raise UserError(f"trainer.threads={cfg.trainer.threads}: on CPUs bench scaling compares 1, 2, 4 and more "
                        "threads; leave it out")
    return [(n, 1) for n in counts] + [(1, n) for n in counts[1:]]


def compare(cfg: Config, rounds: int, weak: bool, console: Console) -> list[ScalingPoint]:
    """Measure all cases in turn, `rounds` times, and return the median of each.

    weak: let updates grow with the ranks. Errors: `UserError` if a measurement fails
    """
    configs = [configured(cfg, *case, weak) for case in cases(cfg)]
    console.line(f"reading {cfg.choices.data}, {cfg.data.src}-{cfg.data.tgt} ...")
    try_out(configs)
    measured: list[list[ScalingPoint]] = [[] for _ in configs]
    for number in range(rounds):
        for case, points in zip(configs, measured, strict=True):
            ranks, threads = case.trainer.devices, case.trainer.threads
            shares = f"{ranks} rank{'s' * (ranks != 1)} of {threads} thread{'s' * (threads != 1)}"
            console.live(f"round {number + 1}/{rounds}: {shares} ...")
            points.append(measure(case))
    return [replace(points[0], **{name: median(getattr(point, name) for point in points) for name in MEDIANS})
            for points in measured]


def configured(cfg: Config, ranks: int, threads: int, weak: bool) -> Config:
    """Return the config of one case."""
    tokens = cfg.trainer.tokens_per_update * (ranks if weak else 1)
    return replace(cfg, trainer=replace(cfg.trainer, devices=ranks, threads=threads, tokens_per_update=tokens,
                                        max_restarts=0))


def try_out(configs: Sequence[Config]) -> None:
    """Read the text and build the model, as the ranks of each case will. Errors: `UserError` for what they refuse"""
    cfg = configs[0]
    corpus = load_corpus(cfg.data)
    with TemporaryDirectory(prefix="minitx-") as folder:
        tokenizers = build_tokenizers(cfg, corpus, Path(folder))
    for case in configs:
        TranslationData(case, corpus, tokenizers, world_size=case.trainer.devices)
    build_task(cfg, tokenizers, RunState(precision="32-true"))


def measure(cfg: Config) -> ScalingPoint:
    """Start the ranks of one case and read what they measured. Errors: `UserError` if they fail"""
    set_threads(cfg)
    with TemporaryDirectory(prefix="minitx-") as folder:
        if run_ranks(cfg, Path(folder), "minitx.experiments.costs.scaling") != Exit.OK:
            raise UserError(f"trainer.devices={cfg.trainer.devices} trainer.threads={cfg.trainer.threads}: could not "
                            "be measured; see the output of the ranks above")
        return ScalingPoint(**json.loads((Path(folder) / FOUND).read_text()))


def table(points: Sequence[ScalingPoint]) -> Iterator[str]:
    """Yield the table of results, each compared with the first case, and what its columns mean."""
    base = points[0]
    rows = [("ranks", "threads", "tokens/s", "times", "efficiency", "update ms", "exchange ms", "share",
             "sum alone ms")]
    for point in points:
        times = point.tgt_tokens_per_s / base.tgt_tokens_per_s
        exchange_s = max(0.0, point.update_s - point.apart_s) if point.ranks > 1 else 0.0
        efficiency = times / (point.ranks * point.threads / base.threads)
        rows.append((str(point.ranks), str(point.threads), f"{point.tgt_tokens_per_s:,.0f}", f"{times:.2f}",
                     f"{100 * efficiency:.0f} %", f"{1e3 * point.update_s:.1f}", f"{1e3 * exchange_s:.1f}",
                     f"{100 * exchange_s / point.update_s:.0f} %", f"{1e3 * point.sum_s:.1f}"))
    yield from aligned(rows, ">")
    yield (f"exchange: how much longer an update takes with its gradients ({base.gradient_mib:,.1f} MiB) added up over "
           "the ranks; part of that goes on beside the backward pass")


# --- a rank


class ExchangeTimer(pl.Callback):
    """Time updates with the exchange of gradients, then as many without it."""

    def __init__(self, ranks: Ranks) -> None:
        """ranks: they all begin a block of updates at the same moment"""
        self.ranks = ranks
        self.began = 0.0
        self.tokens = 0  # of the block so far
        self.blocks: list[tuple[float, int]] = []  # seconds, tokens

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any,
                           batch_idx: int) -> None:
        assert isinstance(pl_module, TranslationTask)
        pl_module.state.step += 1
        self.tokens += batch.n_tokens
        if (batch_idx + 1 - WARM_UP) % MEASURED:
            return
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        self.ranks.all_gather(None)  # a barrier
        if batch_idx >= WARM_UP:
            self.blocks.append((perf_counter() - self.began, self.tokens))
            sync_gradients: Callable[[bool], None] = pl_module.sync_gradients
            pl_module.sync_gradients = lambda now: sync_gradients(False)  # type: ignore[method-assign]
        trainer.should_stop = len(self.blocks) == 2
        self.began, self.tokens = perf_counter(), 0


def main() -> NoReturn:
    """Measure as one rank; the first writes a `ScalingPoint` into the folder of `elastic`."""
    serve(_work, choose_device)


def _work(cfg: Config, ranks: Ranks, device: torch.device, folder: Path | None) -> int:
    assert folder is not None
    torch.set_num_threads(cfg.trainer.threads or 1)
    with ranks.main_process_first("the text"):
        corpus = load_corpus(cfg.data)
        tokenizers = build_tokenizers(cfg, corpus, folder)
        data = TranslationData(cfg, corpus, tokenizers, rank=ranks.rank, world_size=ranks.size)
    state = RunState(precision=choose_precision(cfg.trainer, device), horizon_steps=1000)
    task = build_task(cfg, tokenizers, state, device=device, ranks=ranks)
    size = sum(p.numel() for p in task.model.parameters())
    timer = ExchangeTimer(ranks)
    build_trainer(device, [timer], strategy=build_strategy(cfg.trainer, ranks), ranks=ranks).fit(
        task, datamodule=data)
    (seconds, tokens), (apart_s, apart_tokens) = timer.blocks
    exchange_s = sum_s(size, device) if ranks.size > 1 else 0.0
    if ranks.is_main:
        point = ScalingPoint(ranks.size, torch.get_num_threads(), tokens / seconds, seconds / MEASURED,
                             apart_s / apart_tokens * tokens / MEASURED, exchange_s, size * 4 / 2**20)
        (folder / FOUND).write_text(json.dumps(asdict(point)))
    return Exit.OK


if __name__ == "__main__":
    main()
