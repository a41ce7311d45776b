"""What more ranks are worth on this machine, and what of their time they spend adding gradients up.

`python -m minitx.experiments.costs.scaling` is a rank of one measurement: some updates as trained, and some whose
gradients stay where they are.
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

WARM_UP = 5  # updates, before those that are timed
MEASURED = 25  # updates of either kind


@dataclass(frozen=True)
class Scaled:
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


def compare(cfg: Config, rounds: int, weak: bool, console: Console) -> list[Scaled]:
    """Measure each case so many times, in turn; return the medians. weak: updates grow with the ranks

    Errors: `UserError` where a measurement fails.
    """
    found: dict[tuple[int, int], list[Scaled]] = {case: [] for case in cases(cfg)}
    for number in range(rounds):
        for ranks, threads in found:
            console.live(f"round {number + 1}/{rounds}: {ranks} ranks of {threads} threads ...")
            tokens = cfg.trainer.tokens_per_update * (ranks if weak else 1)
            trainer = replace(cfg.trainer, devices=ranks, threads=threads, tokens_per_update=tokens, max_restarts=0)
            found[ranks, threads].append(measure(replace(cfg, trainer=trainer)))
    return [Scaled(*case, *(median(getattr(one, name) for one in ones) for name in list(asdict(ones[0]))[2:]))
            for case, ones in found.items()]


def measure(cfg: Config) -> Scaled:
    """Have ranks measure one case. Errors: `UserError`"""
    set_threads(cfg)
    with TemporaryDirectory(prefix="minitx-") as folder:
        if run_ranks(cfg, Path(folder), "minitx.experiments.costs.scaling") != Exit.OK:
            raise UserError(f"trainer.devices={cfg.trainer.devices} trainer.threads={cfg.trainer.threads}: could not "
                            "be measured; what the ranks said is above")
        return Scaled(**json.loads((Path(folder) / FOUND).read_text()))


def table(found: Sequence[Scaled]) -> Iterator[str]:
    """Yield the lines that show a person what was found; the first case is what the others are compared with."""
    base = found[0]
    yield (f"{'ranks':>5}{'threads':>9}{'tokens/s':>11}{'times':>8}{'efficiency':>12}{'update ms':>11}"
           f"{'exchange ms':>13}{'share':>8}{'sum alone ms':>14}")
    for one in found:
        times = one.tgt_tokens_per_s / base.tgt_tokens_per_s
        exchange_s = max(0.0, one.update_s - one.apart_s) if one.ranks > 1 else 0.0
        yield (f"{one.ranks:>5}{one.threads:>9}{one.tgt_tokens_per_s:>11,.0f}{times:>8.2f}"
               f"{100 * times / (one.ranks * one.threads / base.threads):>10.0f} %{1e3 * one.update_s:>11.1f}"
               f"{1e3 * exchange_s:>13.1f}{100 * exchange_s / one.update_s:>6.0f} %{1e3 * one.sum_s:>14.1f}")
    yield (f"exchange: how much longer an update takes with its gradients ({base.gradient_mib:,.1f} MiB) added up over "
           "the ranks; part of that goes on beside the backward pass")


# --- a rank


class Rounds(pl.Callback):
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


def main() -> NoReturn:
    """Be one rank; the first leaves a `Scaled` in the folder of `elastic`."""
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
    rounds = Rounds(ranks)
    build_trainer(device, None, [rounds], strategy=build_strategy(cfg.trainer, ranks), ranks=ranks).fit(
        task, datamodule=data)
    (seconds, tokens), (apart_s, apart_tokens) = rounds.took
    alone_s = sum_s(size, device) if ranks.size > 1 else 0.0
    if ranks.is_main:
        found = Scaled(ranks.size, torch.get_num_threads(), tokens / seconds, seconds / MEASURED,
                       apart_s / apart_tokens * tokens / MEASURED, alone_s, size * 4 / 2**20)
        (folder / FOUND).write_text(json.dumps(asdict(found)))
    return Exit.OK


if __name__ == "__main__":
    main()
