"""What more ranks are worth on this machine, and what of their time they spend adding gradients up.

`python -m minitx.experiments.costs.scaling` is a rank of one measurement: some updates as trained, and some whose
gradients stay where they are.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import lightning.pytorch as pl
import torch
from torch import distributed

from minitx.config.saved import read_config
from minitx.config.schema import Config
from minitx.data.corpus import load_corpus
from minitx.data.datamodule import TranslationData
from minitx.distributed.bandwidth import FOUND, sum_s
from minitx.distributed.elastic import run_ranks
from minitx.distributed.ranks import EXIT_CODE, FOLDER, Ranks, join
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

WARM_UP = 5  # updates, before those that are timed
MEASURED = 25  # updates of either kind


@dataclass(frozen=True)
class ScalingPoint:
    """Hold one measurement: of so many ranks, of so many threads each; means over `MEASURED` updates."""

    ranks: int
    threads: int
    tgt_tokens_per_s: float
    update_s: float
    apart_s: float  # of an update whose gradients are not added up over the ranks
    sum_s: float  # of adding them up, and nothing else
    gradient_mib: float


def cases(cfg: Config) -> list[tuple[int, int]]:
    """Return what to compare, (ranks, threads): GPUs, or cores, as ranks of one thread and as threads of one rank."""
    device = choose_device(cfg.trainer)
    most = torch.cuda.device_count() if device.type == "cuda" else cores()
    counts = [2**i for i in range(most.bit_length()) if 2**i <= most]
    if device.type == "cuda":
        return [(n, cfg.trainer.threads or max(1, cores() // most)) for n in counts]
    return [(n, 1) for n in counts] + [(1, n) for n in counts[1:]]


def compare(cfg: Config, rounds: int, weak: bool, console: Console) -> list[ScalingPoint]:
    """Measure each case so many times, in turn; return the medians. weak: updates grow with the ranks

    Errors: `UserError` where a measurement fails.
    """
    found: dict[tuple[int, int], list[ScalingPoint]] = {case: [] for case in cases(cfg)}
    for number in range(rounds):
        for ranks, threads in found:
            console.live(f"round {number + 1}/{rounds}: {ranks} ranks of {threads} threads ...")
            tokens = cfg.trainer.tokens_per_update * (ranks if weak else 1)
            trainer = replace(cfg.trainer, devices=ranks, threads=threads, tokens_per_update=tokens, max_restarts=0)
            found[ranks, threads].append(measure(replace(cfg, trainer=trainer)))
    return [ScalingPoint(*case, *(median(getattr(one, name) for one in ones) for name in list(asdict(ones[0]))[2:]))
            for case, ones in found.items()]


def measure(cfg: Config) -> ScalingPoint:
    """Have ranks measure one case. Errors: `UserError`"""
    set_threads(cfg)
    with TemporaryDirectory(prefix="minitx-") as folder:
        if run_ranks(cfg, Path(folder), "minitx.experiments.costs.scaling") != Exit.OK:
            raise UserError(f"trainer.devices={cfg.trainer.devices} trainer.threads={cfg.trainer.threads}: could not "
                            "be measured; what the ranks said is above")
        return ScalingPoint(**json.loads((Path(folder) / FOUND).read_text()))


def table(found: Sequence[ScalingPoint]) -> Iterator[str]:
    """Yield the lines that show a person what was found; the first case is what the others are compared with."""
    base = found[0]
    rows = [("ranks", "threads", "tokens/s", "times", "efficiency", "update ms", "exchange ms", "share",
             "sum alone ms")]
    for one in found:
        times = one.tgt_tokens_per_s / base.tgt_tokens_per_s
        exchange_s = max(0.0, one.update_s - one.apart_s) if one.ranks > 1 else 0.0
        rows.append((str(one.ranks), str(one.threads), f"{one.tgt_tokens_per_s:,.0f}", f"{times:.2f}",
                     f"{100 * times / (one.ranks * one.threads / base.threads):.0f} %", f"{1e3 * one.update_s:.1f}",
                     f"{1e3 * exchange_s:.1f}", f"{100 * exchange_s / one.update_s:.0f} %", f"{1e3 * one.sum_s:.1f}"))
    yield from aligned(rows, ">")
    yield (f"exchange: how much longer an update takes with its gradients ({base.gradient_mib:,.1f} MiB) added up over "
           "the ranks; part of that goes on beside the backward pass")


# --- a rank


class ExchangeTimer(pl.Callback):
    """Time updates of both kinds, one after the other."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.since = 0.0
        self.tokens = 0
        self.took: list[tuple[float, int]] = []  # seconds, tokens

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any,
                           batch_idx: int) -> None:
        assert isinstance(pl_module, TranslationTask)
        pl_module.state.step += 1
        self.tokens += batch.n_tokens
        if (batch_idx + 1 - WARM_UP) % MEASURED:
            return
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        self.ranks.all_gather(None)  # all are there
        if batch_idx >= WARM_UP:
            self.took.append((perf_counter() - self.since, self.tokens))
            together: Callable[[bool], None] = pl_module.sync_gradients
            pl_module.sync_gradients = lambda now: together(False)  # type: ignore[method-assign]
        trainer.should_stop = len(self.took) == 2
        self.since, self.tokens = perf_counter(), 0


def main() -> None:
    """Be one rank; the first leaves what was found where the agent asked for it."""
    folder = Path(os.environ[FOLDER])
    cfg = read_config(folder)
    torch.set_num_threads(cfg.trainer.threads or 1)
    device = choose_device(cfg.trainer, int(os.environ["LOCAL_RANK"]))
    ranks = join(cfg.trainer.timeout_s, on_gpu=device.type == "cuda")
    with ranks.main_process_first("the text"):
        corpus = load_corpus(cfg.data)
        tokenizers = build_tokenizers(cfg, corpus, folder)
        data = TranslationData(cfg, corpus, tokenizers, rank=ranks.rank, world_size=ranks.size)
    state = RunState(precision=choose_precision(cfg.trainer, device), horizon_steps=1000)
    task = build_task(cfg, tokenizers, state, device=device, ranks=ranks)
    size = sum(p.numel() for p in task.model.parameters())
    timer = ExchangeTimer(ranks)
    build_trainer(device, None, [timer], strategy=build_strategy(cfg.trainer, ranks), ranks=ranks).fit(
        task, datamodule=data)
    (seconds, tokens), (apart_s, apart_tokens) = timer.took
    alone_s = sum_s(size, device) if ranks.size > 1 else 0.0
    if ranks.is_main:
        found = ScalingPoint(ranks.size, torch.get_num_threads(), tokens / seconds, seconds / MEASURED,
                       apart_s / apart_tokens * tokens / MEASURED, alone_s, size * 4 / 2**20)
        (folder / FOUND).write_text(json.dumps(asdict(found)))
        (folder / EXIT_CODE).write_text("0")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
