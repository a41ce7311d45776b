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


class PlannedUpdate(NamedTuple):
    """One optimizer step of this rank: its micro-batches with weights (0 = no row of it counts).

    `n_tokens`: the target tokens of the whole update, over all ranks. `lengths`: those of the rows that count, EOS
    included, source and target.
    """

    epoch: int
    update: int
    n_tokens: int
    micro_batches: list[tuple[Batch, float]]
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
        remedy = "lower data.max_tokens, raise trainer.tokens_per_update, or take fewer trainer.devices"
        if most < self.world_size:
            raise UserError(f"trainer.devices={self.world_size}: an update has at most {most} micro-batches, "
                            f"so some ranks would never work; {remedy}")
        if self.idle_share > MAX_IDLE_SHARE:
            warnings.warn(f"ranks are idle {self.idle_share:.0%} of their turns; {remedy}", stacklevel=3)

    def epoch_plan(self, epoch: int) -> list[Update]:
        """Return the plan of an epoch, made once while that epoch lasts."""
        if self._planned[0] != epoch:
            self._planned = epoch, epoch_plan(
                self.train.src_len, self.train.tgt_len, seed=self.cfg.seed, epoch=epoch,
                tokens_per_update=self.cfg.trainer.tokens_per_update, max_tokens=self.cfg.data.max_tokens,
                pad_to_multiple=self.cfg.data.pad_to_multiple,
            )
        return self._planned[1]

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
            dealt = deal(update, self.rank, self.world_size)
            rows = np.concatenate([mb.rows if w else mb.rows[:0] for mb, w in dealt])
            planned = PlannedUpdate(epoch, number, update.n_tokens, [(self._collate(mb.rows), w) for mb, w in dealt],
                                    (src_len[rows], tgt_len[rows]))
            self.wait_s += perf_counter() - began
            yield planned
            began = perf_counter()

    def _collate(self, rows: Ints) -> Batch:
        ids = self.tokenizer
        return collate(self.train.src(rows), self.train.tgt(rows), pad_id=ids.pad_id, bos_id=ids.bos_id,
                       eos_id=ids.eos_id, pad_to_multiple=self.cfg.data.pad_to_multiple, recurring=True)
