"""The plan turned into batches: this rank's share of every update, from a position (epoch, update) on, without end."""

import warnings
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch

from minitx.batch import Batch, collate
from minitx.config import Config
from minitx.data.encoded import default_cache_dir, encode_cached
from minitx.data.plan import Ints, Update, deal, epoch_plan, idle_share, padding_efficiency
from minitx.data.sources import Corpus
from minitx.data.tokenizer import TokenizerPair
from minitx.errors import UserError

MAX_IDLE_SHARE = 0.1


class Turn(NamedTuple):
    """One of an update's micro-batches, by its number among them; weight 0 = no row of it counts."""

    number: int
    batch: Batch
    weight: float


class PlannedUpdate(NamedTuple):
    """One optimizer step, and this rank's turns at it.

    `n_tokens`: the target tokens of the whole update, over all ranks. `lengths`: those of its rows, EOS included,
    source and target.
    """

    epoch: int
    update: int
    n_tokens: int
    turns: list[Turn]
    lengths: tuple[Ints, Ints]


class UpdateStream:
    """Iterate over planned updates without end, each time from the same start."""

    def __init__(self, start: tuple[int, int], epoch: Callable[[int, int], Iterator[PlannedUpdate]]) -> None:
        self._start, self._epoch = start, epoch

    def __iter__(self) -> Iterator[PlannedUpdate]:
        epoch, update = self._start
        while True:
            yield from self._epoch(epoch, update)
            epoch, update = epoch + 1, 0


class TranslationData(pl.LightningDataModule):
    """Serve this rank's micro-batches of each update, from `start` = (epoch, update) on.

    Errors: `UserError` if too few training pairs are left, one fits no micro-batch, or a rank would never work.
    """

    def __init__(self, cfg: Config, corpus: Corpus, tokenizers: TokenizerPair, *, rank: int = 0, world_size: int = 1,
                 start: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        self.cfg, self.rank, self.world_size, self.start = cfg, rank, world_size, start
        self.tokenizer = tokenizers.tgt
        self.train = encode_cached(corpus, "train", tokenizers, cfg.data.max_length, default_cache_dir())
        assert self.train.cleaning is not None
        self.cleaning = self.train.cleaning
        self.cleaning.check(cfg.data.clean.max_dropped_pct)
        self.wait_s = 0.0  # that whoever iterates has waited for updates
        self._planned: tuple[int, list[Update]] = (-1, [])
        first = self.epoch_plan(start[0])
        self.updates_per_epoch = len(first)
        self.padding_efficiency = padding_efficiency(
            first, self.train.src_len, self.train.tgt_len, cfg.data.pad_to_multiple)
        self.idle_share = idle_share(first, world_size)
        self._check_work(max(len(update.micro_batches) for update in first))

    def _check_work(self, most: int) -> None:
        if most >= self.world_size and self.idle_share <= MAX_IDLE_SHARE:
            return
        remedy = (f"lower data.max_tokens{self._enough()}, raise trainer.tokens_per_update, "
                  "or take fewer trainer.devices")
        if most < self.world_size:
            raise UserError(f"trainer.devices={self.world_size}: an update has at most {most} micro-batches, "
                            f"so some ranks would never work; {remedy}")
        warnings.warn(f"ranks are idle {self.idle_share:.0%} of their turns; {remedy}", stacklevel=3)

    def _enough(self) -> str:
        """Find micro-batches small enough for every rank to have one of each update, and say so; or nothing."""
        max_tokens = self.cfg.data.max_tokens
        while (max_tokens := max_tokens // 2) >= self.cfg.data.max_length:
            plan = self._plan(0, max_tokens)
            if min(len(update.micro_batches) for update in plan) >= self.world_size:
                return f" (to {max_tokens:,})" if idle_share(plan, self.world_size) <= MAX_IDLE_SHARE else ""
        return ""

    def epoch_plan(self, epoch: int) -> list[Update]:
        """Return the plan of an epoch, made once while that epoch lasts."""
        if self._planned[0] != epoch:
            self._planned = epoch, self._plan(epoch, self.cfg.data.max_tokens)
        return self._planned[1]

    def _plan(self, epoch: int, max_tokens: int) -> list[Update]:
        cfg = self.cfg
        return epoch_plan(
            self.train.src_len, self.train.tgt_len, seed=cfg.seed, epoch=epoch, max_tokens=max_tokens,
            tokens_per_update=cfg.trainer.tokens_per_update, pad_to_multiple=cfg.data.pad_to_multiple)

    def transfer_batch_to_device(self, batch: PlannedUpdate, device: torch.device,
                                 dataloader_idx: int) -> PlannedUpdate:
        """Leave an update where it is: the task moves its micro-batches one at a time."""
        return batch

    def train_dataloader(self) -> UpdateStream:
        """Iterate over updates across epochs, without end."""
        return UpdateStream(self.start, self._epoch)

    def _epoch(self, epoch: int, first: int) -> Iterator[PlannedUpdate]:
        began = perf_counter()
        src_len, tgt_len = self.train.src_len, self.train.tgt_len
        for number, update in enumerate(self.epoch_plan(epoch)[first:], first):
            batches = update.micro_batches
            turns = [Turn(i, self._collate(batches[i].rows), weight)
                     for i, weight in deal(update, self.rank, self.world_size)]
            rows = np.concatenate([batch.rows for batch in batches])
            planned = PlannedUpdate(epoch, number, update.n_tokens, turns, (src_len[rows], tgt_len[rows]))
            self.wait_s += perf_counter() - began
            yield planned
            began = perf_counter()

    def _collate(self, rows: Ints) -> Batch:
        ids = self.tokenizer
        return collate(self.train.src(rows), self.train.tgt(rows), pad_id=ids.pad_id, bos_id=ids.bos_id,
                       eos_id=ids.eos_id, pad_to_multiple=self.cfg.data.pad_to_multiple, recurring=True)
